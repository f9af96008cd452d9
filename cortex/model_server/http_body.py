"""The body of an HTTP request: read to a limit, and inflated when it is gzip."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from cortex.model_server.status import Code, StatusError, invalid

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


STALL_S = 60.0
"""How long a body may go without a further byte."""


class BodyTooLarge(Exception):
    """Say that a body is larger than the limit."""


class BodyTooSlow(Exception):
    """Say that nothing more of a body came for `STALL_S`."""


async def read(receive: Receive, *, gzipped: bool, limit: int) -> bytes:
    """Return the body of an ASGI request.

    Raises BodyTooLarge for more than ``limit`` bytes once inflated, BodyTooSlow, INVALID_ARGUMENT for what is not the
    gzip that it says it is, and CANCELLED when the client goes away.
    """
    body = _Gzip(limit) if gzipped else _Plain(limit)
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow from None
        if message["type"] == "http.disconnect":
            raise StatusError(Code.CANCELLED, "the client went away")
        body.add(message.get("body", b""))
        if not message.get("more_body", False):
            return body.whole()


class _Plain:
    """Collect pieces."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._left < 0:
            raise BodyTooLarge
        self._pieces.append(piece)

    def whole(self) -> bytes:
        return b"".join(self._pieces)


class _Gzip(_Plain):
    """Inflate pieces, never further than the limit; what comes behind the end is read to the limit too, and dropped.

    No body at all, as a GET has, is none whatever its headers say.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._stream = zlib.decompressobj(wbits=31)
        self._left_packed = limit
        self._is_empty = True

    def add(self, piece: bytes) -> None:
        self._is_empty = self._is_empty and not piece
        self._left_packed -= len(piece)
        if self._left_packed < 0:
            raise BodyTooLarge
        if self._stream.eof:
            return  # the stream would keep it
        try:
            super().add(self._stream.decompress(piece, self._left + 1))
        except zlib.error as error:
            raise invalid(f"The request body is not gzip: {error}") from error

    def whole(self) -> bytes:
        if not self._stream.eof and not self._is_empty:
            raise invalid("The request body is not gzip: it is cut short")
        return super().whole()
