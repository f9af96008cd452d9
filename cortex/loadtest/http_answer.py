"""An answer of HTTP/1.1, read as the message format of RFC 9112 says: of its headers only those that tell its end."""

import socket
import time
from collections.abc import Iterator
from http import HTTPStatus

_CHUNK = 262_144
_LONGEST_HEAD = 65_536
_LONGEST_BODY = 268_435_456
_MOST_DIGITS = 20  # of a Content-Length; int() refuses some thousands
_HEX = frozenset(b"0123456789abcdefABCDEF")


class Malformed(Exception):
    """Say that what came is not an HTTP answer."""


class Ended(OSError):
    """Say that the server closed the connection before its answer was whole."""


class Silent(OSError):
    """Say that the server closed the connection before its answer began."""


class TooLong(OSError):
    """Say that an answer is larger than any that is meant."""


class Answer:
    """One answer, read from a socket. ``status``, ``keep_alive`` and ``waited`` are known once it was read."""

    def __init__(self, link: socket.socket, deadline: float) -> None:
        self._link = link
        self._deadline = deadline
        self._buffer = b""
        self.status = 0
        self.keep_alive = True
        self.waited = False
        """Whether the socket's timeout was changed."""

    def read(self) -> bytes:
        """Return the body. Raises OSError and Malformed."""
        self._buffer = self._link.recv(_CHUNK)
        if not self._buffer:
            raise Silent
        headers = self._head()
        while 100 <= self.status < 200:
            headers = self._head()
        return self._body(headers)

    def _head(self) -> dict[bytes, bytes]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _LONGEST_HEAD or not b"HTTP/1.".startswith(self._buffer[:7]):
                raise Malformed
            self._more()
        first, *lines = self._buffer[:end].split(b"\r\n")
        self._buffer = self._buffer[end + 4 :]
        if not first.startswith(b"HTTP/1.") or not first[9:12].isdigit():
            raise Malformed
        self.status = int(first[9:12])
        if self.status < HTTPStatus.CONTINUE:
            raise Malformed
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        connection = headers.get(b"connection", b"").lower()
        self.keep_alive = connection != b"close" and (first[7:8] != b"0" or connection == b"keep-alive")
        return headers

    def _body(self, headers: dict[bytes, bytes]) -> bytes:
        if self.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            return b""
        if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
            return b"".join(self._chunks())
        length = headers.get(b"content-length")
        if length is None:
            return self._rest()
        if not length.isdigit() or len(length) > _MOST_DIGITS:
            raise Malformed
        return self._exactly(int(length))

    def _chunks(self) -> Iterator[bytes]:
        left = _LONGEST_BODY
        while True:
            digits = self._line().partition(b";")[0].strip()
            if not digits or not _HEX.issuperset(digits):
                raise Malformed
            size = int(digits, 16)
            if not size:
                break
            left -= size
            if left < 0:
                raise TooLong
            yield self._exactly(size)
            if self._line():
                raise Malformed
        while self._line():
            pass  # trailers

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _LONGEST_HEAD:
                raise Malformed
            self._more()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _exactly(self, size: int) -> bytes:
        if size > _LONGEST_BODY:
            raise TooLong
        parts, missing = [self._buffer], size - len(self._buffer)
        while missing > 0:
            self._buffer = b""
            self._more()
            parts.append(self._buffer)
            missing -= len(self._buffer)
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._buffer = body[size:]
        return body[:size] if self._buffer else body

    def _rest(self) -> bytes:
        self.keep_alive = False
        parts, left = [self._buffer], _LONGEST_BODY
        try:
            while left > 0:
                self._buffer = b""
                self._more()
                parts.append(self._buffer)
                left -= len(self._buffer)
        except Ended:
            return b"".join(parts)
        raise TooLong

    def _more(self) -> None:
        """Read on, in the time that the request has left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._link.settimeout(left)
        self.waited = True
        data = self._link.recv(_CHUNK)
        if not data:
            raise Ended
        self._buffer += data
