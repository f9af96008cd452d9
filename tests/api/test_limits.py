"""Too many requests and too large bodies are refused at once, with an answer that arrives."""

import asyncio
import contextlib
import http.client
import socket
import threading
import time

import psutil
import pytest
import requests
from starlette.exceptions import HTTPException
from uvicorn import Config

from cortex.api.admission import Admission
from cortex.api.drain import DrainProtocol, DrainServer, DrainState
from cortex.api.metrics import Metrics
from cortex.api.refusal import Places
from tests.waiting import until

PREDICTOR = """
import pathlib
import time


class PythonPredictor:
    def __init__(self, config):
        pass

    def predict(self, payload, query_params):
        while query_params.get("until") and not pathlib.Path(query_params["until"]).exists():
            time.sleep(0.01)
        return len(payload)
"""
LIMIT = 1024 * 1024
TOO_LARGE = f"the request body is larger than networking.max_body_size, which is {LIMIT} bytes"


@pytest.fixture(scope="module")
def worker(module_workers):
    spec = {
        "predictor": {"processes_per_replica": 2, "threads_per_process": 1},
        "autoscaling": {"max_replica_concurrency": 5},
        "networking": {"max_body_size": "1Mi"},
    }
    return module_workers.start(PREDICTOR, spec).await_ready()


def test_overload_is_refused_at_once(worker, tmp_path):
    """Above its share of max_replica_concurrency, here ceil(5 / 2), a worker answers 503 and asks to come back."""
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(worker.post(b"", params={"until": tmp_path / "go"})))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) == 7)
    for refused in answers:
        assert (refused.status_code, refused.text, refused.headers["retry-after"]) == (503, "Service Unavailable", "1")
        assert refused.headers["x-request-id"]
    assert requests.get(worker.url, timeout=10).status_code == 200
    assert requests.get(worker.url + "/healthz", timeout=10).status_code == 200
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers[7:]] == [200, 200, 200]
    assert worker.post(b"abc").json() == 3


def test_the_limit_itself_fits(worker):
    """A body of exactly the limit is served."""
    assert worker.post(b"x" * LIMIT).json() == LIMIT


@pytest.mark.parametrize("size", [LIMIT + 1, 50 * LIMIT])
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_a_body(worker, size, connection, chunked):
    """One clear line, which reaches a client that sends everything before it listens, without a reset."""
    host, port = worker.url.removeprefix("http://").split(":")
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {size}"
    head = f"POST / HTTP/1.1\r\nhost: x\r\nconnection: {connection}\r\n{framing}\r\n\r\n"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size) if chunked else b"x" * size
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(head.encode())
        client.sendall(body)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert (answer.status, answer.read().decode()) == (413, TOO_LARGE)
        assert answer.headers["x-request-id"]
        answer.close()


def test_refused_before_it_is_read(worker):
    """An announced length is enough for the refusal: not a byte of the body is waited for."""
    connection = http.client.HTTPConnection(*worker.url.removeprefix("http://").split(":"), timeout=10)
    connection.putrequest("POST", "/")
    connection.putheader("content-length", str(50 * LIMIT))
    connection.putheader("expect", "100-continue")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_form_counts_as_a_whole(worker):
    """The limit holds for multipart bodies too."""
    answer = worker.post(files={"image": b"x" * (LIMIT + 1)})
    assert (answer.status_code, answer.text) == (413, TOO_LARGE)


def test_a_client_that_leaves_frees_its_place(worker):
    """A connection that breaks in the middle of its body is forgotten."""
    host, port = worker.url.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
    until(lambda: worker.post(b"").status_code == 200)


def test_a_head_has_a_limit(worker):
    """Headers that never end are refused before they fill the memory, and the connection ends."""
    port = int(worker.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\nx-long: ")
        with contextlib.suppress(OSError):  # the worker may have closed already
            for _ in range(64):
                connection.sendall(b"a" * 4096)
        assert connection.recv(1000).startswith(b"HTTP/1.1 431 ")


@contextlib.contextmanager
def serving(protocol, state=None, go_on=None, body=b"ok"):
    """Run an app that answers "ok" behind a protocol, in a thread; lend its address. It may wait before its body."""
    headers = [(b"content-length", b"%d" % len(body))]

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while go_on and not go_on.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": body})

    config = Config(app, http=protocol, ws="none", lifespan="off", log_config=None, timeout_keep_alive=1)
    server = DrainServer(config, state or DrainState())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join(20)


class Impatient(DrainProtocol):
    """The worker's protocol, which waits for half a head no longer than a moment."""

    head_seconds = 0.3


REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("before", [b"", REQUEST])
def test_a_head_has_a_time(before):
    """A head that comes a byte at a time is answered with 408, as the first of a connection and as a later one."""
    with serving(Impatient) as address, socket.create_connection(address, timeout=10) as connection:
        connection.sendall(before)
        while before and not connection.recv(1000).endswith(b"ok"):
            pass
        ended = threading.Event()
        dripping = threading.Thread(target=_drip, args=(connection, ended))
        dripping.start()
        try:
            assert connection.recv(1000).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        finally:
            ended.set()
            dripping.join()


def _drip(connection, ended):
    with contextlib.suppress(OSError):  # the server closes at the time that this is about
        connection.sendall(b"GET / HTTP/1.1\r\nx-slow: ")
        while not ended.wait(0.02):
            connection.sendall(b"a")


def test_a_head_in_pieces_is_served():
    """Within its time a head may come as it likes; what is over is the wait for it, not the connection."""
    with serving(Impatient) as address, socket.create_connection(address, timeout=10) as connection:
        for _ in range(3):
            connection.sendall(REQUEST[:10])
            connection.sendall(REQUEST[10:])
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


class Hurried(DrainProtocol):
    """The worker's protocol, which gives a client that reads nothing no more than a moment."""

    unread_seconds = 0.5


LARGE = 20_000_000


def test_an_answer_that_nobody_reads_is_given_up():
    """A client that reads nothing for a while loses its connection, which would hold the answer for ever."""
    with serving(Hurried, body=bytes(LARGE)) as address, socket.create_connection(address, timeout=10) as connection:
        connection.sendall(REQUEST)
        connection.recv(1)
        own = psutil.Process()
        until(lambda: all(each.laddr != address or not each.raddr for each in own.net_connections("tcp")))
        assert _read(connection) < LARGE - 1


def test_an_answer_that_is_read_slowly_is_sent_whole():
    """Whoever reads at all has as long as it takes, even beyond the time that a connection may be idle."""
    with serving(Hurried, body=bytes(LARGE)) as address, socket.create_connection(address, timeout=10) as connection:
        connection.sendall(REQUEST)
        assert _read(connection, pause=0.2) > LARGE


def _read(connection, pause=0.0):
    size = 0
    while piece := connection.recv(LARGE // 10, socket.MSG_WAITALL):
        size += len(piece)
        time.sleep(pause)
    return size


class Written:
    """A transport that remembers what it was given at once."""

    def __init__(self, transport):
        self.pieces = []
        self._transport = transport

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def write(self, data):
        self.pieces.append(data)
        self._transport.write(data)

    def writelines(self, pieces):
        self.pieces.append(b"".join(pieces))
        self._transport.writelines(pieces)


def test_an_answer_leaves_whole():
    """Head and body are one write: a worker that is killed has sent all of an answer or nothing of it."""
    written = []

    class Protocol(DrainProtocol):
        def connection_made(self, transport):
            written.append(Written(transport))
            super().connection_made(written[-1])

    expecting = REQUEST[:-2] + b"content-length: 1\r\nexpect: 100-continue\r\n\r\n"
    with serving(Protocol) as address, socket.create_connection(address, timeout=10) as connection:
        for _ in range(2):
            connection.sendall(REQUEST)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        connection.sendall(expecting)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"x")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    [[first, second, _, third]] = [each.pieces for each in written]
    for answer in (first, second, third):
        assert answer.endswith(b"\r\n\r\nok")


class Lost(Written):
    """A transport of uvloop's whose connection was lost a moment ago."""

    def is_closing(self):
        return True

    def write(self, data):
        raise RuntimeError("the handler is closed")

    writelines = write


def test_what_nobody_is_there_to_read_is_no_fault(caplog):
    """An answer to a lost connection goes nowhere. (uvicorn asks nobody, where requests were sent several at once.)"""
    answered = threading.Event()

    class Protocol(DrainProtocol):
        def connection_made(self, transport):
            super().connection_made(Lost(transport))

        def on_response_complete(self):
            super().on_response_complete()
            answered.set()

    with serving(Protocol) as address, socket.create_connection(address, timeout=10) as connection:
        connection.sendall(REQUEST)
        answered.wait(10)
    assert caplog.text == ""


def test_the_head_of_a_slow_answer_does_not_wait():
    """Whoever streams sends its head when it says so."""
    go_on = threading.Event()
    with serving(DrainProtocol, go_on=go_on) as address, socket.create_connection(address, timeout=10) as connection:
        connection.sendall(REQUEST)
        assert connection.recv(1000).endswith(b"\r\n\r\n")
        go_on.set()
        assert connection.recv(1000) == b"ok"


def test_a_connection_that_never_speaks_is_closed():
    """Silence is given the time that a kept connection has between two requests."""
    with serving(DrainProtocol) as address, socket.create_connection(address, timeout=10) as connection:
        assert connection.recv(1) == b""


def test_many_small_requests_on_one_connection_are_no_large_head(worker):
    """The limit is for one head, not for a connection."""
    with requests.Session() as session:
        for _ in range(10):
            assert session.post(worker.url, data=b"abc", headers={"x-long": "a" * 20_000}, timeout=10).json() == 3


def test_a_body_that_stalls_gives_its_place_back():
    """A client that sends half a body and then nothing is answered with 408 after a while."""

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass

    async def receive():
        if not sent:
            sent.append(1)
            return {"type": "http.request", "body": b"half", "more_body": True}
        return await asyncio.Event().wait()

    async def send(message):
        raise AssertionError("the refusal is the app's to send")

    sent = []
    scope = {"type": "http", "path": "/", "method": "POST", "headers": []}
    with pytest.raises(HTTPException) as refused:
        asyncio.run(Admission(app, places=Places(1), max_body=100, metrics=Metrics(), stall=0.05)(scope, receive, send))
    assert (refused.value.status_code, refused.value.detail) == (408, "no more of the body came for 0.05 s")
