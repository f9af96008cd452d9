"""The log of a worker, in Cortex's format: ``2020-06-24 12:00:00.123456:cortex:pid-7:INFO:200 OK POST /``."""

import logging
import sys
from datetime import datetime


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # logging's name
        return datetime.fromtimestamp(record.created).strftime("%Y-%m-%d %H:%M:%S.%f")


def configure() -> None:
    """Send the log of this project, and the warnings of its HTTP server, to stdout line by line."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Formatter("%(asctime)s:cortex:pid-%(process)d:%(levelname)s:%(message)s"))
    for name, level in (("cortex", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
