"""A worker whose model server goes away and comes back."""

import threading

import pytest
import requests

from cortex.spec import SINGLE_MODEL
from tests.waiting import DEADLINE

PREDICTOR = """
class TensorFlowPredictor:
    def __init__(self, tensorflow_client, config):
        self.client = tensorflow_client

    def predict(self, payload):
        return self.client.predict(payload)
"""
SPEC = {"predictor": {"type": "tensorflow", "models": [{"path": "/models/one"}], "threads_per_process": 4}}
MODEL = {
    "versions": {"1": "AVAILABLE"},
    "signatures": {"predict": {"x": [1, [-1]]}},
}
CONFIG = {SINGLE_MODEL: MODEL}
POISON = {SINGLE_MODEL: {**MODEL, "signatures": {"predict": {"crash": [1, [-1]]}}}}


@pytest.fixture
def start(workers):
    def run(config):
        process, address = workers.start_model_server(config)
        return process, address, workers.start(PREDICTOR, SPEC, model_server=address).await_ready()

    return run


def ready(worker):
    return requests.get(worker.url + "/readyz", timeout=10)


def test_requests_wait_for_a_model_server_that_restarts(start, workers):
    """While the model server is away the worker is not ready, and requests wait; they are answered once it is back."""
    process, address, worker = start(CONFIG)
    assert ready(worker).status_code == 200
    process.kill()
    process.wait()
    answer = ready(worker)
    assert (answer.status_code, answer.text) == (503, "the model server does not answer, or serves no model")
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(requests.post(worker.url, json={"x": [1]}, timeout=30)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert ready(worker).status_code == 503
    workers.start_model_server(CONFIG, address)
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 4
    assert ready(worker).status_code == 200


def test_what_killed_the_model_server_is_not_sent_again(start, workers):
    """A request under way when the model server dies is a 500, and the model server that follows never sees it."""
    process, address, worker = start(POISON)
    answer = requests.post(worker.url, json={"crash": [1]}, timeout=30)
    assert (answer.status_code, answer.text) == (500, "internal server error")
    assert process.wait(timeout=DEADLINE) == 9
    assert "StatusCode.UNAVAILABLE" in worker.await_log(f"prediction failed [{answer.headers['x-request-id']}]")
    second, _ = workers.start_model_server(POISON, address)
    while ready(worker).status_code != 200:
        assert second.poll() is None
    assert second.poll() is None


def test_the_clients_own_errors(start):
    """What the client refuses is a 500 whose reason stands in the log."""
    _, _, worker = start(CONFIG)
    for payload, reason in (
        ({}, f"missing key 'x' for model '{SINGLE_MODEL}'"),
        ({"x": ["a"]}, 'key "x": expected shape [-1]: Expected float32'),
    ):
        answer = requests.post(worker.url, json=payload, timeout=10)
        assert answer.status_code == 500
        assert reason in worker.await_log(f"500 Internal Server Error POST / [{answer.headers['x-request-id']}]")
