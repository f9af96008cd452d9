"""Versions that ended the process: told, and not loaded for ever.

An error in native code (a segmentation fault, an abort, the kernel's out-of-memory killer) leaves no time to report
anything. So a small file says which version is being loaded, or answers its first request; it is locked meanwhile, and
the lock goes with the process. A file that says so and is not locked tells the next start that the process died there.
After `Crashes.limit` times in a row the version is not loaded any more: `Crashed` says why, and which file to remove.

The files lie in a directory of the user's own, not beside the model, which may be read-only. What was seen of another
artifact, other settings or another version of this package counts for nothing, and neither does a death of the machine.
"""

import fcntl
import hashlib
import json
import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from cortex import __version__
from cortex.model_server.status import Code, StatusError

_log = logging.getLogger(__name__)
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Crashed(StatusError):
    """Say that a version ended the process too often to be tried again."""

    def __init__(self, directory: Path, times: int, record: Path) -> None:
        super().__init__(
            Code.FAILED_PRECONDITION,
            f"{directory} has ended the process {times} times in a row, while it was loaded or at its first request, "
            f"and is not loaded again. To try again, mend it, or remove {record}, and start the server again",
        )


class Trial:
    """What is known of one version in this process; ``is_over`` once it has loaded and answered a request.

    Without a record there is none to begin with.
    """

    def __init__(self, record: "_Record | None" = None, alone: AbstractContextManager[Any] | None = None) -> None:
        self.is_over = record is None
        self._alone = alone or nullcontext()
        self._record = record
        self._lock = threading.Lock()

    @contextmanager
    def watched(self, *, last: bool) -> Iterator[None]:
        """Note that the version is being loaded, or runs, for the block; the ``last`` block ends the trial.

        An error ends it too: whatever is wrong with the version, the process lives. A version that has ended the
        process before is tried while no other such version is.
        """
        with self._alone:
            self._note(under_way=True)
            try:
                yield
            except BaseException:
                self.end()
                raise
            if last:
                self.end()
            else:
                self._note(under_way=False)

    def end(self) -> None:
        """Forget what was known of the version."""
        with self._lock:
            self.is_over = True
            if self._record is not None:
                self._record.remove()
                self._record = None

    def _note(self, *, under_way: bool) -> None:
        with self._lock:
            if self._record is not None:
                self._record.write(under_way=under_way)


class Crashes:
    """Know which versions ended the process before. ``settings`` is what, but for its files, a load depends on.

    With a ``limit`` of 0, or where the directory cannot be used, nothing is noted.
    """

    def __init__(self, directory: Path, limit: int, settings: str) -> None:
        self._directory = directory
        self._limit = limit
        self._settings = f"{__version__} {settings}"
        self._suspects = threading.Lock()
        self._lock = threading.Lock()  # guards the trials
        self._trials: list[Trial] = []
        self._is_closed = False

    def trial(self, version: Path) -> Trial:
        """Begin the trial of a version directory. Raises Crashed for one that is not to be loaded."""
        record = self._record(version) if self._limit > 0 else None
        if record is None:
            return Trial()
        if record.crashes >= self._limit:
            record.close()
            raise Crashed(version, record.crashes, record.path)
        if record.crashes:
            _log.error("%s ended the process %d of %d times in a row", version, record.crashes, self._limit)
        trial = Trial(record, self._suspects if record.crashes else None)
        with self._lock:
            self._trials = [*(each for each in self._trials if not each.is_over), trial]
            is_closed = self._is_closed
        if is_closed:
            trial.end()
        return trial

    def close(self) -> None:
        """Forget what is under way, and note no more: the process ends in order, whatever its threads are at."""
        with self._lock:
            self._is_closed = True
            trials = tuple(self._trials)
        for trial in trials:
            trial.end()

    def _record(self, version: Path) -> "_Record | None":
        name = hashlib.sha256(f"{version.resolve()} {self._settings}".encode()).hexdigest()[:32]
        try:
            _make_private(self._directory)
            return _Record.open(self._directory / f"{name}.json", version)
        except BlockingIOError:  # another server is at the same version, and notes what becomes of it
            return None
        except OSError as error:
            _log.warning("A version that ends the process will not be known at the next start: %s", error)
            return None


class _Record:
    """The file of one version, open and locked."""

    def __init__(self, path: Path, descriptor: int, known: dict[str, Any], crashes: int) -> None:
        self.path = path
        self.crashes = crashes
        self._descriptor = descriptor
        self._known = known

    @classmethod
    def open(cls, path: Path, version: Path) -> "_Record":
        """Open the file of a version, and count the crash that it tells of. Raises OSError."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), path.lstat()):
                raise FileNotFoundError(f"{path} has just been removed by another server")
            found = _parsed(os.pread(descriptor, 2**16, 0))
            now = {"directory": str(version), "artifact": fingerprint(version), "boot": _boot()}
            record = cls(path, descriptor, now, _crashes(found, now))
            record.write(under_way=False)
        except BaseException:
            os.close(descriptor)
            raise
        return record

    def write(self, *, under_way: bool) -> None:
        """Say what the process is at; a disk that refuses costs the next start what it would have known."""
        data = json.dumps({**self._known, "crashes": self.crashes, "under_way": under_way}).encode()
        with suppress(OSError):
            os.pwrite(self._descriptor, data, 0)
            os.ftruncate(self._descriptor, len(data))

    def remove(self) -> None:
        """Remove the file, and with it the lock; where it cannot be removed, it tells of no crash."""
        self.crashes = 0
        self.write(under_way=False)
        with suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Give the lock back, and leave the file."""
        os.close(self._descriptor)


def default_directory() -> Path:
    """Return where this user's servers keep their records, whether or not it can be written to."""
    return Path(os.environ.get("TMPDIR") or "/tmp") / f"cortex-model-server-{os.getuid()}"  # noqa: S108  made private


def _make_private(directory: Path) -> None:
    """Make the directory, or check that nobody else may write to it. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{directory} is not a directory that only this user may write to")


def _crashes(found: dict[str, Any], now: dict[str, Any]) -> int:
    if found.get("artifact") != now["artifact"]:
        return 0
    crashes = found.get("crashes")
    died = found.get("under_way") is True and found.get("boot") == now["boot"]
    return (crashes if isinstance(crashes, int) else 0) + died


def _parsed(data: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        found = json.loads(data)
        if isinstance(found, dict):
            return found
    return {}


def fingerprint(directory: Path) -> str:
    """Return a digest of the names, sizes and times of the files in a directory; their content is not read.

    Raises OSError.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        found = path.stat()
        digest.update(f"{path.relative_to(directory)} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _boot() -> str:
    with suppress(OSError):
        return _BOOT.read_text().strip()
    return ""
