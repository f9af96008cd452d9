"""The files of a ``PROMETHEUS_MULTIPROC_DIR``, in which this process counts for a page that another one shows.

Prometheus' library maps sparse files into memory: on a disk that has become full, the first touch of a page that has no
room yet kills the process (SIGBUS). So their room is taken at the start, while it can still be refused.

A process goes on with the files of one that has ended, if there is one: however often a worker is started again, there
are no more files than workers.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric

_log = logging.getLogger(__name__)

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_GAUGES = "gauge_livesum"
_KINDS = ("counter", "histogram", _GAUGES)
"""What the library calls the files of the kinds of metrics that there are here."""
_ROOM = 2 * 2**20
"""Bytes of a file: the metrics of about 80 versions of models. Beyond them a file grows, and is sparse again."""


def open_directory() -> Path | None:
    """Return the directory, with room for what is counted, or None where there is none.

    One that cannot be written to is forgotten with a warning, before the library looks for it: the process then counts
    for itself alone. Call this before the first import of Prometheus' library.
    """
    directory = os.environ.get(_VARIABLE)
    if not directory:
        return None
    try:
        _take_room(Path(directory))
    except OSError as error:
        del os.environ[_VARIABLE]
        _log.warning("%s cannot be used, so nothing is counted for other processes: %s", _VARIABLE, error)
        return None
    return Path(directory)


def counted(directory: Path) -> list["Metric"]:
    """Return what all processes have counted in a directory; nothing where there is none, or none any more."""
    from prometheus_client.multiprocess import MultiProcessCollector  # late: see `open_directory`

    while True:
        files = directory.glob("*.db")  # by itself the library takes the directory for a pattern of names
        with contextlib.suppress(FileNotFoundError):  # somebody goes on with one of them: under another name
            return list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]  # annotated only in part


def forget_the_dead(directory: Path) -> None:
    """Remove what processes that were killed had under way; what they had counted stays."""
    for file in _of_the_dead(directory, _GAUGES):
        file.unlink(missing_ok=True)  # another worker, that is asked at the same time, may have been quicker


def _of_the_dead(directory: Path, kind: str) -> Iterator[Path]:
    for file in directory.glob(f"{kind}_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdecimal() and not _exists(int(pid)):
            yield file


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    return True


def _take_room(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    forget_the_dead(directory)
    paths = {kind: directory / f"{kind}_{os.getpid()}.db" for kind in _KINDS}
    paths[_GAUGES].unlink(missing_ok=True)  # what a process of the same number had under way when it was killed
    for kind, path in paths.items():
        if not path.exists() and not _go_on(directory, kind, path):
            _make(path)


def _go_on(directory: Path, kind: str, path: Path) -> bool:
    """Make a dead process's file this one's, with what is counted in it; False where there is none."""
    for file in _of_the_dead(directory, kind):
        with contextlib.suppress(FileNotFoundError):  # another one was quicker
            file.rename(path)
            return True
    return False


def _make(path: Path) -> None:
    """Make a file with its room, whole or not at all: readers take every one that there is for a page of metrics."""
    unfinished = path.with_suffix(".unfinished")
    try:
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            os.posix_fallocate(descriptor, 0, _ROOM)
        finally:
            os.close(descriptor)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
