"""One HTTP connection on uvicorn: heads and silent readers have limits, and no offer of another protocol is taken."""

import asyncio
import sys

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LARGEST_HEAD = 64 * 1024
_GO_ON = b"HTTP/1.1 100 "  # what a client that expects it is told before its answer
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_HEAD_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself waits for a head and a reader for ever, and loses a body after an offer.

    Java's client offers HTTP/2 with the first request of every connection; a server that has none answers as if it had
    not been asked (RFC 9110, 7.8).
    """

    head_seconds = 20.0
    """How long the head of a request may take to arrive."""
    rest_seconds = 5.0
    """How long more of a body is waited for once its request was refused."""
    unread_seconds = 60.0
    """How long a client may read nothing of what is sent to it."""
    _received = b""
    _in_head = True
    _head_size = 0
    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection; it may not stay silent for longer than between two requests."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows the type itself
        self._expect_request(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that has ended."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._end_head_timer()
        self._end_unread_timer()

    def pause_writing(self) -> None:
        """Hear that a client reads more slowly than it is written to."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Hear that a client has read nearly all."""
        super().resume_writing()
        self._end_unread_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which no further request has come; what is still to be read holds that up."""
        super().timeout_keep_alive_handler()
        self._expect_reading()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head that is too large, or takes too long, ends the connection."""
        self._received = data
        self._head_size += len(data)
        super().data_received(data)
        self._received = b""  # a connection that is idle would keep it
        if self._is_refused:
            self._expect_request(self.rest_seconds)
        if self._in_head and self._head_size > _LARGEST_HEAD and not self.transport.is_closing():
            self._refuse_head()
        if self._in_head and self._head_size and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def on_headers_complete(self) -> None:
        """Start a request, or refuse it, unless an offer has to be taken out of its head first."""
        if self._is_offer():
            return
        if self._head_size > _LARGEST_HEAD and self._measured_head() > _LARGEST_HEAD:
            self._is_refused = True
            self._refuse_head()
            return
        self._in_head = False
        self._end_head_timer()
        answer = self.refused() if self._is_plain() else None
        if answer is None:
            super().on_headers_complete()
            self.cycle.transport = _Whole(self.transport, self.loop)  # type: ignore[assignment]  # it is asked no more
        else:
            self._is_refused = True
            self.transport.write(answer)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body; that of a request that was refused is dropped."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request's body; what comes next is another head."""
        if not self._is_offer():
            self._in_head, self._head_size = True, 0
            if self._is_refused:
                self._is_refused = False
                self._expect_request(self.timeout_keep_alive)
            else:
                super().on_message_complete()

    def refused(self) -> bytes | None:
        """Return the answer to a request of which the head has come, or None to have the app answer it."""
        return None

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _is_plain(self) -> bool:
        """Tell whether an answer could be sent this moment, and the connection go on after it."""
        goes_on = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        return goes_on and self._idle and not self.flow.write_paused

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

    def _refuse_head(self) -> None:
        self.transport.write(_HEAD_TOO_LARGE)
        self.transport.close()

    def _measured_head(self) -> int:
        """Return the size of a head that has come whole, in one piece with some of its body."""
        return len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)

    def _head_is_late(self) -> None:
        if not self._idle:  # the answer to the request before is under way, and must not have this one in it
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)
        elif not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_SLOW)
            self.transport.close()

    def _expect_reading(self) -> None:
        self._end_unread_timer()
        if unread := self.transport.get_write_buffer_size():
            self._unread_timer = self.loop.call_later(self.unread_seconds, self._check_reading, unread)

    def _check_reading(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() < unread:
            self._expect_reading()
        else:
            self.transport.abort()

    def _end_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _Whole:
    """What one answer is written to: its head waits for its body, until the loop turns, and both leave together.

    A process that was killed between two writes would leave half of an answer, which no proxy can ask for again. What
    is written to a lost connection goes nowhere: uvloop would raise.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None
        self._is_begun = False

    def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        if not self._is_begun and not data.startswith(_GO_ON):
            self._is_begun, self._head = True, data
            self._loop.call_soon(self._flush)
        elif self._head is None:
            self._transport.write(data)
        else:
            head, self._head = self._head, None
            self._transport.writelines((head, data))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._head is not None and not self._transport.is_closing():
            head, self._head = self._head, None
            self._transport.write(head)
