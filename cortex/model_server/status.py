"""The outcome of a request, in gRPC's canonical codes: what both transports, every engine and every load speak."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from cortex.errors import Error

_log = logging.getLogger(__name__)

_LONGEST = 1024


class Code(IntEnum):
    """gRPC's canonical status codes, which are also those of ``tensorflow.error.Code``."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class StatusError(Error):
    """End a request, or a load, with a code and a text; ``str()`` is TF Serving's ``CODE: text``."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def invalid(message: str) -> StatusError:
    """Return the error of a request that can never succeed as it is."""
    return StatusError(Code.INVALID_ARGUMENT, message)


def internal(error: Exception) -> StatusError:
    """Return the error of what nobody foresaw, by the name of the exception."""
    return StatusError(Code.INTERNAL, f"{type(error).__name__}: {error}")


@contextmanager
def guarded() -> Iterator[None]:
    """Make INTERNAL of whatever goes wrong in the block and is no StatusError; the log says where it did."""
    try:
        yield
    except StatusError:
        raise
    except Exception as error:
        _log.exception("a request failed")
        raise internal(error) from error


def truncated(message: str) -> str:
    """Return the text as a client gets it: at most 1024 bytes of UTF-8, and a mark where it was cut.

    gRPC sends three bytes for one that is not ASCII, and refuses an answer whose text takes more than some thousands.
    """
    text = message.encode("utf-8", "replace")
    return message if len(text) <= _LONGEST else text[:_LONGEST].decode("utf-8", "ignore") + "...TRUNCATED"
