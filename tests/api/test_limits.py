"""Too many requests and too large bodies are refused at once, with an answer that arrives."""

import http.client
import socket
import threading

import pytest
import requests

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


def test_overload_is_refused_at_once(worker, tmp_path, until):
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


def test_a_client_that_leaves_frees_its_place(worker, until):
    """A connection that breaks in the middle of its body is forgotten."""
    host, port = worker.url.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
    until(lambda: worker.post(b"").status_code == 200)
