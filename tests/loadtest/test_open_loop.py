"""Open loops, with real processes against a real server: what is late is seen to be late."""

from typing import Any

import pytest

from cortex.loadtest import HTTP, OpenLoop, Payload, run
from cortex.loadtest.schedules import steady

PAYLOAD = Payload(b"{}", "application/json")


def test_a_freeze_shows(endpoint: str, seen: Any) -> None:
    """A server that stands still is seen in the latency from the scheduled time; the other hides it.

    The issue's 2 s of 20 s, five times faster: with two connections only two requests are under way while it stands
    still, and the other forty that were due are sent late.
    """
    result = run(OpenLoop(steady(100, 4), threads=2), HTTP(endpoint + "/freeze"), PAYLOAD)
    freeze = seen.freeze[1] - seen.freeze[0]
    assert (result.requests, result.failed) == (400, 0)
    assert result.latency
    assert result.uncorrected
    assert result.latency.p99 > 0.6 * freeze
    assert result.uncorrected.p99 < 0.3 * freeze
    assert result.latency.max >= 0.8 * freeze
    assert result.uncorrected.max >= 0.5 * freeze  # the two that were under way
    assert result.client
    assert result.client.late >= 20
    assert result.client.worst_lateness > 0.5 * freeze
    assert result.client.warning


def test_rate_is_kept(endpoint: str, seen: Any) -> None:
    """All requests of a schedule are sent by all processes together, whatever each of them does."""
    result = run(OpenLoop(steady(50, 1), workers=2, threads=4), HTTP(endpoint), PAYLOAD, warmup=0.2)
    assert (result.requests, len(seen.requests)) == (50, 60)
    assert result.open_loop


def test_what_could_not_be_sent(endpoint: str, seen: Any) -> None:
    """A server that never keeps up does not hold the tester for ever: what was not sent is told as such."""
    load = OpenLoop(steady(100, 0.5), threads=1, patience=0.2)
    result = run(load, HTTP(endpoint + "/slow"), PAYLOAD)
    left = result.errors["never sent: every connection was busy"]
    assert left > 0
    assert result.requests + left == 50
    assert len(seen.requests) == result.requests


def test_few_requests(endpoint: str) -> None:
    """The first request waits for no answer: where it is late, on a busy machine, no connection is to blame."""
    client = run(OpenLoop(steady(10, 0.5), threads=128), HTTP(endpoint), PAYLOAD).client
    assert client is not None
    assert "waited for answers" not in (client.warning or "")


def test_a_low_rate(endpoint: str) -> None:
    """No more is answered than is due: the time after the last request counts as that before it."""
    result = run(OpenLoop(steady(2, 2), threads=1), HTTP(endpoint), PAYLOAD)
    assert (result.requests, result.seconds) == (4, pytest.approx(2.0, abs=0.1))
    assert sum(window.seconds for window in result.windows) == pytest.approx(result.seconds)
    assert result.requests_per_second <= 2
