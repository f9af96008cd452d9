"""Whole loads, with real processes against a real server."""

import io
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from rich.console import Console

from cortex.loadtest import HTTP, ClosedLoop, OpenLoop, Payload, Progress, pages, report, run, server_metrics
from cortex.loadtest.expect import Expected
from cortex.loadtest.findings import Report
from cortex.loadtest.results import Result, Server, Stage
from cortex.loadtest.schedules import steady as constant
from cortex.loadtest.server import ServerWatch
from cortex.loadtest.worker import Work, Worker
from tests.processes import children

PAYLOAD = Payload(b"{}", "application/json", inferences=4)


def test_samples(endpoint: str, seen: Any) -> None:
    """Each thread of each process sends its samples over one connection; no request is counted that was not sent."""
    summary = run(ClosedLoop(workers=2, threads=3, samples=5), HTTP(endpoint), PAYLOAD)
    assert (summary.requests, summary.inferences, summary.failed) == (30, 120, 0)
    assert (len(seen.requests), seen.connections) == (30, 6)
    assert summary.latency is not None
    assert 0 < summary.latency.p50 <= summary.latency.p99 <= summary.latency.max


def test_seconds(endpoint: str, seen: Any) -> None:
    """With a time instead, samples are not considered, and every answer is counted."""
    progress: list[Progress] = []
    summary = run(ClosedLoop(samples=1, seconds=0.6), HTTP(endpoint + "/slow"), PAYLOAD, progress.append)
    assert summary.requests == len(seen.requests) > 5
    assert summary.seconds >= 0.5
    assert summary.requests_per_second == pytest.approx(summary.requests / summary.seconds)
    assert progress
    assert [each.done for each in progress] == sorted(each.done for each in progress)
    assert 0 < progress[-1].done <= summary.requests
    assert {(each.stage, each.total) for each in progress} == {("measuring", None)}
    assert max(each.in_flight for each in progress) == 1


def test_errors_are_no_inferences(endpoint: str) -> None:
    """Half of the answers are 503: they are counted apart, and make neither throughput nor latency."""
    summary = run(ClosedLoop(samples=10), HTTP(endpoint + "/every_other"), PAYLOAD)
    assert (summary.requests, summary.inferences) == (5, 20)
    assert summary.errors == {"HTTP 503 Service Unavailable": 5}


def test_nobody_listens(closed_endpoint: str) -> None:
    """A server that is down is asked at a walking pace, and gives no figures but errors."""
    summary = run(ClosedLoop(seconds=0.5), HTTP(closed_endpoint), PAYLOAD)
    assert (summary.requests, summary.inferences, summary.latency) == (0, 0, None)
    assert 1 <= summary.errors["connection refused"] <= 11


@pytest.mark.parametrize("closed", [True, False])
def test_a_moment(endpoint: str, closed_endpoint: str, closed: bool) -> None:
    """In a run of a few milliseconds a process is always busy, which is no bottleneck."""
    client = run(ClosedLoop(samples=1), HTTP(closed_endpoint if closed else endpoint), PAYLOAD).client
    assert client is not None
    assert client.warning is None


@pytest.mark.parametrize("path", ["/slow", "/hang"])
def test_interrupt(endpoint: str, path: str) -> None:
    """KeyboardInterrupt ends a load early, even one that hangs, and the summary tells what was answered until then."""

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    summary = run(ClosedLoop(threads=2, seconds=60), HTTP(endpoint + path), PAYLOAD, interrupt)
    assert summary.interrupted
    assert bool(summary.requests) == (path == "/slow")
    assert time.monotonic() - started < 30  # a bound for a hang, not a measurement


@pytest.mark.parametrize("load", [ClosedLoop(threads=2, seconds=60), OpenLoop(constant(100, 60), threads=2)])
def test_interrupting_a_server_that_hangs(endpoint: str, load: Any) -> None:
    """The time without answers counts, and the requests that were due in it are told: no server is fast for hanging."""
    began: list[float] = []

    def interrupt(progress: Progress) -> None:
        began.append(time.monotonic())
        if began[-1] - began[0] > 1.5:
            raise KeyboardInterrupt

    result = run(load, HTTP(endpoint + "/ten"), PAYLOAD, interrupt)
    assert (result.interrupted, result.requests, result.failed) == (True, 10, 0)
    assert 1.5 < result.seconds < 30
    assert sum(window.seconds for window in result.windows) == pytest.approx(result.seconds)
    if load.open_loop:
        assert result.unanswered == pytest.approx(100 * result.seconds - 10, abs=50)  # half a second of a busy machine
    else:
        assert result.unanswered == 2
    assert result.client is not None
    assert result.client.busiest < 0.9


def test_a_process_that_dies(endpoint: str) -> None:
    """When a process of the tester is killed, the load ends and says so."""

    def kill(progress: Progress) -> None:
        for child in children("cortex.loadtest.worker"):
            child.kill()

    summary = run(ClosedLoop(seconds=60), HTTP(endpoint + "/slow"), PAYLOAD, kill)
    assert summary.errors == {"a process of the tester ended early": 1}
    assert summary.requests > 0


def test_a_process_that_can_start_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with one line for its user."""
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
    work = Work(ClosedLoop(), HTTP("http://127.0.0.1:1"), (PAYLOAD,))
    with pytest.raises(SystemExit, match=r"^error: can't start new thread: .* use fewer threads or processes$"):
        Worker(work, 0, Mock(), begin=0.0).run()


def test_a_process_that_dies_after_an_interruption(endpoint: str) -> None:
    """What was counted until then is reported all the same."""

    def interrupt(progress: Progress) -> None:
        if progress.done:
            [child] = children("cortex.loadtest.worker")
            child.suspend()  # so that it has not read that it is to stop
            threading.Timer(0.3, child.kill).start()
            raise KeyboardInterrupt

    summary = run(ClosedLoop(seconds=60), HTTP(endpoint + "/slow"), PAYLOAD, interrupt)
    assert (summary.interrupted, summary.errors) == (True, {"a process of the tester ended early": 1})
    assert summary.requests > 0


def test_a_process_that_dies_in_the_warm_up(endpoint: str) -> None:
    """It is missing from the whole measurement, and the errors say so."""

    killed: list[psutil.Process] = []

    def kill_one(progress: Progress) -> None:
        if not killed:
            killed.append(children("cortex.loadtest.worker")[0])
            killed[0].kill()

    summary = run(ClosedLoop(workers=2, samples=5), HTTP(endpoint + "/slow"), PAYLOAD, kill_one, warmup=1.0)
    assert summary.errors == {"a process of the tester ended early": 1}
    assert summary.requests == 5


def test_warm_up_is_not_counted(endpoint: str, seen: Any) -> None:
    """What is due before the warm-up ends reaches the server, is shown while it goes, and is in no figure."""
    stages: list[Progress] = []
    result = run(ClosedLoop(samples=5), HTTP(endpoint + "/slow"), PAYLOAD, stages.append, warmup=0.6)
    assert (result.requests, result.warmup_seconds, result.steady and result.steady.reached) == (5, 0.6, False)
    assert sum(window.requests for window in result.windows) == 5
    assert len(seen.requests) > 10
    warm = [each for each in stages if each.stage == "warm-up"]
    assert warm
    assert warm[-1].rate > 0


def test_rate_across_the_end_of_the_warm_up(endpoint: str) -> None:
    """The rate that is shown while it runs is that of the last second, also just after the warm-up."""
    stages: list[Progress] = []
    load = OpenLoop(constant(100, 0.8), threads=4)
    run(load, HTTP(endpoint), PAYLOAD, stages.append, warmup=0.6)
    shown = [each for each in stages if each.stage == "measuring"]
    assert shown
    assert max(each.rate for each in shown) <= 140
    assert all(each.inference_rate == 4 * each.rate for each in shown)


def test_think_time(endpoint: str, seen: Any) -> None:
    """With a think time a client sends no request sooner than that after the last answer."""
    result = run(ClosedLoop(samples=4, think_time=0.1), HTTP(endpoint), PAYLOAD)
    assert result.requests == 4
    assert result.seconds >= 0.3


@pytest.mark.parametrize(("path", "kind"), [("/hang", "timeout"), ("/wrong", "wrong answer")])
def test_bad_servers(endpoint: str, path: str, kind: str) -> None:
    """A server that hangs or answers wrongly is counted under that name, and infers nothing."""
    payload = replace(PAYLOAD, expected=Expected(["tench"]))
    result = run(ClosedLoop(samples=2), HTTP(endpoint + path, timeout=0.2), payload)
    assert (result.requests, result.inferences, result.latency, result.errors) == (0, 0, None, {kind: 2})


def test_right_answers(endpoint: str) -> None:
    """The answer that was expected counts, and its bytes are counted too."""
    result = run(ClosedLoop(samples=3), HTTP(endpoint), replace(PAYLOAD, expected=Expected(["tench"])))
    assert (result.requests, result.sent_bytes, result.received_bytes) == (3, 6, 3 * len('["tench"]'))


def test_payloads_in_turn(endpoint: str, seen: Any) -> None:
    """Several payloads are sent one after the other, again and again; shuffled, in another order."""
    payloads = [Payload(b"%d" % i, "text/plain") for i in range(3)]
    run(ClosedLoop(samples=6), HTTP(endpoint), payloads)
    assert b"".join(body for _, _, body in seen.requests) == b"012012"
    run(ClosedLoop(samples=30), HTTP(endpoint), payloads, shuffle=True)
    mixed = b"".join(body for _, _, body in seen.requests)[6:]
    assert set(mixed) == set(b"012")
    assert mixed != b"012" * 10


def test_server_side(endpoint: str) -> None:
    """The stages come from the metrics page, between before and after; a test's own process is no server.

    A stage whose time or count is no finite number is left out.
    """
    run(ClosedLoop(samples=3), HTTP(endpoint), PAYLOAD)
    door = HTTP(endpoint)
    result = run(ClosedLoop(samples=5), door, PAYLOAD, watch=ServerWatch([f"{endpoint}/metrics"], door.address))
    assert result.server is not None
    assert [(each.name, each.count, pytest.approx(each.mean)) for each in result.server.stages] == [
        ("decode", 5, 0.001),
        ("execute", 5, 0.01),
    ]
    assert result.server.processes is None


def test_a_page_of_two_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API's page has the stages of its model server, too: equal names are not added up, and each says of which."""
    counts = iter((1, 3))

    def page(*_: object) -> bytes:
        count = next(counts)
        lines = [
            f'{metric}_stage_seconds_{kind}{{stage="decode"}} {value * count}'
            for metric, seconds in (("api", 0.5), ("model", 0.25))
            for kind, value in (("count", 1), ("sum", seconds))
        ]
        types = "# TYPE api_stage_seconds histogram\n# TYPE model_stage_seconds histogram\n"
        return (types + "\n".join(lines) + "\n").encode()

    monkeypatch.setattr(pages, "read", page)
    url = "http://localhost:1/metrics"
    found = server_metrics.stages(server_metrics.read(url), server_metrics.read(url), url)
    assert found == [
        Stage("decode", 0.5, 2, f"{url}#api_stage_seconds"),
        Stage("decode", 0.25, 2, f"{url}#model_stage_seconds"),
    ]
    table = io.StringIO()
    Console(file=table, width=80).print(report.table(Report(Result(1.0, 2, 2, None, server=Server(tuple(found))))))
    assert re.findall(r"server decode (.*?)\s\s+(\S+ \S+)", table.getvalue()) == [
        ("of api", "500 ms"),
        ("of model", "250 ms"),
    ]


def test_credentials_for_a_page(endpoint: str, seen: Any) -> None:
    """A page of the same server is asked for with the headers and the credentials of the load, and no other is."""
    door = HTTP(endpoint.replace("://", "://me:secret@"), headers=(("X-Who", "me"),))
    for host in ("127.0.0.1", "localhost"):
        pages.read(f"{endpoint.replace('127.0.0.1', host)}/metrics", door, 5)
    basic = door.fields["authorization"]
    assert [(each["Authorization"], each["X-Who"]) for each in seen.pages] == [(basic, "me"), (None, None)]


def test_a_page_that_does_not_end(endpoint: str) -> None:
    """A metrics page that comes a byte at a time is given up in time, however steadily it comes."""
    with pytest.raises(OSError, match="timeout"):
        pages.read(endpoint + "/drip/metrics", None, 0.5)


def test_server_processes(endpoint: str) -> None:
    """Of a server on this machine, processor and memory of the processes that listen are told."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout
            port = int(server.stdout.readline().split("port ")[1].split()[0])
            watch = ServerWatch([], ("127.0.0.1", port))
            watch.begin()
            seen = watch.end()  # without a look, as in a run of a moment
        finally:
            server.kill()
    assert seen is not None
    assert (seen.processes, seen.stages) == (1, ())
    assert seen.memory
    assert seen.memory > 1_000_000
    assert seen.cpu_cores is not None


def test_closed_loop_client(endpoint: str) -> None:
    """The tester tells of itself, and has nothing to be late for in a closed loop."""
    client = run(ClosedLoop(workers=2, samples=5), HTTP(endpoint + "/slow"), PAYLOAD).client
    assert client is not None
    assert (client.processes, client.threads, client.late, client.warning) == (2, 1, 0, None)
    assert client.cpu_per_request == pytest.approx(client.cpu_seconds / 10)
    assert 0 < client.busiest < 1
