"""What a worker counts, alone and together with others."""

import contextlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import requests

from cortex.environments.local.metrics import network_stats
from tests.waiting import DEADLINE, until

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
    """With PROMETHEUS_MULTIPROC_DIR any worker answers for all of them, also for one that has ended.

    `cortex get` reads the same files. Nothing in the directory's name stands for other names.
    """
    shared = tmp_path / "m[e]trics *é"
    shared.mkdir()
    env = {"PROMETHEUS_MULTIPROC_DIR": str(shared)}
    first, second = (workers.start(PREDICTOR, env=env) for _ in range(2))
    send(first.await_ready(), 1, 2)
    send(second.await_ready(), 4)
    assert scrape(first) == scrape(second)
    first.process.terminate()
    assert first.process.wait(timeout=DEADLINE) == 0
    assert scrape(second)['cortex_requests_total{status="2XX"}'] == 3
    send(second, 0)
    until(lambda: network_stats(shared).code_5xx == 1)  # an answer is counted once it has left
    told = network_stats(shared)
    assert (told.code_2xx, told.code_4xx) == (3, 0)
    assert told.latency_ms > 0


def test_a_worker_that_is_started_again_goes_on_with_the_files(workers, tmp_path):
    """Their room is taken once, however often one is killed, and nothing that was counted is lost."""
    for _ in range(3):
        worker = workers.start(PREDICTOR, env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}).await_ready()
        send(worker, 1)
        assert scrape(worker)["cortex_in_flight_requests"] == 0
        worker.process.kill()
        worker.process.wait()
    assert len(list(tmp_path.glob("*.db"))) == 3
    assert network_stats(tmp_path).code_2xx == 3


def test_files_are_read_while_others_take_them_over_or_away(workers, tmp_path):
    """Whoever reads at that moment reads again."""
    shared = tmp_path / "shared"
    worker = workers.start(PREDICTOR, env={"PROMETHEUS_MULTIPROC_DIR": str(shared)}).await_ready()
    send(worker, 1)
    scrape(worker)  # which comes after the count of what was answered before
    worker.process.kill()
    names = [*shared.glob("counter_*.db"), shared / "counter_0.db"]
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: [network_stats(shared).code_2xx for _ in range(200)])
        while not reading.done():
            names[0].rename(names[1])
            names.reverse()
    assert set(reading.result()) == {1}


def test_what_is_under_way(workers, tmp_path):
    """Requests in flight are counted over all workers; those of a worker that was killed are not under way any more."""
    shared = tmp_path / "m[e]trics"
    shared.mkdir()
    slow = PREDICTOR.replace("return 1 / payload", "__import__('time').sleep(payload); return 1")
    env = {"PROMETHEUS_MULTIPROC_DIR": str(shared)}
    first, second = (workers.start(slow, env=env).await_ready() for _ in range(2))
    asking = [threading.Thread(target=quietly, args=(worker, 60)) for worker in (first, second)]
    for each in asking:
        each.start()
    await_in_flight(second, 2)
    first.process.kill()
    first.process.wait()
    await_in_flight(second, 1)
    second.process.kill()
    for each in asking:
        each.join()


def test_a_directory_that_cannot_be_used_stops_nobody(workers, tmp_path):
    """The worker serves and counts for itself, with a warning."""
    (tmp_path / "file").touch()
    worker = workers.start(PREDICTOR, env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "file")}).await_ready()
    send(worker, 1)
    assert scrape(worker)['cortex_requests_total{status="2XX"}'] == 1
    assert "PROMETHEUS_MULTIPROC_DIR cannot be used, so nothing is counted for other processes" in worker.log


def test_room_for_what_is_counted_is_taken_at_the_start(workers, tmp_path):
    """A disk that fills up later takes nothing away: its blocks are there before the first request."""
    workers.start(PREDICTOR, env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}).await_ready()
    files = list(tmp_path.glob("*.db"))
    assert {file.stem.rpartition("_")[0] for file in files} == {"counter", "histogram", "gauge_livesum"}
    assert all(file.stat().st_blocks * 512 >= file.stat().st_size > 2**20 for file in files)


def quietly(worker, payload):
    with contextlib.suppress(requests.RequestException):
        send(worker, payload)


def await_in_flight(worker, count):
    until(lambda: scrape(worker)["cortex_in_flight_requests"] == count)
