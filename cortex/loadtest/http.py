"""HTTP/1.1 with as little work as a request allows: the tester is not to be slower than the server.

`http.client` spends more time on one answer than a fast server does.
"""

import base64
import select
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import SplitResult, unquote, urlsplit

from cortex.errors import UserError
from cortex.loadtest.doors import DEFAULT_TLS, TLS, Connection, Failed
from cortex.loadtest.http_answer import Answer, Ended, Malformed, Silent, TooLong
from cortex.loadtest.payloads import Payload


@dataclass(frozen=True)
class HTTP:
    """POST to a URL, http or https. Proxies of the environment are not used.

    ``timeout`` bounds connecting and each request, in seconds. ``headers`` are sent with every request; they may
    replace Host, the payload's Content-Type, and the Authorization that a URL with user and password comes to. Raises
    UserError for a URL or a header that is none, and for files of ``tls`` that cannot be used.
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
            unsendable = any(char in name + value for char in "\r\n\0") or not _is_text(name + value)
            if not name or unsendable or set(name) & set(" :\t"):
                raise UserError(f"{name}: not a header that can be sent; it looks like 'Name: value'")

    @property
    def origin(self) -> str:
        """The URL's scheme, host and port."""
        parts = self._parts()
        return f"{parts.scheme}://{_host(parts)}"

    @property
    def target(self) -> str:
        """The URL's path and query: what stands in a request line."""
        parts = self._parts()
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    @property
    def fields(self) -> dict[str, str]:
        """The headers by name, in lower case, with those that the URL stands for."""
        parts = self._parts()
        own = {"host": _host(parts)}
        if parts.username is not None:
            known = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            own["authorization"] = f"Basic {base64.b64encode(known.encode()).decode()}"
        return own | {name.lower(): value for name, value in self.headers}

    def head(self, method: str, fields: Mapping[str, str]) -> bytes:
        """Return the head of a request with these fields, as it is sent."""
        lines = [f"{method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    @property
    def address(self) -> tuple[str, int]:
        parts = self._parts()
        return str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)

    def connect(self) -> Connection:
        return _Connection(self)

    def open(self) -> socket.socket:
        """Return a new link to the server, with TLS for https. Raises OSError, and UnicodeError for a host's name."""
        link = socket.create_connection(self.address, self.timeout)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._parts().scheme == "http":
            return link
        try:
            return self.tls.context().wrap_socket(link, server_hostname=self.address[0])
        except BaseException:
            link.close()
            raise

    def _parts(self) -> SplitResult:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and _is_text(self.url)
        except ValueError:
            usable = False
        if not usable:
            raise UserError(f"{self.url}: not an endpoint; it looks like http://localhost:8888")
        return parts


class _Connection:
    def __init__(self, door: HTTP) -> None:
        self._door = door
        self._socket: socket.socket | None = None
        self._idle = select.poll()
        self._heads: dict[tuple[str, int], bytes] = {}

    def call(self, payload: Payload) -> bytes:
        link = self._link()
        try:
            with suppress(ConnectionError):  # a server may answer, and hang up, before it has read everything
                link.sendall(self._head(payload) + payload.body)
            answer = Answer(link, time.monotonic() + self._door.timeout)
            body = answer.read()
        except (OSError, Malformed) as error:
            self.close()
            raise Failed(kind(error)) from error
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
            self._socket = self._door.open()
        except (OSError, UnicodeError) as error:
            raise Failed(kind(error), unreachable=True) from error
        self._idle.register(self._socket, select.POLLIN)
        return self._socket

    def _head(self, payload: Payload) -> bytes:
        key = (payload.content_type, len(payload.body))
        head = self._heads.get(key)
        if head is None:
            head = self._heads[key] = self._written(payload)
        return head

    def _written(self, payload: Payload) -> bytes:
        own = {"content-type": payload.content_type} | self._door.fields
        own |= {
            "content-length": str(len(payload.body)),
            "connection": "keep-alive" if self._door.keep_alive else "close",
        }
        return self._door.head("POST", own)


def _is_text(argument: str) -> bool:
    """Tell whether an argument was UTF-8: Python keeps bytes that were not as halves of surrogate pairs."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "timeout"),
    (ConnectionRefusedError, "connection refused"),
    (Silent, "connection closed without an answer"),
    (Ended, "connection closed within an answer"),
    (TooLong, "answer too long"),
    (ConnectionError, "connection reset"),
    (socket.gaierror, "unknown host"),
    (UnicodeError, "unknown host"),
    (ssl.SSLCertVerificationError, "certificate not trusted"),
    (ssl.SSLError, "TLS failed"),
    (Malformed, "not an HTTP answer"),
)


def kind(error: Exception) -> str:
    """Return the name that an error is counted under. The first match counts: subclasses stand before their bases."""
    named = (name for kind, name in _KINDS if isinstance(error, kind))
    return next(named, getattr(error, "strerror", None) or type(error).__name__)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
