"""Figures of tallies and summaries."""

import pytest

from cortex.loadtest import Latency, Summary, Tally


def test_merged_tallies_equal_one() -> None:
    """Percentiles, counts and errors of many tallies are those of one that saw everything."""
    whole, merged, parts = Tally(), Tally(), [Tally() for _ in range(4)]
    for i in range(1, 1001):
        for tally in (whole, parts[i % 4]):
            if i % 10:
                tally.success(i / 1000, inferences=3, now=100 + i / 1000)
            else:
                tally.failure("timeout" if i % 20 else "HTTP 503", now=100 + i / 1000)
    for part in parts:
        merged.add(part.packed())
    assert merged.summary(100) == whole.summary(100)
    assert merged.summary(100).as_dict() | {"latency": None} == {
        "seconds": pytest.approx(1.0),
        "requests": 900,
        "inferences": 2700,
        "latency": None,
        "errors": {"timeout": 50, "HTTP 503": 50},
        "interrupted": False,
        "failed": 100,
        "requests_per_second": pytest.approx(900),
        "inferences_per_second": pytest.approx(2700),
    }


def test_percentiles() -> None:
    """Latencies are exact to three digits."""
    tally = Tally()
    for milliseconds in range(1, 1001):
        tally.success(milliseconds / 1000, 1, now=1)
    latency = tally.summary(0).latency
    assert latency == Latency(
        mean=pytest.approx(0.5005, rel=1e-3),
        p50=pytest.approx(0.5, rel=1e-3),
        p90=pytest.approx(0.9, rel=1e-3),
        p99=pytest.approx(0.99, rel=1e-3),
        max=pytest.approx(1, rel=1e-3),
    )


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, 1e-6), (1e-9, 1e-6), (1e6, 3600.0)])
def test_extreme_latencies_are_counted(seconds: float, kept: float) -> None:
    """A latency outside the range of the histogram is counted at its edge, not dropped."""
    tally = Tally()
    tally.success(seconds, 1, now=1)
    summary = tally.summary(0)
    assert summary.requests == 1
    assert summary.latency is not None
    assert summary.latency.max == pytest.approx(kept, rel=1e-3)


def test_nothing_happened() -> None:
    """A load that never sent anything has no latency and no rate, and divides nothing by zero."""
    assert Tally().summary(50) == Summary(seconds=0, requests=0, inferences=0, latency=None)
    assert Tally().summary(50).inferences_per_second == 0


def test_errors_alone() -> None:
    """Failures are counted by kind, most frequent first, and have no latency."""
    tally = Tally()
    for kind in ("timeout", "HTTP 500", "HTTP 500"):
        tally.failure(kind, now=2)
    summary = tally.summary(0)
    assert (summary.failed, summary.latency, summary.requests_per_second) == (3, None, 0)
    assert list(summary.errors.items()) == [("HTTP 500", 2), ("timeout", 1)]
