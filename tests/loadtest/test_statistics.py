"""Figures of tallies, journals and latencies."""

import gc
import tracemalloc

import pytest

from cortex.loadtest.latency import latency
from cortex.loadtest.statistics import Journal, Tally
from tests.loadtest.latencies import of


def test_merged_tallies_equal_one() -> None:
    """Percentiles, counts and errors of many tallies are those of one that saw everything."""
    whole, merged, parts = Tally(), Tally(), [Tally() for _ in range(4)]
    for i in range(1, 1001):
        for tally in (whole, parts[i % 4]):
            if i % 10:
                tally.success(i / 1000, inferences=3)
            else:
                tally.failure("timeout" if i % 20 else "HTTP 503")
    for part in parts:
        merged.unpack(part.packed())
    assert merged.window(0, 1) == whole.window(0, 1)
    assert (merged.requests, merged.inferences, merged.failed) == (900, 2700, 100)
    assert merged.errors == {"timeout": 50, "HTTP 503": 50}


def test_percentiles() -> None:
    """Latencies are exact to three digits, from the median to the tail."""
    found = of(*(i / 1000 for i in range(1, 10001)))
    expected = {
        "mean": 5.0,
        "min": 0.001,
        "p50": 5,
        "p75": 7.5,
        "p90": 9,
        "p95": 9.5,
        "p99": 9.9,
        "p999": 9.99,
        "max": 10,
    }
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, rel=1e-3)
    assert found.at(12.5) == pytest.approx(1.25, rel=1e-3)
    assert sum(count for _, count in found.values()) == found.count == 10000
    assert sum(value * count for value, count in found.values()) == pytest.approx(10000 * found.mean, rel=1e-3)


@pytest.mark.parametrize(
    ("fast", "slow", "percent", "expected"),
    [(149, 2, 99, 1), (99, 1, 99, 0.01), (999, 1, 99.9, 0.01), (998, 2, 99.9, 1), (3, 4, 50, 1), (1, 1, 50, 0.01)],
)
def test_a_percentile_is_a_promise(fast: int, slow: int, percent: float, expected: float) -> None:
    """No smaller share of the requests than it says took as long or less: 149 of 151 are not 99 %."""
    assert of(*[0.01] * fast, *[1.0] * slow).at(percent) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, 1e-6), (1e-9, 1e-6), (1e6, 3600.0)])
def test_extreme_latencies_are_counted(seconds: float, kept: float) -> None:
    """A latency outside the range of the histogram is counted at its edge, not dropped."""
    assert of(seconds).max == pytest.approx(kept, rel=1e-3)


def test_nothing_happened() -> None:
    """A journal of nothing has no latency and no windows, and divides nothing by zero."""
    journal = Journal(50.0)
    assert (journal.seconds, journal.series(), latency(journal.whole().latencies)) == (0, (), None)


def test_an_empty_tally_adds_nothing() -> None:
    """The minimum stays what it was when a second without answers is added."""
    whole, one = Tally(), Tally()
    one.success(0.05, 1)
    for each in (Tally(), one, Tally()):
        whole.unpack(each.packed())
    assert latency(whole.latencies) == of(0.05)
    assert of(0.05).min == pytest.approx(0.05, rel=1e-3)


def test_windows() -> None:
    """Each second of the measurement is a window, empty ones too; the last is as long as it lasted."""
    journal = Journal(100.0, corrected=True)
    for due, ended in ((99.5, 99.9), (99.9, 100.2), (100.0, 100.5), (100.1, 102.25)):
        journal.success(due, due + 0.1, ended, inferences=2)
    journal.failure("timeout", 100.2, 102.2)
    windows = journal.series()
    assert [(each.start, each.seconds) for each in windows] == [(0, 1), (1, 1), (2, pytest.approx(0.25))]
    assert [(each.requests, each.inferences, each.errors) for each in windows] == [(1, 2, 0), (0, 0, 0), (1, 2, 1)]
    sent = latency(journal.sent.latencies)
    assert sent
    assert (sent.count, sent.max) == (2, pytest.approx(2.05, rel=1e-3))
    assert journal.whole().requests == 2
    assert journal.seconds == pytest.approx(2.25)


def test_merged_journals_equal_one() -> None:
    """What processes pass on adds up to what one would have seen."""
    whole, merged, parts = (Journal(10.0, True), Journal(10.0, True), [Journal(10.0, True) for _ in range(3)])
    for i in range(300):
        due = 9.5 + i / 100
        for journal in (whole, parts[i % 3]):
            journal.success(due, due + 0.005, due + 0.02 + i / 1000, 1)
            journal.departure(due, due + 0.005, i % 2 == 0, 10, 20)
    for part in parts:
        merged.add(part.packed())
    assert merged.series() == whole.series()
    assert merged.effort == whole.effort
    assert (merged.effort.late, merged.effort.overslept, merged.effort.sent_bytes) == (250, 125, 2500)
    assert latency(merged.sent.latencies) == latency(whole.sent.latencies)


def test_a_long_run_takes_little_memory() -> None:
    """What a second leaves behind is small, and is added to all the same when a process tells of it late."""
    run = Journal(0.0)
    tracemalloc.start()
    try:
        for second in [*range(600), 3]:
            told = Journal(0.0)
            told.success(second, second, second + 0.5, 1)
            run.add(told.packed())
        gc.collect()  # each histogram is a circle
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 600 * 4000
    assert [each.requests for each in run.series()[:5]] == [1, 1, 1, 2, 1]
    assert run.whole().requests == 601
