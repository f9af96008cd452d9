"""HTTP/1.1 with as little work as a request allows: the tester is not to be slower than the server.

`http.client` spends more time on one answer than a fast server does. Here an answer is read as the message format of
RFC 9112 says, and of its headers only those that tell where it ends.
"""

import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import SplitResult, urlsplit

from cortex.errors import UserError
from cortex.loadtest.doors import DEFAULT_TLS, TLS, Connection, Failed
from cortex.loadtest.payloads import Payload

_CHUNK = 262_144
_LONGEST_HEAD = 65_536


@dataclass(frozen=True)
class HTTP:
    """POST to a URL, http or https. Proxies of the environment are not used.

    ``timeout`` bounds connecting and each request, in seconds. ``headers`` are sent with every request; they may
    replace Host and the payload's Content-Type. Raises UserError for a URL or a header
    that is none, and for files of ``tls`` that cannot be used.
    """

    url: str
    timeout: float = 60.0
    headers: tuple[tuple[str, str], ...] = ()
    keep_alive: bool = True
    tls: TLS = DEFAULT_TLS

    def __post_init__(self) -> None:
        if self._parts().scheme == "https":
            self.tls.context()  # raises for files that cannot be used, here rather than in every thread
        for name, value in self.headers:
            if not name or any(char in name + value for char in "\r\n\0") or set(name) & set(" :\t"):
                raise UserError(f"{name}: not a header that can be sent; it looks like 'Name: value'")

    @property
    def origin(self) -> str:
        """The URL's scheme, host and port."""
        parts = self._parts()
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port to connect to."""
        parts = self._parts()
        return str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)

    def connect(self) -> Connection:
        return _Connection(self, self._parts())

    def _parts(self) -> SplitResult:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise UserError(f"{self.url}: not an endpoint; it looks like http://localhost:8888")
        return parts


class _Connection:
    def __init__(self, door: HTTP, parts: SplitResult) -> None:
        self._door = door
        self._host = str(parts.hostname)
        self._tls = door.tls.context() if parts.scheme == "https" else None
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._default_host = parts.netloc.rpartition("@")[2]
        self._socket: socket.socket | None = None
        self._idle = select.poll()
        self._heads: dict[tuple[str, int], bytes] = {}

    def call(self, payload: Payload) -> bytes:
        link = self._link()
        try:
            with suppress(ConnectionError):  # a server may answer, and hang up, before it has read everything
                link.sendall(self._head(payload) + payload.body)
            answer = _Answer(link, time.monotonic() + self._door.timeout)
            body = answer.read()
        except (OSError, _Malformed) as error:
            self.close()
            raise Failed(_kind(error)) from error
        if not (answer.keep_alive and self._door.keep_alive):
            self.close()
        elif answer.waited:
            link.settimeout(self._door.timeout)
        if not 200 <= answer.status < 300:
            raise Failed(f"HTTP {answer.status} {_reason(answer.status)}".rstrip())
        return body

    def close(self) -> None:
        if self._socket is not None:
            self._idle.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _link(self) -> socket.socket:
        """Return an open socket: the one of the last request, unless the server has closed it meanwhile.

        Nothing but its end makes an idle connection readable.
        """
        if self._socket is not None:
            if not self._idle.poll(0):
                return self._socket
            self.close()
        try:
            self._socket = self._open()
        except (OSError, UnicodeError) as error:
            raise Failed(_kind(error), unreachable=True) from error
        self._idle.register(self._socket, select.POLLIN)
        return self._socket

    def _open(self) -> socket.socket:
        link = socket.create_connection(self._door.address, self._door.timeout)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return link
        try:
            return self._tls.wrap_socket(link, server_hostname=self._host)
        except BaseException:
            link.close()
            raise

    def _head(self, payload: Payload) -> bytes:
        key = (payload.content_type, len(payload.body))
        head = self._heads.get(key)
        if head is None:
            head = self._heads[key] = self._written(payload)
        return head

    def _written(self, payload: Payload) -> bytes:
        own = {"host": self._default_host, "content-type": payload.content_type}
        own |= {name.lower(): value for name, value in self._door.headers}
        own |= {
            "content-length": str(len(payload.body)),
            "connection": "keep-alive" if self._door.keep_alive else "close",
        }
        lines = [f"POST {self._target} HTTP/1.1", *(f"{name}: {value}" for name, value in own.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


class _Malformed(Exception):
    """Say that what came is not an HTTP answer."""


class _Ended(OSError):
    """Say that the server closed the connection before its answer was whole."""


class _Silent(OSError):
    """Say that the server closed the connection before its answer began."""


class _Answer:
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
        """Return the body. Raises OSError and _Malformed."""
        self._buffer = self._link.recv(_CHUNK)
        if not self._buffer:
            raise _Silent
        headers = self._head()
        while 100 <= self.status < 200:
            headers = self._head()
        return self._body(headers)

    def _head(self) -> dict[bytes, bytes]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _LONGEST_HEAD or not b"HTTP/1.".startswith(self._buffer[:7]):
                raise _Malformed
            self._more()
        first, *lines = self._buffer[:end].split(b"\r\n")
        self._buffer = self._buffer[end + 4 :]
        if not first.startswith(b"HTTP/1.") or not first[9:12].isdigit():
            raise _Malformed
        self.status = int(first[9:12])
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
        if not length.isdigit():
            raise _Malformed
        return self._exactly(int(length))

    def _chunks(self) -> Iterator[bytes]:
        while True:
            try:
                size = int(self._line().partition(b";")[0], 16)
            except ValueError:
                raise _Malformed from None
            if size <= 0:
                break
            yield self._exactly(size)
            if self._line():
                raise _Malformed
        while self._line():
            pass  # trailers

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _LONGEST_HEAD:
                raise _Malformed
            self._more()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _exactly(self, size: int) -> bytes:
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
        parts = [self._buffer]
        try:
            while True:
                self._buffer = b""
                self._more()
                parts.append(self._buffer)
        except _Ended:
            return b"".join(parts)

    def _more(self) -> None:
        """Read on, in the time that the request has left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._link.settimeout(left)
        self.waited = True
        data = self._link.recv(_CHUNK)
        if not data:
            raise _Ended
        self._buffer += data


_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "timeout"),
    (ConnectionRefusedError, "connection refused"),
    (_Silent, "connection closed without an answer"),
    (_Ended, "connection closed within an answer"),
    (ConnectionError, "connection reset"),
    (socket.gaierror, "unknown host"),
    (UnicodeError, "unknown host"),
    (ssl.SSLCertVerificationError, "certificate not trusted"),
    (ssl.SSLError, "TLS failed"),
    (_Malformed, "not an HTTP answer"),
)


def _kind(error: Exception) -> str:
    """Return the name that an error is counted under. The first match counts: subclasses stand before their bases."""
    named = (name for kind, name in _KINDS if isinstance(error, kind))
    return next(named, getattr(error, "strerror", None) or type(error).__name__)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
