"""What a worker counts, alone and together with others."""

import re

import requests

PREDICTOR = """
class PythonPredictor:
    def __init__(self, config):
        pass

    def predict(self, payload):
        return 1 / payload
"""


def scrape(worker):
    text = requests.get(worker.url + "/metrics", timeout=10).text
    return {name: float(value) for name, value in re.findall(r"^(cortex_\S+) ([0-9.e+-]+)$", text, re.MULTILINE)}


def send(worker, *payloads):
    for payload in payloads:
        requests.post(worker.url, json=payload, timeout=10)


def test_one_worker(workers):
    """Predictions are counted by status class; summaries, probes and other paths are not."""
    worker = workers.start(PREDICTOR).await_ready()
    send(worker, 1, 2, 0)
    requests.post(worker.url, data=b"{", headers={"content-type": "application/json"}, timeout=10)
    requests.get(worker.url, timeout=10)
    requests.post(worker.url + "/nowhere", timeout=10)
    found = scrape(worker)
    assert found['cortex_requests_total{status="2XX"}'] == 2
    assert found['cortex_requests_total{status="4XX"}'] == 1
    assert found['cortex_requests_total{status="5XX"}'] == 1
    assert found["cortex_request_duration_seconds_count"] == 4
    assert found["cortex_request_duration_seconds_sum"] > 0


def test_workers_that_share_a_directory(workers, tmp_path):
    """With PROMETHEUS_MULTIPROC_DIR any worker answers for all of them, also for one that has ended."""
    shared = tmp_path / "metrics"
    shared.mkdir()
    env = {"PROMETHEUS_MULTIPROC_DIR": str(shared)}
    first, second = (workers.start(PREDICTOR, env=env) for _ in range(2))
    send(first.await_ready(), 1, 2)
    send(second.await_ready(), 4)
    assert scrape(first) == scrape(second)
    first.process.terminate()
    assert first.process.wait(timeout=20) == 0
    assert scrape(second)['cortex_requests_total{status="2XX"}'] == 3
