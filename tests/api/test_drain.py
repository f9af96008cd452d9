"""SIGTERM under load: the worker answers what it has, sends its clients elsewhere, and nobody sees an error."""

import contextlib
import http.client
import signal
import socket
import threading
import time

import pytest
import requests

from tests.waiting import DEADLINE, until

PREDICTOR = """
import os
import pathlib
import time


class PythonPredictor:
    def __init__(self, config):
        pass

    def predict(self, query_params):
        if "started" in query_params:
            pathlib.Path(query_params["started"]).touch()
        time.sleep(float(query_params.get("sleep", 0)))
        return os.getpid()
"""
SPEC = {"predictor": {"threads_per_process": 8, "processes_per_replica": 2}}
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture
def pair(workers):
    """Two workers on one listening socket."""
    listener = workers.listen()
    started = [workers.start(PREDICTOR, SPEC, listener=listener) for _ in range(2)]
    return [worker.await_ready() for worker in started]


@pytest.fixture
def one(workers):
    return workers.start(PREDICTOR, SPEC).await_ready()


@pytest.fixture
def connect():
    """Open connections to a worker; they are closed with the test."""
    with contextlib.ExitStack() as stack:

        def run(worker):
            host, port = worker.url.removeprefix("http://").split(":")
            return stack.enter_context(socket.create_connection((host, int(port)), timeout=20))

        yield run


def test_it_says_that_it_takes_no_more(one, connect, tmp_path):
    """Its supervisor is told as soon as no new connection can come to it, with a request still under way."""
    under_way = connect(one)
    started = tmp_path / "started"
    under_way.sendall(REQUEST.replace(b"POST /", f"POST /?sleep=2&started={started}".encode()))
    until(started.exists)
    one.process.terminate()
    one.await_said(lambda lines: lines.get("STOPPING") == "1")
    late = connect(one)
    late.sendall(REQUEST)
    assert under_way.recv(4096).startswith(b"HTTP/1.1 200")
    late.settimeout(0.5)
    with pytest.raises(TimeoutError):
        late.recv(4096)


class Client(threading.Thread):
    """A keep-alive client without any retry of its own: every error is one that a user would see."""

    def __init__(self, url, pause=0.0):
        super().__init__(daemon=True)
        self.address = url.removeprefix("http://").split(":")
        self.pause = pause
        self.answers = []
        self.errors = []
        self.reconnects = 0
        self.stopping = threading.Event()

    def run(self):
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        while not self.stopping.wait(self.pause):
            try:
                if connection.sock is None:
                    connection.connect()
                    self.reconnects += 1
                connection.request("POST", "/")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    self.errors.append((answer.status, body))
                self.answers.append(int(body))
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(error)
                connection.close()
        connection.close()


def test_no_request_is_lost(pair, workers):
    """Keep-alive clients hammer while workers are replaced, one after the other, three times: zero errors."""
    clients = [Client(pair[0].url, pause) for pause in (0, 0, 0, 0, 0.001, 0.01, 0.05, 0.3)]
    for client in clients:
        client.start()
    running = list(pair)
    for _ in range(3):
        count = sum(len(client.answers) for client in clients)
        until(lambda count=count: sum(len(client.answers) for client in clients) > count + 200)
        ending = running.pop(0)
        ending.process.terminate()
        running.append(workers.start(PREDICTOR, SPEC, listener=workers.sockets[0]).await_ready())
        assert ending.process.wait(timeout=DEADLINE) == 0
    for client in clients:
        client.stopping.set()
    for client in clients:
        client.join()
    assert [error for client in clients for error in client.errors] == []
    assert len({pid for client in clients for pid in client.answers}) >= 3
    assert all(client.reconnects > 1 for client in clients)


def test_every_moment_of_the_drain(one, connect):
    """A kept connection that sends its request at any moment of the linger gets its answer, with Connection: close."""
    connections = [connect(one) for _ in range(25)]
    for connection in connections:
        _exchange(connection)
    one.process.terminate()
    started = time.monotonic()
    for index, connection in enumerate(connections):
        time.sleep(max(0, started + 0.04 * index - time.monotonic()))
        head, body = _exchange(connection)
        if index > 3:  # the first may come before the signal has arrived
            assert b"connection: close" in head.lower()
        assert int(body) == one.process.pid
    assert one.process.wait(timeout=DEADLINE) == 0


def test_a_request_under_way_is_answered(one, tmp_path):
    """What is being predicted when SIGTERM arrives is answered, although that takes longer than the linger."""
    answers = []

    def predict(number):
        answers.append(one.post(b"", params={"sleep": 2.5, "started": tmp_path / f"started-{number}"}))

    threads = [threading.Thread(target=predict, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(list(tmp_path.glob("started-*"))) == 8)
    one.process.terminate()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 8
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    assert one.process.wait(timeout=DEADLINE) == 0


def test_a_connection_without_a_request_is_served_too(one, connect):
    """A connection that was accepted and has not said anything yet is not dropped in its client's face."""
    first, *silent = [connect(one) for _ in range(20)]
    requests.get(one.url + "/healthz", timeout=10)  # it is accepted after them, so they are by now
    one.process.terminate()
    until(lambda: b"connection: close" in _exchange(first)[0].lower())
    for connection in silent:
        head, body = _exchange(connection)
        assert b"connection: close" in head.lower()
        assert int(body) == one.process.pid
    assert one.process.wait(timeout=DEADLINE) == 0


def test_half_a_request_does_not_hold_the_worker(one, connect):
    """A client that stalls in the middle of a request's head is waited for no longer than a silent one."""
    stalled, late, silent, kept = (connect(one) for _ in range(4))
    stalled.sendall(b"POST / HT")
    _exchange(kept)
    one.process.terminate()
    until(lambda: b"connection: close" in _exchange(kept)[0].lower())
    late.sendall(b"POST / HT")
    assert one.process.wait(timeout=DEADLINE) == 0
    assert [connection.recv(1) for connection in (stalled, late, silent)] == [b"", b"", b""]


def test_an_offer_of_http_2_is_not_taken(one, connect):
    """Java's client makes one with its first request; its body is taken for a body, and the next request is one."""
    connection = connect(one)
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAA\r\n"
    body = b'{"not": "read"}'
    head, _ = _exchange(
        connection,
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s"
        % (offer, len(body), body),
    )
    assert head.startswith(b"HTTP/1.1 200")
    assert _exchange(connection)[0].startswith(b"HTTP/1.1 200")


def test_the_socket_stays_open_for_others(pair):
    """A worker that ends does not shut the listening socket that it shares."""
    pair[0].process.terminate()
    assert pair[0].process.wait(timeout=DEADLINE) == 0
    for _ in range(20):
        assert requests.post(pair[1].url, timeout=10).json() == pair[1].process.pid


def test_draining_is_not_ready(one, connect):
    """/readyz says so over a connection that is still open; nothing new is accepted."""
    kept = connect(one)
    _exchange(kept)
    one.process.terminate()
    answers = []

    def refused():
        answers.append(_exchange(kept, b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n"))
        return answers[-1][1] == b"draining"

    until(refused)
    assert answers[-1][0].startswith(b"HTTP/1.1 503")
    assert one.process.wait(timeout=DEADLINE) == 0


THREADS = """
import atexit
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor


class PythonPredictor:
    def __init__(self, config):
        atexit.register(print, "all has ended")
        THREAD

    def predict(self):
        forking = multiprocessing.get_context("fork")
        runs = forking.Event()
        process = forking.Process(target=lambda: (runs.set(), time.sleep(600)))
        process.start()
        runs.wait()
        process.terminate()
        process.join(10)
        return process.exitcode
"""


def test_a_thread_of_the_predictor_does_not_hold_the_worker(workers):
    """One that goes on for ever ends with the worker some seconds after the drain, and is named in the log."""
    thread = 'threading.Thread(target=time.sleep, args=(600,), name="for ever").start()'
    worker = workers.start(THREADS.replace("THREAD", thread)).await_ready()
    worker.process.terminate()
    assert worker.process.wait(timeout=DEADLINE) == 0
    assert "WARNING:ended without threads that went on for 5 s: for ever\n" in worker.log


def test_a_process_of_the_predictor_does_not_hold_the_worker(workers):
    """One that goes on for ever is killed some seconds after the drain; all else has its usual end."""
    thread = 'multiprocessing.Process(target=time.sleep, args=(600,), name="for ever").start()'
    worker = workers.start(THREADS.replace("THREAD", thread)).await_ready()
    worker.process.terminate()
    assert worker.process.wait(timeout=DEADLINE) == 0
    assert "WARNING:killed a process that went on for 5 s: for ever\n" in worker.log
    assert "all has ended" in worker.log


def test_a_process_that_a_prediction_forks_can_be_ended(workers):
    """It does not take SIGTERM for the end of its worker."""
    worker = workers.start(THREADS.replace("THREAD", "")).await_ready()
    assert worker.post().json() == -signal.SIGTERM


@pytest.mark.parametrize(
    "thread",
    [
        "self.pool = ThreadPoolExecutor(); self.pool.submit(int).result()",
        "threading.Thread(target=lambda: (threading.main_thread().join(), time.sleep(0.5))).start()",
        "atexit.register(time.sleep, 6)",
    ],
)
def test_an_end_that_comes_by_itself_is_waited_for(workers, thread):
    """Threads that end in time, and whatever is registered for the end of the process, however long that takes."""
    worker = workers.start(THREADS.replace("THREAD", thread)).await_ready()
    worker.process.terminate()
    assert worker.process.wait(timeout=DEADLINE) == 0
    assert "all has ended" in worker.log
    assert "WARNING" not in worker.log


def test_ctrl_c_drains_too(one):
    """SIGINT is a drain as well, for workers that are run by hand."""
    one.process.send_signal(2)
    assert one.process.wait(timeout=DEADLINE) == 0


def test_killed_while_idle_costs_nothing(pair):
    """kill -9 of a worker loses no more than its own connections: the other one answers the next request."""
    pair[0].process.kill()
    pair[0].process.wait()
    for _ in range(20):
        assert requests.post(pair[1].url, timeout=10).json() == pair[1].process.pid


def _exchange(connection, request=REQUEST):
    connection.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connection, received)
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    while len(body) < length:
        body += _some(connection, received)
    return head, body


def _some(connection, before):
    data = connection.recv(65536)
    assert data, f"closed in the middle of an answer, after {before!r}"
    return data
