"""When requests of an open loop are due."""

import itertools
from pathlib import Path

import pytest

from cortex.errors import UserError
from cortex.loadtest import OpenLoop
from cortex.loadtest.schedules import POISSON, Profile, Segment, schedule, steady


def test_constant_arrivals() -> None:
    """A constant rate is evenly spread, from the beginning and up to the end."""
    assert list(steady(4, 1.5).offsets()) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1.25])


def test_ramp() -> None:
    """On a ramp the n-th request is due where the integral of the rate is n: 5 t**2 = n."""
    offsets = list(schedule("ramp:0..10/2s").offsets())
    assert offsets == pytest.approx([(n / 2.5) ** 0.5 for n in range(10)])


def test_steps() -> None:
    """Each step lasts as long as is said, at its own rate."""
    offsets = list(schedule("steps:10,20,5/2").offsets())
    assert [sum(1 for each in offsets if begin <= each < begin + 2) for begin in (0, 2, 4)] == [20, 40, 10]
    assert offsets == sorted(offsets)


def test_poisson_arrivals() -> None:
    """Chance arrivals have the rate asked for, distances whose deviation is their mean, and are repeatable."""
    offsets = list(steady(100, 100, POISSON).offsets())
    assert len(offsets) == pytest.approx(10_000, rel=0.03)
    distances = [after - before for before, after in itertools.pairwise(offsets)]
    mean = sum(distances) / len(distances)
    deviation = (sum((each - mean) ** 2 for each in distances) / len(distances)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.05)
    assert offsets == list(steady(100, 100, POISSON).offsets())
    assert offsets[-1] < 100


def test_poisson_ramp() -> None:
    """Chance arrivals follow a changing rate: a ramp from nothing has a quarter of them in its first half."""
    offsets = list(Profile((Segment(100, 0, 100),), POISSON).offsets())
    assert sum(1 for each in offsets if each < 50) / len(offsets) == pytest.approx(0.25, abs=0.03)


def test_trace(tmp_path: Path) -> None:
    """A recorded trace is repeated as it is."""
    (tmp_path / "trace").write_text("# seconds\n0\n0.5\n\n0.5\n2\n")
    found = schedule(str(tmp_path / "trace"))
    assert (list(found.offsets()), found.seconds, found.first_rate) == ([0, 0.5, 0.5, 2], 2, 2)


@pytest.mark.parametrize(
    ("text", "rate", "seconds"), [("ramp:10..20/2s", 10, 2), ("ramp:0..20/2s", 20, 2), ("steps:5,9/3", 5, 6)]
)
def test_the_first_rate(text: str, rate: float, seconds: float) -> None:
    """It is that of the warm-up; before a ramp from nothing it is the one that the ramp leads to."""
    assert (schedule(text).first_rate, schedule(text).seconds) == (rate, seconds)


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_share_a_schedule(workers: int) -> None:
    """Every request is due in one process, and the warm-up goes before at the first rate."""
    load = OpenLoop(steady(10, 1), workers=workers, threads=2)
    parts = [list(load.arrivals(worker, begin=98.0, start=100.0)[0]) for worker in range(workers)]
    assert sorted(itertools.chain(*parts)) == pytest.approx([98 + n / 10 for n in range(30)])
    first, second = OpenLoop(steady(10, 1)).arrivals(0, 0, 0)[:2]
    assert [next(first), next(second), next(first)] == pytest.approx([0, 0.1, 0.2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ramp:10/30s", "not a schedule; it looks like ramp:10..100/30s"),
        ("ramp:1.2.3..4/5", "not a schedule"),
        ("steps:/3", "not a schedule"),
        ("steps:10,0/3s", "a rate and a duration above 0"),
        ("ramp:1..2/0", "a rate and a duration above 0"),
        ("none.txt", "none.txt: No such file"),
        ("TRACE 1\n2\nx", "TRACE, line 3: 'x' is not a number of seconds"),
        ("TRACE 1\n0.5", "line 2: 0.5 must not be before the line above, which says 1"),
        ("TRACE nan", "line 1"),
        ("TRACE # nothing", "no arrivals in it"),
    ],
)
def test_bad_schedules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    """A schedule that cannot be is told with its line, and what one looks like."""
    monkeypatch.chdir(tmp_path)
    if text.startswith("TRACE"):
        Path("TRACE").write_text(text.removeprefix("TRACE "))
        text = "TRACE"
    with pytest.raises(UserError) as error:
        schedule(text)
    assert message in str(error.value)
