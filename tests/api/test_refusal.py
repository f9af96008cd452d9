"""A worker all of whose places are taken: what the protocol refuses by itself, and what it leaves to the app."""

import contextlib
import http.client
import re
import socket
import threading

import pytest
import requests

from cortex.api.drain import DrainProtocol, DrainState
from cortex.api.metrics import Metrics
from cortex.api.refusal import Places, Refusal
from tests.api.test_limits import serving
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
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%b\r\n"
LIMIT = 1024 * 1024


@pytest.fixture(scope="module")
def worker(module_workers):
    spec = {"autoscaling": {"max_replica_concurrency": 1}, "networking": {"max_body_size": "1Mi"}}
    return module_workers.start(PREDICTOR, spec).await_ready()


@pytest.fixture
def full(worker, tmp_path):
    """The worker, whose only place is taken."""
    go, answers = tmp_path / "go", []
    holding = threading.Thread(target=lambda: answers.append(worker.post(b"abc", params={"until": go})))
    holding.start()
    until(lambda: "cortex_in_flight_requests 1.0" in requests.get(worker.url + "/metrics", timeout=10).text)
    yield worker
    go.touch()
    holding.join()
    assert answers[0].json() == 3


@pytest.fixture
def connect(full):
    """Open connections to the worker."""
    with contextlib.ExitStack() as open_ones:
        address = ("127.0.0.1", int(full.url.rsplit(":", 1)[1]))
        yield lambda: open_ones.enter_context(socket.create_connection(address, timeout=10))


def answer(connection):
    """Return the status, the headers and the body of the next answer."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, dict(response.headers), response.read()


def test_both_refuse_alike(full):
    """A request with an Origin is the app's; its answer has the same headers, and those for a browser."""
    by_protocol, by_app = full.post(b"x"), full.post(b"x", headers={"origin": "https://example.org"})
    for refused in (by_protocol, by_app):
        assert (refused.status_code, refused.text, refused.headers["retry-after"]) == (503, "Service Unavailable", "1")
        assert refused.headers["content-length"] == "19"
    assert by_app.headers["access-control-allow-origin"] == "https://example.org"
    assert "access-control-allow-origin" not in by_protocol.headers
    for_browsers = {name for name in by_app.headers if name.startswith("access-control-")} | {"vary"}
    assert set(by_protocol.headers) == set(by_app.headers) - for_browsers
    assert by_protocol.headers["date"][:-4] == by_app.headers["date"][:-4]


def test_it_is_counted_and_logged(full):
    """Under the id that the client gave, or one that it is told."""
    counted = re.compile(r'cortex_requests_total\{status="5XX"\} (\S+)')

    def refusals():
        found = counted.search(requests.get(full.url + "/metrics", timeout=10).text)
        return float(found[1]) if found else 0.0

    before = refusals()
    mine, other = full.post(b"", headers={"x-request-id": "mine-1"}), full.post(b"", headers={"x-request-id": "a b"})
    assert mine.headers["x-request-id"] == "mine-1"
    assert re.fullmatch("[0-9a-f]{32}", other.headers["x-request-id"])
    assert refusals() == before + 2
    for who in ("mine-1", other.headers["x-request-id"]):
        full.await_log(f"503 Service Unavailable POST / [{who}]\n")


@pytest.mark.parametrize("size", [0, 1, 300_000, LIMIT])
def test_the_connection_goes_on(full, connect, size):
    """Whatever the size of the body, and however many requests a client sends before it reads an answer."""
    connection = connect()
    for _ in range(3):
        connection.sendall(HEAD % (size, b"") + b"x" * size)
        assert answer(connection)[0] == 503
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer(connection)[::2] == (200, b"ok")
    heads = [HEAD % (2, b"x-request-id: %d\r\n" % number) + b"ab" for number in range(5)]
    connection.sendall(b"".join(heads))
    told = b""
    while told.count(b"Service Unavailable") < 10:  # the reason, and the body
        told += connection.recv(10_000)
    assert re.findall(rb"x-request-id: (\d)", told) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_body_that_is_still_to_come(full, connect):
    """The refusal does not wait for it; what comes of it later is dropped, and is no request."""
    connection, body = connect(), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    connection.sendall(HEAD % (len(body), b""))
    assert answer(connection)[0] == 503
    connection.sendall(body)
    connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer(connection)[::2] == (200, b"ready")


@pytest.mark.parametrize(
    ("request_", "status", "goes_on"),
    [
        (HEAD % (2, b"connection: close\r\n") + b"ab", 503, False),
        (b"POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\nab", 503, False),
        (HEAD % (2, b"expect: 100-continue\r\n"), 503, True),
        (b"POST /predict?a=b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", 503, True),
        (HEAD % (LIMIT + 1, b""), 413, True),
        (b"POST /%70redict HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", 503, True),
        (b"POST /elsewhere HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", 404, True),
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 200, True),
    ],
)
def test_what_the_app_answers(full, connect, request_, status, goes_on):
    """Everything out of the ordinary, and what is no prediction request."""
    connection = connect()
    connection.sendall(request_)
    found, headers, _ = answer(connection)
    assert found == status
    assert (headers.get("connection") != "close") is goes_on


class Impatient(DrainProtocol):
    """The worker's protocol, which waits for the rest of a refused body no longer than a moment."""

    rest_seconds = 0.3


def test_the_rest_of_a_body_has_a_time():
    """A client that keeps it back keeps no connection."""
    state = DrainState()
    state.refusal = Refusal(Places(limit=0), max_body=100, metrics=Metrics())
    with serving(Impatient, state) as address, socket.create_connection(address, timeout=10) as connection:
        connection.sendall(HEAD % (50, b"") + b"half")
        assert answer(connection)[0] == 503
        assert connection.recv(1) == b""
