"""Whole loads, with real processes against a real server."""

import time
from typing import Any

import psutil
import pytest

from cortex.loadtest import HTTP, ClosedLoop, Payload, Summary, run

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
    progress: list[Summary] = []
    summary = run(ClosedLoop(samples=1, seconds=0.6), HTTP(endpoint + "/slow"), PAYLOAD, progress.append)
    assert summary.requests == len(seen.requests) > 5
    assert summary.seconds >= 0.5
    assert summary.requests_per_second == pytest.approx(summary.requests / summary.seconds)
    assert progress
    assert [each.requests for each in progress] == sorted(each.requests for each in progress)
    assert progress[-1].requests <= summary.requests


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


@pytest.mark.parametrize("path", ["/slow", "/hang"])
def test_interrupt(endpoint: str, path: str) -> None:
    """KeyboardInterrupt ends a load early, even one that hangs, and the summary tells what was answered until then."""

    def interrupt(summary: Summary) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    summary = run(ClosedLoop(threads=2, seconds=60), HTTP(endpoint + path), PAYLOAD, interrupt)
    assert summary.interrupted
    assert bool(summary.requests) == (path == "/slow")
    assert time.monotonic() - started < 30  # a bound for a hang, not a measurement


def test_a_process_that_dies(endpoint: str) -> None:
    """When a process of the tester is killed, the load ends and says so."""

    def kill(summary: Summary) -> None:
        for child in psutil.Process().children():
            if "cortex.loadtest.worker" in " ".join(child.cmdline()):
                child.kill()

    summary = run(ClosedLoop(seconds=60), HTTP(endpoint + "/slow"), PAYLOAD, kill)
    assert summary.errors == {"a process of the tester ended early": 1}
    assert summary.requests > 0
