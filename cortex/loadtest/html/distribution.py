"""How latencies are distributed: how many requests took how long, and what share took longer."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import ceil, log10

from cortex.loadtest import units
from cortex.loadtest.html import drawing
from cortex.loadtest.html.drawing import Frame
from cortex.loadtest.html.markup import Markup, joined
from cortex.loadtest.html.scales import Scale, around, upward
from cortex.loadtest.latency import Latency
from cortex.loadtest.results import Result

HISTOGRAM = "Latency histogram"
CURVE = "Latency by percentile"
_BOTTOM = 250
_HEIGHT = 292
_FINEST = 2e-3  # of a value: narrower bars than the histogram's own three digits would show its steps, not the server


def histogram(latency: Latency, width: int) -> Markup:
    """Draw how many requests took how long, with the median and the 99th percentile marked."""
    x, edges = _bins(latency, 58, width - 10)
    counts = _counts(latency, edges)
    frame = Frame(x, upward(max(counts), _BOTTOM, 30))
    bars = [(low, high, count) for (low, high), count in zip(pairwise(edges), counts, strict=True)]
    return drawing.picture(
        f"histogram-{width}",
        HISTOGRAM,
        f"{latency.count:,} requests took between {units.duration(latency.min)} and {units.duration(latency.max)}; "
        f"the median is {units.duration(latency.p50)}.",
        width,
        _HEIGHT,
        drawing.grid(frame, units.number, "requests"),
        joined(*(_column(frame, *bar) for bar in bars)),
        drawing.mark(frame, latency.p50, f"p50 {units.duration(latency.p50)}", "p50"),
        drawing.mark(frame, latency.p99, f"p99 {units.duration(latency.p99)}", "p99", row=1),
        drawing.floor(frame, x.ticks(width // 70), units.tick, "latency" + (", log scale" if x.log else "")),
        drawing.readings(frame, (_column_reading(*bar, latency.count) for bar in bars)),
    )


def curve(result: Result, latency: Latency, width: int) -> Markup:
    """Draw latency over the share of requests that were as fast; nines are equally far apart."""
    nines = min(max(ceil(log10(latency.count)), 2), 5)
    x = Scale(1.0, 10.0**nines, 58, width - 14, log=True)
    raw = result.uncorrected if result.open_loop else None
    frame = Frame(x, around([each for line in (latency, raw) if line for each in (line.min, line.max)], _BOTTOM, 30))
    shares = [0.0, 0.5, *(1 - 10.0**-power for power in range(1, nines + 1))]
    hidden = f"; {units.duration(raw.p99)} when counted from sending" if raw else ""
    return drawing.picture(
        f"curve-{width}",
        CURVE,
        f"Latency rises from {units.duration(latency.p50)} at 50 % to {units.duration(latency.p99)} at 99 % of requests"
        f"{hidden}, and {units.duration(latency.max)} at most.",
        width,
        _HEIGHT,
        drawing.grid(frame, units.tick, "latency"),
        drawing.line(frame, _points(raw, x), "raw", dots=False) if raw else None,
        drawing.line(frame, _points(latency, x), "p99", dots=False),
        drawing.floor(frame, [1 / (1 - share) for share in shares], _percent, "share of requests that were as fast"),
        drawing.readings(frame, _readings(latency, raw, x)),
    )


def _bins(latency: Latency, start: float, end: float) -> tuple[Scale, list[float]]:
    low, high = latency.min, max(latency.max, latency.min + 2e-6, latency.min * 1.01)
    most = int((end - start) // 9)
    if high / low >= 20:
        x = Scale(low, high, start, end, log=True)
        return x, [low * (high / low) ** (each / most) for each in range(most + 1)]
    finest = max(high * _FINEST, 2e-6)
    count = min(max(int((high - low) / finest), 1), most)
    return Scale(low, high, start, end), [low + (high - low) * each / count for each in range(count + 1)]


def _counts(latency: Latency, edges: Sequence[float]) -> list[int]:
    counts = [0] * (len(edges) - 1)
    for value, count in latency.values():
        counts[min(max(bisect_left(edges, value) - 1, 0), len(counts) - 1)] += count
    return counts


def _column(frame: Frame, low: float, high: float, count: int) -> Markup | None:
    left, top = frame.x(low), frame.y(count)
    return drawing.bar(left, top, frame.x(high) - left - 1, frame.bottom - top, "bar answered") if count else None


def _column_reading(low: float, high: float, count: int, total: int) -> tuple[float, float, float, str]:
    words = f"{units.duration(low)} to {units.duration(high)}: {count:,} ({units.share(count / total)})"
    return low, high, (low + high) / 2, words


def _points(latency: Latency, x: Scale) -> list[drawing.XY]:
    """Return the curve at every other unit of the drawing, which is finer than it can be seen."""
    values, counts = zip(*latency.values(), strict=True)
    upto = list(accumulate(counts))
    steps = int(x.end - x.start) // 2
    places = (x.high ** (step / steps) for step in range(steps + 1))
    return [(at, values[min(bisect_left(upto, (1 - 1 / at) * upto[-1] - 1e-9), len(values) - 1)]) for at in places]


def _readings(latency: Latency, raw: Latency | None, x: Scale) -> list[tuple[float, float, float, str]]:
    steps = 24
    edges = [x.high ** (step / steps) for step in range(steps + 1)]
    return [
        (low, high, (low * high) ** 0.5, _reading(latency, raw, (low * high) ** 0.5)) for low, high in pairwise(edges)
    ]


def _reading(latency: Latency, raw: Latency | None, at: float) -> str:
    percent = 100 * (1 - 1 / at)
    sent = f", from sending {units.duration(raw.at(percent))}" if raw else ""
    return f"{_percent(at)}: {units.duration(latency.at(percent))}{sent}"


def _percent(at: float) -> str:
    """Return the share that a place on the curve stands for, with as many nines as it has."""
    digits = max(ceil(log10(at) - 1e-6) - 2, 0)
    return f"{100 * (1 - 1 / at):.{digits}f} %"
