"""Where a worker's time goes, by its own account."""

import re
import time

import pytest
import requests

from cortex.loadtest import HTTP, ClosedLoop, Payload, run
from cortex.loadtest.server import ServerWatch
from cortex.spec import SINGLE_MODEL

SLEEPER = """
import time

class PythonPredictor:
    def __init__(self, config):
        pass

    def predict(self, payload):
        time.sleep(payload)
        return 1 / payload
"""
CALLER = """
class TensorFlowPredictor:
    def __init__(self, tensorflow_client, config):
        self.client = tensorflow_client
        self.client.predict({"x": [1]})

    def predict(self, payload):
        return [self.client.predict(payload), self.client.predict(payload)] if payload else []

    def post_predict(self):
        self.client.predict({"x": [1]})
"""
MODEL = {"versions": {"1": "AVAILABLE"}, "signatures": {"predict": {"x": [1, [-1]]}}}


@pytest.fixture
def caller(workers):
    """A worker of one thread that calls its model, in and outside of predictions."""
    _, address = workers.start_model_server({SINGLE_MODEL: MODEL})
    predictor = {"type": "tensorflow", "models": [{"path": "/models/one"}], "threads_per_process": 1}
    return workers.start(CALLER, {"predictor": predictor}, model_server=address).await_ready()


def stages(worker):
    """Return seconds and requests of each stage so far."""
    text = requests.get(worker.url + "/metrics", timeout=10).text
    found = re.findall(r'^cortex_request_stage_seconds_(sum|count){stage="(\w+)"} (\S+)$', text, re.MULTILINE)
    return {kind: {stage: float(value) for each, stage, value in found if each == kind} for kind in ("sum", "count")}


def test_each_time_is_in_one_stage(workers):
    """User code is ``predict``, also when it fails; what waits for its thread meanwhile is ``queue``."""
    worker = workers.start(SLEEPER).await_ready()
    started = time.monotonic()
    for seconds in (0.2, 0.1):
        assert requests.post(worker.url, json=seconds, timeout=10).status_code == 200
    requests.post(worker.url, json=0, timeout=10)
    took = time.monotonic() - started
    found = stages(worker)
    assert found["count"] == {"decode": 3, "queue": 3, "predict": 3, "encode": 2}
    assert found["sum"]["predict"] >= 0.3
    assert sum(found["sum"].values()) <= took


def test_calls_of_the_model(caller):
    """All model calls of one prediction are one time in ``model``, and in no other; other calls are no request's."""
    for payload in ({"x": [1]}, {"x": [2]}, None):
        assert requests.post(caller.url, json=payload, timeout=10).status_code == 200
    assert stages(caller)["count"] == {"decode": 3, "queue": 3, "predict": 3, "model": 2, "encode": 3}


def test_the_tester_reads_them(caller):
    """The load tester's split of the server's time needs nothing but the API, and adds up to less than the latency."""
    door = HTTP(caller.url)
    watch = ServerWatch([f"{caller.url}/metrics"], door.address, door)
    result = run(ClosedLoop(samples=5), door, Payload(b'{"x": [1]}', "application/json"), watch=watch)
    assert result.server
    assert result.latency
    assert [(each.name, each.count) for each in result.server.stages] == [
        (name, 5) for name in ("decode", "queue", "predict", "model", "encode")
    ]
    assert sum(each.mean for each in result.server.stages) <= result.latency.mean
