"""uvicorn's server and protocol, with an end that loses no request.

A draining worker stops accepting at once; the listening socket itself stays open, because others share it. Every
further response carries ``Connection: close``, so that keep-alive clients move to another worker on their own. A
connection with no request under way is given `LINGER_S` in which to send one, and is closed only then.
"""

import asyncio
import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Callable
from functools import partial
from types import FrameType

from uvicorn import Config, Server
from uvicorn.server import ServerState

from cortex.api.accept import Acceptor, Tally
from cortex.api.refusal import Refusal
from cortex.http_protocol import HttpProtocol
from cortex.notify import notify

LINGER_S = 2
_TICK_S = 0.05
_TICKS_PER_SECOND = 10  # uvicorn's


class DrainState(ServerState):
    """uvicorn's state of a server, and whether it is draining, wholly or in part."""

    draining = False
    surplus = 0
    """How many connections are to end after their next request, so that another worker has them."""
    acceptor: Acceptor | None = None
    refusal: Refusal | None = None

    def is_last(self) -> bool:
        """Tell whether a request that has just begun is the last one of its connection."""
        if self.surplus and not self.draining:
            self.surplus -= 1
            return True
        return self.draining


class DrainProtocol(HttpProtocol):
    """One connection, which knows how to end well."""

    server_state: DrainState

    def shutdown(self) -> None:
        """Start to end this connection: after its present request, or else after the next one or `LINGER_S`."""
        self.timeout_keep_alive = LINGER_S
        if self._idle:
            self._expect_request(LINGER_S)
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False
        # else its headers are out, and did not say close: the connection lingers once the response is complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, even one whose accept overlapped with the start of the drain."""
        super().connection_made(transport)
        if self.server_state.draining:
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that has ended, and have the other workers know."""
        super().connection_lost(exc)
        if self.server_state.acceptor is not None:
            self.server_state.acceptor.count()

    def data_received(self, data: bytes) -> None:
        """Take bytes; half a request's head gets no more time in a drain than silence does."""
        super().data_received(data)
        if self.server_state.draining and self._idle and not self.transport.is_closing():
            self._expect_request(LINGER_S)

    def on_headers_complete(self) -> None:
        """Start a request; during a drain it is the last one of its connection."""
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.keep_alive and self.server_state.is_last():
            self.cycle.keep_alive = False

    def refused(self) -> bytes | None:
        """Refuse a request for which there is no room; one that is to be the last of its connection is the app's."""
        state = self.server_state
        if state.refusal is None or state.draining or state.surplus:
            return None
        return state.refusal.answer(self.parser.get_method(), self.url, self.headers, state.default_headers)

    def timeout_keep_alive_handler(self) -> None:
        """Close the idle connection, unless a request has just arrived that nobody has read yet."""
        if not self.transport.is_closing() and _unread(self.transport):
            self.timeout_keep_alive_task = self.loop.call_later(_TICK_S, self.timeout_keep_alive_handler)
            return
        super().timeout_keep_alive_handler()


class DrainServer(Server):
    """uvicorn's server, which tells its supervisor when it serves, and drains when it is told to stop.

    With a ``tally`` it shares its listening socket evenly with other workers; without one it takes what it can.
    ``orphaned`` is called in a drain once its supervisor is gone: nobody will start again what a request waits for.
    """

    server_state: DrainState

    def __init__(
        self,
        config: Config,
        state: DrainState,
        tally: Tally | None = None,
        orphaned: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._parent = os.getppid()
        self._orphaned = orphaned
        self.server_state = state
        self._tally = tally

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections, then say so."""
        if self._tally is None or not sockets:
            await super().startup(sockets=sockets)
        else:
            await super().startup(sockets=[])
            self._share(sockets[0], self._tally)
        os.register_at_fork(after_in_child=_end_when_told)
        if self.started:
            notify(ready=True, status="serving")

    def _share(self, listener: socket.socket, tally: Tally) -> None:
        protocol = partial(DrainProtocol, self.config, self.server_state, self.lifespan.state)
        self.server_state.acceptor = Acceptor(listener, tally, self.server_state.connections, protocol)
        self.server_state.acceptor.start()

    async def on_tick(self, counter: int) -> bool:
        """Stay among those that share the socket; once a second, see whether to hand connections on."""
        if self.server_state.acceptor is not None:
            self.server_state.acceptor.tick()
            if counter % _TICKS_PER_SECOND == 0:
                self.server_state.surplus = self.server_state.acceptor.surplus()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain, and end with exit code 0 after it; a second Ctrl-C ends at once."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain: accept no more, and return when every connection has ended."""
        if self.server_state.acceptor is not None:
            await self.server_state.acceptor.close()
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        notify(stopping=True)
        self.server_state.draining = True
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(_TICK_S)  # connections that were being accepted show up in this time
        while (self.server_state.connections or self.server_state.tasks) and not self.force_exit:
            if os.getppid() != self._parent:
                self._orphaned()
            await asyncio.sleep(_TICK_S)


def _end_when_told() -> None:
    """Have a process that the predictor forked end at what this one drains at: it has no connections of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _unread(transport: asyncio.BaseTransport) -> int:
    sock = transport.get_extra_info("socket")
    (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, struct.pack("i", 0)))
    return int(size)
