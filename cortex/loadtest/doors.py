"""Where requests go in: a door knows one protocol. Each thread of a load opens its own connection at it."""

import http.client
import select
import socket
import ssl
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from cortex.errors import UserError
from cortex.loadtest.payloads import Payload


class Failed(Exception):
    """Say that a request was not answered with success.

    ``kind`` is what errors are counted by, so it names no request and no time. ``unreachable`` tells that there was
    nobody to send it to.
    """

    def __init__(self, kind: str, *, unreachable: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.unreachable = unreachable


class Connection(Protocol):
    """One client of the server. Used by one thread, and kept alive between requests where the protocol allows."""

    def call(self, payload: Payload) -> None:
        """Send one request and read its whole answer. Raises `Failed`; the connection is usable afterwards."""

    def close(self) -> None: ...


class Door(Protocol):
    """A protocol and an address. A value that can be pickled: it travels to the processes of the load."""

    def connect(self) -> Connection: ...


@dataclass(frozen=True)
class HTTP:
    """POST to a URL, http or https, with keep-alive. Proxies of the environment are not used.

    ``timeout`` bounds each wait for the server, in seconds. Raises UserError for a URL that is none.
    """

    url: str
    timeout: float = 60.0

    def __post_init__(self) -> None:
        self._parts()

    def connect(self) -> Connection:
        return _HTTPConnection(self._parts(), self.timeout)

    def _parts(self) -> SplitResult:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise UserError(f"{self.url}: not an endpoint; it looks like http://localhost:8888")
        return parts


class _HTTPConnection:
    def __init__(self, parts: SplitResult, timeout: float) -> None:
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._http = kind(str(parts.hostname), parts.port, timeout=timeout)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def call(self, payload: Payload) -> None:
        if self._http.sock is None or _dropped(self._http.sock):
            self._open()
        try:
            self._http.request("POST", self._target, payload.body, {"Content-Type": payload.content_type})
            response = self._http.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise Failed(_kind(error)) from error
        if not 200 <= response.status < 300:
            raise Failed(f"HTTP {response.status} {response.reason}".rstrip())

    def close(self) -> None:
        self._http.close()

    def _open(self) -> None:
        self._http.close()
        try:
            self._http.connect()
        except OSError as error:
            self._http.close()
            raise Failed(_kind(error), unreachable=True) from error


def _dropped(idle: socket.socket) -> bool:
    """Tell whether the server has closed a connection that was idle: nothing else makes one readable."""
    poll = select.poll()
    poll.register(idle, select.POLLIN)
    return bool(poll.poll(0))


_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "timeout"),
    (ConnectionRefusedError, "connection refused"),
    (http.client.RemoteDisconnected, "connection closed without an answer"),
    (http.client.IncompleteRead, "connection closed within an answer"),
    (ConnectionError, "connection reset"),
    (socket.gaierror, "unknown host"),
    (ssl.SSLCertVerificationError, "certificate not trusted"),
    (ssl.SSLError, "TLS failed"),
    (http.client.HTTPException, "not an HTTP answer"),
)


def _kind(error: Exception) -> str:
    """Return the name that an error is counted under. The first match counts: subclasses stand before their bases."""
    named = (name for kind, name in _KINDS if isinstance(error, kind))
    return next(named, getattr(error, "strerror", None) or type(error).__name__)
