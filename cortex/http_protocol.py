"""One HTTP connection on uvicorn: a request's head has limits, and no offer of another protocol is taken."""

import asyncio
import sys

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LARGEST_HEAD = 64 * 1024
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_HEAD_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself waits for a head for ever, keeps all of it, and loses a body after an offer.

    Java's client offers HTTP/2 with the first request of every connection; a server that has none answers as if it had
    not been asked (RFC 9110, 7.8).
    """

    head_seconds = 20.0
    """How long the head of a request may take to arrive."""
    _received = b""
    _in_head = True
    _head_size = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection; it may not stay silent for longer than between two requests."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows the type itself
        self._expect_request(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that has ended."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._end_head_timer()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head that is too large, or takes too long, ends the connection."""
        self._received = data
        self._head_size += len(data)
        super().data_received(data)
        if self._in_head and self._head_size > _LARGEST_HEAD and not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        if self._in_head and self._head_size and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def on_headers_complete(self) -> None:
        """Start a request, unless an offer has to be taken out of its head first."""
        if not self._is_offer():
            self._in_head = False
            self._end_head_timer()
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request's body; what comes next is another head."""
        if not self._is_offer():
            self._in_head, self._head_size = True, 0
            super().on_message_complete()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_request(self, seconds: float) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _is_offer(self) -> bool:
        return bool(self.parser.should_upgrade() and not self._should_upgrade())

    def _unsupported_upgrade_warning(self) -> None:
        """Read the head again without the offer, and then what came after it; the parser has stopped there."""
        stop = sys.exception()
        assert isinstance(stop, httptools.HttpParserUpgrade)
        if self.parser.get_method() == b"CONNECT":
            self.send_400_response("CONNECT is not supported.")
            return
        head, rest = self._head_without_offer(), self._received[stop.args[0] :]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.data_received(head + rest)

    def _head_without_offer(self) -> bytes:
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _head_is_late(self) -> None:
        if not self._idle:  # the answer to the request before is under way, and must not have this one in it
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)
        elif not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_SLOW)
            self.transport.close()

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
