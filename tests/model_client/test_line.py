"""The client's end of the line, against servers that end, stay silent, or come back."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from cortex import line
from cortex.model_client.line import Line, PredictionError
from cortex.protos import predict_pb2

Serve = Callable[[socket.socket], None]
REQUEST = predict_pb2.PredictRequest()
REQUEST.model_spec.name = "m"


class Listener:
    """A server that does the same with each connection, in a thread; leaving it ends every connection."""

    def __init__(self, path: Path, serve: Serve) -> None:
        self.connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._serve = serve
        self._path = path
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.connections.append(self._listener.accept()[0])
                threading.Thread(target=self._served, args=(self.connections[-1],), daemon=True).start()

    def _served(self, connection: socket.socket) -> None:
        with suppress(OSError, EOFError):
            self._serve(connection)

    def end(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[[Serve], Listener]]:
    started: list[Listener] = []

    def listen(serve: Serve) -> Listener:
        started.append(Listener(tmp_path / "x.sock.line", serve))
        return started[-1]

    yield listen
    for each in started:
        with suppress(OSError):
            each.end()


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Line]:
    found = Line(str(tmp_path / "x.sock.line"), 60.0)
    yield found
    found.close()


def echo(connection: socket.socket) -> None:
    """Answer each request with its own model spec."""
    while True:
        _, message = line.receive_request(connection)
        answer = predict_pb2.PredictResponse(model_spec=predict_pb2.PredictRequest.FromString(message).model_spec)
        line.send_answer(connection, answer.SerializeToString(), 0)


def test_a_server_without_a_line(tmp_path: Path) -> None:
    """TF Serving has no line, and neither has a model server that is reached over TCP."""
    assert Line.beside(f"unix:{tmp_path / 'x.sock'}", 1.0) is None
    assert Line.beside("localhost:8500", 1.0) is None


def test_connections_are_used_again(listen: Callable[[Serve], Listener], asking: Line) -> None:
    """One thread needs one connection, however often it asks."""
    server = listen(echo)
    for _ in range(5):
        answer = asking.predict(REQUEST)
        assert answer is not None
        assert answer.model_spec.name == "m"
    assert len(server.connections) == 1


def test_nobody_listens(asking: Line) -> None:
    """Without a listener nothing is asked, and the caller is told by None."""
    assert asking.predict(REQUEST) is None


def test_a_server_that_has_come_back(listen: Callable[[Serve], Listener], asking: Line) -> None:
    """Idle connections to a server that has ended are left, and its successor is asked."""
    first = listen(echo)
    assert asking.predict(REQUEST) is not None
    first.end()
    assert asking.predict(REQUEST) is None
    second = listen(echo)
    assert asking.predict(REQUEST) is not None
    assert len(second.connections) == 1


def test_a_server_that_ends_under_a_request(listen: Callable[[Serve], Listener], asking: Line) -> None:
    """A request that was sent is not sent again: it may be what ended the server."""
    seen = []

    def die(connection: socket.socket) -> None:
        seen.append(line.receive_request(connection))
        connection.shutdown(socket.SHUT_RDWR)

    listen(die)
    with pytest.raises(PredictionError) as caught:
        asking.predict(REQUEST)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "StatusCode" not in str(caught.value)
    assert len(seen) == 1


def test_a_server_that_has_no_thread_left(listen: Callable[[Serve], Listener], asking: Line) -> None:
    """A connection that is closed before its request was read has asked nothing: gRPC may be asked instead."""

    def close_unread(connection: socket.socket) -> None:
        connection.recv(1, socket.MSG_PEEK)
        connection.close()

    listen(close_unread)
    assert asking.predict(REQUEST) is None


def test_a_server_that_stays_silent(listen: Callable[[Serve], Listener], tmp_path: Path) -> None:
    """An answer that does not come ends in DEADLINE_EXCEEDED, and its connection is not used again."""
    server = listen(lambda connection: threading.Event().wait(2) and None)
    asking = Line(str(tmp_path / "x.sock.line"), 0.1)
    for connections in (1, 2):
        with pytest.raises(PredictionError) as caught:
            asking.predict(REQUEST)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert len(server.connections) == connections


def test_the_time_that_a_predictor_gives_its_sockets(listen: Callable[[Serve], Listener], asking: Line) -> None:
    """A default for downloads does not cut a prediction short."""
    slow = threading.Event()

    def dawdle(connection: socket.socket) -> None:
        connection.settimeout(None)
        slow.wait(0.5)
        echo(connection)

    listen(dawdle)
    socket.setdefaulttimeout(0.1)
    try:
        assert asking.predict(REQUEST) is not None
    finally:
        socket.setdefaulttimeout(None)


def test_an_error_is_an_rpc_error(listen: Callable[[Serve], Listener], asking: Line) -> None:
    """What the server refuses has gRPC's type, code and details, as users' code catches it."""

    def refuse(connection: socket.socket) -> None:
        while True:
            line.receive_request(connection)
            line.send_answer(connection, "no such möbel".encode(), 5)

    listen(refuse)
    with pytest.raises(grpc.RpcError) as caught:
        asking.predict(REQUEST)
    assert isinstance(caught.value, PredictionError)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "no such möbel")
    assert str(caught.value) == "NOT_FOUND: no such möbel"
