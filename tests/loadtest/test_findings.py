"""What is found out by several runs: steady states, knees, bounds, changes, conditions, costs."""

import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cortex.errors import UserError
from cortex.loadtest import Report, Result
from cortex.loadtest.assertion import conditions
from cortex.loadtest.comparison import compare
from cortex.loadtest.cost import cost
from cortex.loadtest.findings import Point
from cortex.loadtest.results import Client, Cost, Window
from cortex.loadtest.schedules import steady as constant
from cortex.loadtest.search import confirmed, objective, search
from cortex.loadtest.steady import steady
from cortex.loadtest.sweep import judged, sweep, values
from tests.loadtest.latencies import of


def window(second: int, requests: int, median: float) -> Window:
    return Window(float(second), 1.0, requests, requests, 0, of(*[median] * requests) if requests else None)


def settled(rate: float, median: float, errors: int = 0) -> Result:
    requests = round(rate)
    return Result(1.0, requests, requests, of(*[median] * requests), {"timeout": errors} if errors else {})


@pytest.mark.parametrize(
    ("windows", "reached", "after", "words"),
    [
        ([(100, 0.1), (200, 0.1), (210, 0.1), (205, 0.1)], True, 1, "Steady after 1 s"),
        ([(200, 0.1), (200, 0.2), (200, 0.3), (200, 0.4)], False, None, "Not steady: no three windows of 1 s"),
        ([(200, 0.1), (200, 0.1)], False, None, "Too short to tell whether it was steady: three windows of 1 s"),
        ([(50, 0.1)] * 6, True, 0, "three windows of 2 s agree"),
        ([], False, None, "Nothing was answered"),
        ([(300, 0.1), (200, 0.1), (0, 0), (0, 0), (0, 0)], False, None, "Not steady: no three windows of 1 s"),
    ],
)
def test_steady(windows: list[tuple[int, float]], reached: bool, after: float | None, words: str) -> None:
    """Three windows in a row within 10 % in rate and median are steady, not a server that has died.

    A window has a hundred requests or more.
    """
    found = steady([window(second, *each) for second, each in enumerate(windows)])
    assert (found.reached, found.after) == (reached, after)
    assert words in found.words


@pytest.mark.parametrize(
    ("later", "lasted", "words"),
    [
        ((200, 0.1), True, "three windows of 1 s agree within 10 %."),
        ((150, 0.15), True, "three windows of 1 s agree within 10 %."),
        ((90, 0.1), False, "from 4 s to 5 s, 1 of 3 later windows"),
        ((200, 0.3), False, "from 4 s to 5 s, 1 of 3 later windows"),
    ],
)
def test_steady_at_first(later: tuple[int, float], lasted: bool, words: str) -> None:
    """A run that was steady and then froze is not called steady without saying so."""
    usual = (200, 0.1)
    found = steady([window(i, *each) for i, each in enumerate([usual] * 4 + [later] + [usual])])
    assert (found.reached, found.after, found.lasted) == (True, 0, lasted)
    assert words in found.words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2,4..64", [1, 2, 4, 8, 16, 32, 64]),
        ("2,4..16", [2, 4, 8, 16]),
        ("10,20..50", [10, 20, 30, 40, 50]),
        ("10,20,30..55", [10, 20, 30, 40, 50]),
        ("1..4", [1, 2, 3, 4]),
        ("5", [5]),
        ("0.5,1,7", [0.5, 1, 7]),
    ],
)
def test_sizes(text: str, expected: list[float]) -> None:
    """A sweep goes on as it began."""
    assert values(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "4,2", "1,1", "a", "1,2..b", "-1", "1..", "..4", "1,0..9", "nan", "1,inf", "1..inf", "8..1"]
)
def test_bad_sizes(text: str) -> None:
    """What does not ascend from above nothing is no sweep."""
    with pytest.raises(UserError, match="not a sweep"):
        values(text)


def test_knee() -> None:
    """Four servers of 20 ms: the knee is where all are busy and nobody waits."""
    points = [Point(n, settled(min(n, 4) * 50, 0.02 * max(n, 4) / 4)) for n in (1, 2, 4, 8, 16)]
    found = judged("connections", points)
    assert found.knee == 2
    assert found.words == (
        "The knee is at 4 connections: 200 requests/s at p50 20.0 ms. 16 connections bring +0% throughput for 4.0 "
        "times the latency."
    )
    assert "not reached" in judged("connections", points[:3]).words
    assert judged("rate", [Point(1, Result(1, 0, 0, None))]).knee is None


def queued(rate: float, seconds: float, each: float) -> Result:
    """Return what a server for 200 requests/s that takes so long for each makes of a rate, on a machine of its own."""
    free, latencies = [0.0] * round(200 * each), []
    for due in constant(rate, seconds).offsets():
        slot = free.index(min(free))
        free[slot] = max(due, free[slot]) + each
        latencies.append(free[slot] - due)
    return Result(max(seconds, *free), len(latencies), len(latencies), of(*latencies))


@pytest.mark.parametrize(("bound", "each"), [("p90=60ms", 0.02), ("p99=2s", 0.02), ("p90=500ms", 0.3)])
def test_search_on_a_server_of_known_capacity(bound: str, each: float) -> None:
    """The rate that is found is the one beyond which requests pile up, however long a request takes."""
    found = search(objective(bound), 150, lambda rate, longer: queued(rate, 15 if longer else 5, each))
    assert found.rate == pytest.approx(200, rel=0.05), found.words
    assert found.trials[-1].result.seconds >= 15
    assert any(not trial.held for trial in found.trials)


@pytest.mark.parametrize(
    ("server", "rate", "words"),
    [
        (lambda rate: settled(rate, 0.01 if rate <= 70 else 0.5), 70, "is 6"),
        (lambda rate: settled(rate, 0.01 if rate <= 300 else 0.5), 300, "confirmed"),
        (lambda rate: settled(min(rate, 80), 0.01), 80, "confirmed by a longer run: p99 10.0 ms"),
        (lambda rate: settled(rate, 0.01, errors=1 if rate > 50 else 0), 50, "confirmed"),
        (lambda rate: settled(max(rate, 1), 0.5), None, "No rate held p99 at 100 ms. At 1.41 requests/s: p99 500 ms"),
    ],
)
def test_search(server: Callable[[float], Result], rate: float | None, words: str) -> None:
    """Latency, throughput and errors each bound the rate; a bound that nothing holds is told as such."""
    found = search(objective("p99=100ms"), 100, lambda rate, longer: server(rate))
    assert found.rate == (pytest.approx(rate, rel=0.03) if rate else None)
    assert words in found.words


def test_a_rate_that_holds_for_a_while() -> None:
    """What no longer run confirms is no rate that holds, and the words do not deny what the trials say."""
    found = search(
        objective("p99=100ms"), 100, lambda rate, longer: settled(rate, 0.5 if longer or rate > 99 else 0.01)
    )
    assert found.rate is None
    assert any(trial.held for trial in found.trials)
    assert re.match(r"No rate held p99 at 100 ms in a longer run\. At 9\d\.\d requests/s: p99 500 ms\.", found.words)


def test_a_search_in_which_chance_meddles() -> None:
    """The lowest rate that failed is tried again before the search ends; one that holds then was held up by chance."""
    rates: list[float] = []

    def measure(rate: float, longer: bool) -> Result:
        rates.append(rate)
        return settled(rate, 0.01 if rate <= 300 and len(rates) != 2 else 0.5)

    found = search(objective("p99=100ms"), 100, measure)
    assert found.rate == pytest.approx(300, rel=0.03)
    assert rates.count(rates[1]) == 2
    assert confirmed(found) is found.trials[-1].result


def test_what_the_tester_could_not_do() -> None:
    """Where a search ends, or a sweep, the words hold the warning that it may have been the tester's own end."""

    def measure(rate: float, *_: object) -> Result:
        busy = Client(1, 64, 1.0, 0.95, 0.01, 0, 0.0, 0.0, "The tester is the bottleneck.") if rate > 70 else None
        return replace(settled(rate, 0.01 if rate <= 70 else 0.5), client=busy)

    words = search(objective("p99=100ms"), 100, measure).words
    assert re.search(r"confirmed by a longer run: .* At 7\d\.\d requests/s: The tester is the bottleneck\.$", words)
    words = sweep("rate", [35, 70, 140], measure).words
    assert words.startswith("The knee is at 70 requests/s")
    assert words.endswith(" At 140 requests/s: The tester is the bottleneck.")


def test_interrupted_search() -> None:
    """Ctrl-C ends a search with what was found so far."""
    results = iter([settled(90, 0.01), Result(1, 5, 5, of(0.1), interrupted=True)])
    found = search(objective("p99=100ms"), 100, lambda rate, longer: next(results))
    assert (found.rate, len(found.trials)) == (None, 1)
    assert found.words == "Interrupted before the rate was confirmed; 90 requests/s held."


def test_interrupted_between_two_runs() -> None:
    """Ctrl-C while the next run starts costs nothing of the runs before it."""
    left = [settled(90, 0.01)]

    def measure(*_: object) -> Result:
        if not left:
            raise KeyboardInterrupt
        return left.pop()

    assert len(sweep("connections", [1, 2, 4], measure).points) == 1
    left.append(settled(90, 0.01))
    found = search(objective("p99=100ms"), 100, measure)
    assert (len(found.trials), found.words) == (1, "Interrupted before the rate was confirmed; 90 requests/s held.")
    with pytest.raises(KeyboardInterrupt):
        sweep("connections", [1, 2, 4], measure)


@pytest.mark.parametrize("text", ["", "p99", "p99<100ms", "p99=100", "p100=1s", "p0=1s", "mean=1s", "p99=0ms"])
def test_bad_objectives(text: str) -> None:
    """A bound names a percentile, a time and its unit."""
    with pytest.raises(UserError, match="it looks like p99=100ms"):
        objective(text)


def noisy(rate: float, median: float, seed: int) -> Result:
    chance = random.Random(seed)
    windows = []
    for second in range(20):
        requests = round(rate * chance.uniform(0.9, 1.1))
        times = [median * chance.lognormvariate(0, 0.2) for _ in range(requests)]
        windows.append(Window(second, 1.0, requests, requests, 0, of(*times)))
    total = sum(each.requests for each in windows)
    return Result(20.0, total, total, windows[0].latency, windows=tuple(windows))


def test_comparison_of_a_real_change() -> None:
    """30 % more throughput and 30 % more latency are told as better and worse, with the ratio in the interval."""
    found = compare(Path("a.json"), noisy(100, 0.05, 1), noisy(130, 0.065, 2))
    verdicts = {each.name: each.verdict for each in found.changes}
    assert verdicts["requests/s"] == "better"
    assert verdicts["latency p50"] == verdicts["latency mean"] == "worse"
    assert all(each.low <= each.ratio <= each.high for each in found.changes)
    assert all(each.low < 1.3 < each.high for each in found.changes if each.name != "latency p99")
    assert "Better with 95 % confidence: requests/s +" in found.words


def test_comparison_of_batches() -> None:
    """Where a request of either run was several inferences, a figure of its own says how many of them there were."""
    single, double = noisy(100, 0.05, 1), noisy(80, 0.06, 2)
    double = replace(double, windows=tuple(replace(each, inferences=2 * each.requests) for each in double.windows))
    assert "inferences/s" not in {each.name for each in compare(Path("a.json"), single, single).changes}
    for before, after, ratio in ((single, double, 1.6), (double, single, 1 / 1.6), (double, double, 1)):
        [found] = [each for each in compare(Path("a.json"), before, after).changes if each.name == "inferences/s"]
        assert found.ratio == pytest.approx(ratio, rel=0.1)
        assert found.before == pytest.approx(sum(each.inferences for each in before.windows) / 20)


def test_comparison_of_chance() -> None:
    """Two runs of the same server differ by chance, and that is said."""
    found = compare(Path("a.json"), noisy(100, 0.05, 3), noisy(100, 0.05, 4))
    assert {each.verdict for each in found.changes} == {"no change"}
    assert found.words == "No change that these runs could tell from chance."


def test_comparison_of_a_run_that_fails() -> None:
    """A server that answers errors is quick: how many there are is told beside the figures, which have none of them."""
    sound = noisy(100, 0.05, 1)
    failing = replace(noisy(200, 0.01, 2), errors={"timeout": 1000})
    words = compare(Path("a.json"), sound, failing).words
    assert words.startswith("Better with 95 % confidence")
    share = 100 * 1000 / (failing.requests + 1000)
    assert words.endswith(f" Errors are in none of these figures: 0 % before, {share:.1f} % now.")


def test_comparison_of_a_run_that_was_answered_for_a_part_of_the_time() -> None:
    """What is drawn from seconds without an answer alone has no latency, and bounds nothing."""
    whole = noisy(100, 0.05, 1)
    silent = tuple(Window(second, 1.0, 0, 0, 100, None) for second in range(3, 20))
    part = replace(whole, windows=whole.windows[:3] + silent)
    for pair in ((whole, part), (part, whole)):
        found = {each.name: each for each in compare(Path("a.json"), *pair).changes}
        assert all(math.isfinite(each.high) for each in found.values())
        assert 0.8 < found["latency p50"].low < found["latency p50"].high < 1.2


def test_too_few_answers_to_compare() -> None:
    """Seconds without an answer are none that could be resampled."""
    silent = tuple(Window(second, 1.0, 0, 0, 1, None) for second in range(2, 8))
    windows = (window(0, 5, 0.1), window(1, 5, 0.1), *silent)
    with pytest.raises(UserError, match=r"a\.json: 2 seconds with answers are too few"):
        compare(Path("a.json"), Result(8.0, 10, 10, of(0.1), windows=windows), noisy(100, 0.05, 1))


@pytest.mark.parametrize(
    ("text", "actual", "passed"),
    [
        ("p99<100ms", "50.0ms", True),
        ("p99.9 <= 49ms", "50.0ms", False),
        ("mean>=0.01s", "0.05s", True),
        ("max<60000us", "50,015us", True),
        ("errors<0.1%", "50%", False),
        ("errors<=100", "100", True),
        ("rate>99/s", "100/s", True),
        ("inferences>100", "100", False),
    ],
)
def test_conditions(text: str, actual: str, passed: bool) -> None:
    """A condition compares what was measured in its own unit."""
    [check] = [each.check(settled(100, 0.05, errors=100)) for each in conditions(text)]
    assert (check.text, check.actual, check.passed) == (text, actual, passed)


def test_conditions_without_answers() -> None:
    """When nothing was answered no latency is low enough."""
    checks = [each.check(Result(1.0, 0, 0, None)) for each in conditions("p99<1s, errors<1%")]
    assert [(each.actual, each.passed) for each in checks] == [("nothing was answered", False), ("0%", True)]


@pytest.mark.parametrize("text", ["", "p99", "p99<100", "p99=1s", "speed<1s", "errors<1ms", "rate>1%", "p99<1s,,"])
def test_bad_conditions(text: str) -> None:
    """A condition that cannot be read is told, with what one looks like or needs."""
    with pytest.raises(UserError, match=r"not a condition; it looks like|needs one of the units"):
        conditions(text)


def test_cost() -> None:
    """A million inferences at 100/s take 10,000 s; 250/s take three such servers."""
    found = cost(settled(100, 0.01), 3.6, 250)
    assert found
    assert found.per_million_inferences == pytest.approx(10)
    assert (found.replicas, found.replicas_price_per_hour) == (3, pytest.approx(10.8))
    nothing = cost(Result(1.0, 0, 0, None), 3.6, 250)
    assert nothing
    assert (nothing.per_million_inferences, nothing.replicas) == (None, None)
    assert cost(settled(1, 1), None, None) is None
    assert cost(settled(100, 0.01), None, 250) == Cost(None, None, 250, 3, None)
    assert cost(settled(100, 0.01), 3.6, None) == Cost(3.6, pytest.approx(10), None, None, None)


def test_reports_come_back() -> None:
    """What as_dict wrote is read back, by way of JSON, also what lacks a key that came later; anything else is told."""
    result = noisy(20, 0.01, 5)
    data = json.loads(json.dumps(Report(result).as_dict()))
    assert Report.from_dict("a", data).result == result
    del data["result"]["unanswered"]
    assert Report.from_dict("a", data).result == result
    for bad in (None, [], {}, {"schema": "cortex.loadtest/1"}, {"schema": "cortex.loadtest/1", "result": {}}):
        with pytest.raises(UserError, match=r"^a: not a"):
            Report.from_dict("a", bad)


@pytest.mark.parametrize(("key", "value"), [("seconds", "a second"), ("requests", None), ("latency", {"hdr": "HIST"})])
def test_reports_that_are_damaged(key: str, value: object) -> None:
    """A report with a window that cannot be compared is told when it is read, not after the run."""
    data = json.loads(json.dumps(Report(noisy(20, 0.01, 5)).as_dict()))
    window = data["result"]["windows"][3]
    window[key] = window[key] | value if isinstance(value, dict) else value
    with pytest.raises(UserError, match=r"^a: not a whole report"):
        Report.from_dict("a", data)
