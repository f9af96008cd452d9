"""A version directory that appears whole under its final name, or not at all.

The model is written beside its final place, in ``.exporting-<version>``, which no model server takes for a version.
It is synced to disk and renamed. A run that was killed leaves that directory behind; the next one removes it.
"""

import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cortex.errors import UserError

_NEW = ".exporting-"
_OLD = ".replaced-"
_AT_FDCWD = -100  # linux/fcntl.h: paths are relative to the working directory
_RENAME_EXCHANGE = 2  # linux/fs.h


@contextmanager
def new_version(output: Path, version: int, *, force: bool, instead: str = "--output") -> Iterator[Path]:
    """Yield an empty directory that becomes ``output/version`` when the block ends without an error.

    One export at a time may write into ``output``. Raises UserError when another one does, when the version exists and
    ``force`` is not set, and when ``output`` cannot be written. A replaced version stays until the new one is whole.
    ``instead`` is the option that names another place: most exporters give a version the number of its source.
    """
    target = output / str(version)
    with _errors_told(output), locked(output, "export"):
        _clean(output)
        if os.path.lexists(target) and not force:
            raise UserError(f"{target} exists already: pass --force to replace it, or another {instead}")
        staging = output / f"{_NEW}{version}"
        try:
            staging.mkdir()
            yield staging
            _sync(staging)
            _publish(staging, target)
            _sync_one(output)
        finally:
            _remove(staging)


@contextmanager
def _errors_told(output: Path) -> Iterator[None]:
    try:
        yield
    except shutil.Error as error:
        source, _, told = error.args[0][0]
        reason, _, _ = told.partition(": '")  # behind it are both names again
        raise UserError(f"cannot copy {source} into {output}: {reason}") from error
    except OSError as error:
        read = isinstance(error.filename, str) and not Path(error.filename).is_relative_to(output)
        at = error.filename if read else f"cannot write into {output}"
        raise UserError(f"{at}: {error.strerror or error}") from error


@contextmanager
def locked(output: Path, what: str) -> Iterator[None]:
    """Make the directory, and be the only one to write into it; what was made for nothing goes away again.

    ``what`` names what writes, for the UserError that says that another one does.
    """
    made = [each for each in (output, *output.parents) if not each.exists()]
    output.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, output, what)
        try:
            yield
        finally:
            with suppress(OSError):  # not empty: something was written
                for each in made:
                    each.rmdir()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, output: Path, what: str) -> None:
    """Take the lock; the kernel gives it back however the process ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another {what} is writing into {output}: wait until it has ended") from None


def _clean(output: Path) -> None:
    """Remove what a killed run left, and put a version back that it had moved away but not replaced."""
    for leftover in output.glob(f"{_NEW}*"):
        _remove(leftover)
    for leftover in output.glob(f"{_OLD}*"):
        target = output / leftover.name.removeprefix(_OLD)
        if os.path.lexists(target):
            _remove(leftover)
        else:
            leftover.rename(target)


def _publish(staging: Path, target: Path) -> None:
    if not os.path.lexists(target):
        staging.rename(target)
    elif not _exchange(staging, target):
        old = target.with_name(f"{_OLD}{target.name}")
        target.rename(old)
        staging.rename(target)
        _remove(old)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the filesystem cannot (it is Linux's ``renameat2``)."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    failed = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return not failed


def _sync(directory: Path) -> None:
    """Bring a directory to disk, so that its new name cannot survive a power cut that its files do not."""
    for path in (*directory.rglob("*"), directory):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
