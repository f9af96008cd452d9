"""Log files that do not grow without end."""

import fcntl
import logging
import shutil
from pathlib import Path

LIMIT = 64 * 1024 * 1024
"""Bytes after which a log file is moved aside; one older part is kept."""
_LOG = logging.getLogger("cortex.supervisor")


def rotate(*directories: Path) -> None:
    """Move aside what is in the large log files of directories. Their writers append, so they go on at the new end."""
    for log in (log for directory in directories for log in directory.glob("*.log")):
        try:
            _rotate(log)
        except OSError as error:
            _LOG.error("cannot rotate %s: %s", log, error.strerror)


def _rotate(log: Path) -> None:
    with log.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # every supervisor of a home looks after the logs of its front
        if file.seek(0, 2) > LIMIT:
            try:
                shutil.copyfile(log, log.with_suffix(".log.1"))
            finally:
                file.truncate(0)  # also when the disk is too full for a copy: then all the more
