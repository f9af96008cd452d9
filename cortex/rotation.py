"""Log files that do not grow without end."""

import logging
import os
import shutil
from pathlib import Path

LIMIT = 64 * 1024 * 1024
"""Bytes after which a log file is moved aside; one older part is kept."""
_LOG = logging.getLogger("cortex.supervisor")


def rotate(*directories: Path) -> None:
    """Move aside what is in the large log files of directories. Their writers append, so they go on at the new end."""
    for log in (log for directory in directories for log in directory.glob("*.log")):
        try:
            if log.stat().st_size > LIMIT:
                _move_content(log)
        except OSError as error:
            _LOG.error("cannot rotate %s: %s", log, error.strerror)


def _move_content(log: Path) -> None:
    try:
        shutil.copyfile(log, log.with_suffix(".log.1"))
    finally:
        os.truncate(log, 0)  # also when the disk is too full for a copy: then all the more
