"""Models by their content, copied once and shared by every revision that uses them.

ROOT/DIGEST/VERSION/...   one model, complete; never changed
ROOT/.remote/KEY          the digest of what a remote place held when it was last downloaded
ROOT/.tmp-*               being downloaded, unpacked or copied
ROOT/.lock                shared by those who add, exclusive to those who remove
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from cortex.environments.tree import TEMPORARY, Tree, plainly, unfinished

_DIGEST = re.compile(r"[0-9a-f]{64}")


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

    def prune(self, in_use: Collection[str]) -> tuple[str, ...]:
        """Remove the models whose digest is not in ``in_use``, and return what was removed.

        Nothing is removed while another command holds the cache: the next one to prune does it.
        """
        if not self.root.is_dir():
            return ()
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB) as alone, plainly("cannot remove from the model cache"):
            if not alone:
                return ()
            names = sorted(path.name for path in self.root.iterdir() if _DIGEST.fullmatch(path.name))
            unused = tuple(name for name in names if name not in in_use)
            for name in unused:
                self._discard(self.entry(name))
            self._remove_temporaries()
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
        return self.root / ".remote" / hashlib.sha256(fingerprint.encode()).hexdigest()

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

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[bool]:
        """Hold the lock, and yield True; without waiting, yield False when it is taken."""
        with contextlib.ExitStack() as stack:
            with plainly("cannot lock the model cache"):
                descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
                stack.callback(os.close, descriptor)
                taken = _taken(descriptor, how)
            yield taken


def _taken(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True
