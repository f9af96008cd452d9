"""uvicorn's server and protocol, with an end that loses no request.

A draining worker stops accepting at once; the listening socket itself stays open, because others share it. Every
further response carries ``Connection: close``, so that keep-alive clients move to another worker on their own. A
connection with no request under way is given `LINGER_S` in which to send one, and is closed only then.
"""

import asyncio
import fcntl
import signal
import socket
import struct
import termios
from types import FrameType

from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from cortex.notify import notify

LINGER_S = 2
_TICK_S = 0.05
_LARGEST_HEAD = 64 * 1024
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class DrainState(ServerState):
    """uvicorn's state of a server, and whether it is draining."""

    draining = False


class DrainProtocol(HttpToolsProtocol):
    """One connection, which knows how to end well."""

    server_state: DrainState
    _in_head = True
    _head_size = 0

    def shutdown(self) -> None:
        """Start to end this connection: after its present request, or else after the next one or `LINGER_S`."""
        self.timeout_keep_alive = LINGER_S
        if self._idle:
            self._linger()
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False
        # else its headers are out, and did not say close: the connection lingers once the response is complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, even one whose accept overlapped with the start of the drain."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows the type itself
        if self.server_state.draining:
            self.shutdown()

    def data_received(self, data: bytes) -> None:
        """Take bytes; half a request's head has a limit, and gets no more time in a drain than silence does."""
        self._head_size += len(data)
        super().data_received(data)
        if self._in_head and self._head_size > _LARGEST_HEAD and not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        if self.server_state.draining and self._idle and not self.transport.is_closing():
            self._linger()

    def on_headers_complete(self) -> None:
        """Start a request; during a drain it is the last one of its connection."""
        self._in_head = False
        super().on_headers_complete()
        if self.server_state.draining and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """End a request's body; what comes next is another head."""
        self._in_head, self._head_size = True, 0
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close the idle connection, unless a request has just arrived that nobody has read yet."""
        if not self.transport.is_closing() and _unread(self.transport):
            self.timeout_keep_alive_task = self.loop.call_later(_TICK_S, self.timeout_keep_alive_handler)
            return
        super().timeout_keep_alive_handler()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _linger(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_S, self.timeout_keep_alive_handler)


class DrainServer(Server):
    """uvicorn's server, which tells its supervisor when it serves, and drains when it is told to stop."""

    def __init__(self, config: Config, state: DrainState) -> None:
        super().__init__(config)
        self.server_state = state

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections, then say so."""
        await super().startup(sockets=sockets)
        if self.started:
            notify(ready=True, status="serving")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain, and end with exit code 0 after it; a second Ctrl-C ends at once."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain: accept no more, and return when every connection has ended."""
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        self.server_state.draining = True  # type: ignore[attr-defined]  # a DrainState, see __init__
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(_TICK_S)  # connections that were being accepted show up in this time
        while (self.server_state.connections or self.server_state.tasks) and not self.force_exit:
            await asyncio.sleep(_TICK_S)


def _unread(transport: asyncio.BaseTransport) -> int:
    sock = transport.get_extra_info("socket")
    (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, struct.pack("i", 0)))
    return int(size)
