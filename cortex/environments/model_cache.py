"""Models by their content, copied once and shared by every revision that uses them.

ROOT/DIGEST/VERSION/...   one model, complete; never changed
ROOT/.remote/KEY          the digest of what a remote place held when it was last downloaded
ROOT/.partial/KEY/        a download that broke off, for a week: the next one goes on with it
ROOT/.tmp-*               being unpacked or copied
ROOT/.lock                shared by those who add, exclusive to those who remove
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from cortex.environments.tree import TEMPORARY, Tree, plainly, unfinished

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PARTIAL_SECONDS = 7 * 24 * 3600


class ModelCache:
    """Keep models under ``root``, safe against other processes that do the same and against being killed."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def entry(self, digest: str) -> Path:
        """Return the directory of a cached model."""
        return self.root / digest

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep others from removing models, until what was added is recorded as being in use.

        May be nested and held by many at once; not around `prune`. UserError when the cache cannot be written.
        """
        with plainly("cannot write to the model cache"):
            self.root.mkdir(parents=True, exist_ok=True)
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            if alone:
                self._remove_temporaries()
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def temporary(self) -> Iterator[Path]:
        """Lend a directory for a download; it is removed afterwards, or by the next command when this one is killed."""
        with self.hold(), contextlib.ExitStack() as stack:
            with plainly("cannot write to the model cache"):
                directory = stack.enter_context(unfinished(self.root))
            yield directory

    @contextlib.contextmanager
    def partial(self, fingerprint: str) -> Iterator[Path]:
        """Lend a directory for the download of what has this fingerprint; what is left in it is there the next time.

        One process at a time has it; others wait.
        """
        directory = self.root / ".partial" / _name(fingerprint)
        with self.hold(), contextlib.ExitStack() as stack:
            with plainly("cannot write to the model cache"):
                directory.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(directory.with_suffix(".lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            with plainly("cannot write to the model cache"):
                directory.mkdir(exist_ok=True)  # whoever had it before may have been done with it
            yield directory

    def keep(self, tree: Tree, copying: Callable[[], None]) -> str:
        """Cache the files of a model and return their digest; ``copying`` is called when they are not there already."""
        with self.hold():
            entry = self.entry(tree.digest)
            if entry.is_dir() and Tree.of(entry).sizes == tree.sizes:
                return tree.digest
            copying()
            self._discard(entry)
            tree.copy_to(entry)
            return tree.digest

    def prune(self, in_use: Callable[[], Collection[str]]) -> tuple[str, ...]:
        """Remove the models whose digest is not in use, and return what was removed.

        ``in_use`` is called, and may raise, once nobody can add a model any more. Nothing is removed while another
        command holds the cache: the next one to prune does it.
        """
        if not self.root.is_dir():
            return ()
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            if not alone:
                return ()
            used = in_use()
            with plainly("cannot remove from the model cache"):
                return self._remove_but(used)

    def _remove_but(self, used: Collection[str]) -> tuple[str, ...]:
        names = sorted(path.name for path in self.root.iterdir() if _DIGEST.fullmatch(path.name))
        unused = tuple(name for name in names if name not in used)
        for name in unused:
            self._discard(self.entry(name))
        self._remove_temporaries()
        self._remove_old_partials()
        self._forget(unused)
        return unused

    def recall(self, fingerprint: str) -> str | None:
        """Return the digest of the model that a remote place still holds, when it is known and cached."""
        with contextlib.suppress(OSError):
            digest = self._memory(fingerprint).read_text()
            if _DIGEST.fullmatch(digest) and self.entry(digest).is_dir():
                return digest
        return None

    def remember(self, fingerprint: str, digest: str) -> None:
        """Note that a remote place with this fingerprint holds this model."""
        path = self._memory(fingerprint)
        with self.temporary() as temporary, plainly("cannot write to the model cache"):
            (temporary / path.name).write_text(digest)
            path.parent.mkdir(exist_ok=True)
            (temporary / path.name).replace(path)

    def _memory(self, fingerprint: str) -> Path:
        return self.root / ".remote" / _name(fingerprint)

    def _forget(self, digests: Collection[str]) -> None:
        for path in self.root.glob(".remote/*"):
            if path.read_text() in digests:
                path.unlink()

    def _discard(self, entry: Path) -> None:
        """Remove an entry so that it is whole until it is gone."""
        with contextlib.suppress(FileNotFoundError), unfinished(self.root) as directory:
            entry.rename(directory / entry.name)

    def _remove_temporaries(self) -> None:
        """Remove what killed processes left. Nobody else may hold the lock."""
        for path in self.root.glob(f"{TEMPORARY}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _remove_old_partials(self) -> None:
        for path in self.root.glob(".partial/*"):
            if time.time() - path.stat().st_mtime > _PARTIAL_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[bool]:
        """Hold the lock, and yield True; without waiting, yield False when it is taken."""
        with contextlib.ExitStack() as stack:
            with plainly("cannot lock the model cache"):
                descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
                stack.callback(os.close, descriptor)
                taken = _taken(descriptor, how)
            yield taken


def _name(fingerprint: str) -> str:
    return hashlib.sha256(fingerprint.encode()).hexdigest()


def _taken(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True
