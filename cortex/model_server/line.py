"""The model server's end of the line, see `cortex.line`: a thread for each connection, which answers on the spot.

One more takes the connections, and hears which of them a client has ended.
"""

import logging
import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError

from cortex import line
from cortex.model_server.engines.base import deadline_after
from cortex.model_server.handlers import Handlers
from cortex.model_server.request import Recorder, Request, watch
from cortex.model_server.status import Code, StatusError, guarded, invalid, truncated
from cortex.protos import predict_pb2

_log = logging.getLogger(__name__)
_BACKLOG = 128
_MOST = 1024  # connections, and so threads
_PAUSE = 0.5
"""Seconds until the next try where the system has no descriptor or thread to spare."""


class LineServer:
    """Own one socket and the connections to it."""

    def __init__(self, handlers: Handlers, path: str, recorder: Recorder | None = None) -> None:
        self._handlers = handlers
        self._path = path
        self._recorder = recorder or Recorder()
        self._listener: socket.socket | None = None
        self._threads: dict[socket.socket, threading.Thread] = {}
        self._asked: dict[int, tuple[socket.socket, Request]] = {}  # by descriptor
        self._ends = select.epoll()
        self._changing = threading.Lock()  # guards the threads
        self._stopping = threading.Event()

    def start(self) -> None:
        """Open the socket; where that cannot be, say so: clients go on with gRPC."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            Path(self._path).unlink(missing_ok=True)  # what a killed server has left behind
            listener.bind(self._path)
        except OSError as error:
            listener.close()
            _log.warning("cannot listen on %s: %s; clients use gRPC instead", self._path, error.strerror or error)
            return
        listener.listen(_BACKLOG)
        self._listener = listener
        self._ends.register(listener, select.EPOLLIN)
        threading.Thread(target=self._listen, args=(listener,), name="line", daemon=True).start()

    def stop(self, grace: float) -> None:
        """Take no more requests, and wait up to ``grace`` seconds for those that run."""
        if self._listener is None:
            return
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that listens, which closes it
        Path(self._path).unlink(missing_ok=True)
        with self._changing:
            threads = dict(self._threads)
        for connection in threads:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        end = time.monotonic() + grace
        for thread in threads.values():
            thread.join(max(0.0, end - time.monotonic()))

    def _listen(self, listener: socket.socket) -> None:
        with listener:
            while not self._stopping.is_set():
                try:
                    for descriptor, _ in self._ends.poll(maxevents=1):
                        if descriptor == listener.fileno():
                            self._take(listener.accept()[0])
                        elif asked := self._asked.get(descriptor):
                            _cancel_if_gone(*asked)
                except (OSError, RuntimeError) as error:  # it was stopped, or there are no more descriptors or threads
                    if not self._stopping.wait(_PAUSE):
                        _log.warning("The line cannot take a connection now: %s", error)

    def _take(self, connection: socket.socket) -> None:
        """Serve a connection, or close it where there are too many, or it is too late. Raises RuntimeError."""
        with self._changing:
            if len(self._threads) >= _MOST or self._stopping.is_set():
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="line", daemon=True)
            try:
                self._ends.register(connection, select.EPOLLET)  # of its end alone, once
                thread.start()
            except (OSError, RuntimeError):
                connection.close()
                raise
            self._threads[connection] = thread

    def _serve(self, connection: socket.socket) -> None:
        descriptor = connection.fileno()
        try:
            with connection:
                while True:
                    self._exchange(connection, descriptor)
        except (OSError, EOFError, MemoryError) as error:
            _log.debug("A connection of the line has ended: %s", error)
        finally:
            with self._changing:
                del self._threads[connection]

    def _exchange(self, connection: socket.socket, descriptor: int) -> None:
        """Answer the next request. Nothing of it stays in the memory of a connection that waits for another."""
        seconds, message = line.receive_request(connection)
        with watch(self._recorder, "LINE", "Predict") as watched:  # counted once the answer has left
            self._asked[descriptor] = connection, watched
            answer, watched.code = self._answer(message, seconds)
            del self._asked[descriptor]
            with suppress(OSError):  # nobody is there to take it, nor will there be another request
                line.send_answer(connection, answer, watched.code)

    def _answer(self, message: bytes, seconds: float) -> tuple[bytes, Code]:
        try:
            with guarded():
                answer = self._handlers.predict(_parsed(message), deadline_after(seconds), as_content=True)
                return answer.SerializeToString(), Code.OK
        except StatusError as error:
            return truncated(error.message).encode(), error.code


def _cancel_if_gone(connection: socket.socket, request: Request) -> None:
    """Take a request out of the queues whose client has ended the connection, not another that had its descriptor."""
    with suppress(OSError):
        if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            request.cancel()


def _parsed(message: bytes) -> predict_pb2.PredictRequest:
    try:
        return predict_pb2.PredictRequest.FromString(message)
    except DecodeError as error:
        raise invalid(f"no PredictRequest: {error}") from error
