"""Several runs at once: a sweep with its knee, and the search for the highest rate that holds a bound."""

import itertools
from collections.abc import Sequence

from cortex.loadtest import units
from cortex.loadtest.findings import Point, Search, Sweep, Trial
from cortex.loadtest.html import drawing
from cortex.loadtest.html.drawing import Frame
from cortex.loadtest.html.markup import Markup
from cortex.loadtest.html.scales import Scale, around, upward

SWEEP = "Sweep"
SEARCH = "Search"


def sweep(found: Sweep, width: int) -> Markup | None:
    """Draw throughput and latency over the setting that was varied; None when no run was answered."""
    runs = [each for each in found.points if each.result.latency]
    if not runs:
        return None
    x = _across([each.value for each in found.points], width)
    rates = Frame(x, upward(max(each.result.requests_per_second for each in runs), 150, 30))
    latency = Frame(x, around([v for each in runs for v in _span(each)], 322, 188))
    unit = "connections" if found.over == "connections" else "requests/s asked for"
    return drawing.picture(
        f"sweep-{width}",
        SWEEP,
        found.words,
        width,
        364,
        drawing.grid(rates, units.number, "requests/s", most=4),
        _knee(rates, found, label=True),
        drawing.line(
            rates, [(each.value, each.result.requests_per_second) for each in found.points], "rate", dots=True
        ),
        drawing.grid(latency, units.tick, "latency"),
        _knee(latency, found),
        *(drawing.line(latency, _percentile(found.points, name), name, dots=True) for name in ("p99", "p50")),
        drawing.floor(latency, [each.value for each in found.points], lambda value: f"{value:g}", unit),
        drawing.readings(rates, _readings(found.points, x), latency.bottom),
    )


def search(found: Search, width: int) -> Markup | None:
    """Draw the bounded percentile of each trial over its rate, with the bound; None when no trial was answered."""
    trials = [(each, _bounded(found, each)) for each in found.trials if each.result.latency]
    if not trials:
        return None
    bound = found.objective.bound
    frame = Frame(
        _across([each.rate for each, _ in trials], width), around([bound, *(value for _, value in trials)], 240, 30)
    )
    line = drawing.line(frame, [(frame.x.low, bound), (frame.x.high, bound)], "bound", dots=False)
    return drawing.picture(
        f"search-{width}",
        SEARCH,
        found.words,
        width,
        282,
        drawing.grid(frame, units.tick, found.objective.name),
        line,
        drawing.mark(frame, found.rate, f"{units.number(found.rate)}/s", "quiet") if found.rate else None,
        *(drawing.dot(frame, each.rate, value, "held" if each.held else "broken") for each, value in trials),
        drawing.floor(frame, sorted(each.rate for each, _ in trials), units.number, "requests/s asked for"),
    )


def _across(values: Sequence[float], width: int) -> Scale:
    """Return a scale with some room beside the outermost values, logarithmic when they span much."""
    low, high = min(values), max(values)
    if low > 0 and high / low >= 8:
        return Scale(low * 0.9, high * 1.1, 58, width - 10, log=True)
    room = (high - low) * 0.05 or max(high, 1.0) * 0.5
    return Scale(low - room, high + room, 58, width - 10)


def _span(point: Point) -> tuple[float, float]:
    latency = point.result.latency
    assert latency
    return latency.p50, latency.p99


def _percentile(points: Sequence[Point], name: str) -> list[drawing.XY]:
    return [(each.value, getattr(each.result.latency, name, None)) for each in points]


def _knee(frame: Frame, found: Sweep, label: bool = False) -> Markup | None:
    if found.knee is None:
        return None
    value = found.points[found.knee].value
    return drawing.mark(frame, value, f"knee at {value:g}" if label else "", "knee")


def _readings(points: Sequence[Point], x: Scale) -> list[tuple[float, float, float, str]]:
    values = [each.value for each in points]
    middles = [(low + high) / 2 for low, high in itertools.pairwise(values)]
    edges = [x.low, *middles, x.high]
    return [(edges[i], edges[i + 1], each.value, _reading(each)) for i, each in enumerate(points)]


def _reading(point: Point) -> str:
    result, latency = point.result, point.result.latency
    times = f", p50 {units.duration(latency.p50)}, p99 {units.duration(latency.p99)}" if latency else ""
    errors = f", errors {units.share(result.error_share)}" if result.failed else ""
    return f"{point.value:g}: {units.number(result.requests_per_second)}/s{times}{errors}"


def _bounded(found: Search, trial: Trial) -> float:
    assert trial.result.latency
    return trial.result.latency.at(found.objective.percentile)
