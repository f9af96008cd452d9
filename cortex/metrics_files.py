"""The files of a ``PROMETHEUS_MULTIPROC_DIR``, in which this process counts for a page that another one shows.

Prometheus' library maps sparse files into memory: on a disk that has become full, the first touch of a page that has no
room yet kills the process (SIGBUS). So their room is taken at the start, while it can still be refused.
"""

import logging
import os
from pathlib import Path

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


def _take_room(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    paths = {kind: directory / f"{kind}_{os.getpid()}.db" for kind in _KINDS}
    paths[_GAUGES].unlink(missing_ok=True)  # what a process of the same number had under way when it was killed
    for path in paths.values():
        if not path.exists():  # a process of the same number may have counted there, and its counts stay
            _make(path)


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
