"""The log of a worker, in Cortex's format: ``2020-06-24 12:00:00.123456:cortex:pid-7:INFO:200 OK POST /``."""

import errno
import io
import logging
import sys
from datetime import datetime
from typing import Any, TextIO

_LEVELS = {"cortex": logging.INFO, "uvicorn": logging.WARNING}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_HANDLER = logging.StreamHandler(sys.stdout)
_MANAGER = logging.Manager(logging.root)
"""Of our loggers: `logging.disable` of a predictor does not reach it."""


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # logging's name
        return datetime.fromtimestamp(record.created).strftime("%Y-%m-%d %H:%M:%S.%f")


class _File(io.FileIO):
    """A file that takes what there is room for: on a full disk lines are lost, and whoever prints goes on."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return memoryview(data).nbytes


def configure() -> None:
    """Send the log of this project, and the warnings of its HTTP server, to stdout line by line.

    Side effect: nothing that is printed raises for want of room on the disk, or for a character that has no encoding.
    """
    _HANDLER.setStream(_open(sys.stdout))  # its own: user code may close or detach sys.stdout
    sys.stdout, sys.stderr = _open(sys.stdout), _open(sys.stderr)
    _HANDLER.setFormatter(_Formatter("%(asctime)s:cortex:pid-%(process)d:%(levelname)s:%(message)s"))
    attach()


def attach() -> None:
    """Have the log go where `configure` sent it, whatever user code has made of Python's logging since."""
    for name, level in _LEVELS.items():
        logger = logging.getLogger(name)
        logger.handlers = [_HANDLER]
        logger.setLevel(level)
        logger.propagate = False
    for each in list(logging.root.manager.loggerDict.values()):
        if isinstance(each, logging.Logger) and each.name.partition(".")[0] in _LEVELS:
            each.manager = _MANAGER
            each.disabled = False  # as every logger becomes that a configuration does not name


def _open(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    file = _File(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        file, stream.encoding, "backslashreplace", line_buffering=True, write_through=stream.write_through
    )
