"""A run second by second: latency above, answers and errors below."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from cortex.loadtest import units
from cortex.loadtest.html import drawing
from cortex.loadtest.html.drawing import Frame
from cortex.loadtest.html.markup import Markup, joined
from cortex.loadtest.html.scales import Scale, around, upward
from cortex.loadtest.results import Result, Window

TITLE = "Latency over time"
_SHORT = 0.5  # seconds
_ROOM = 480  # a drawing that is narrower has room for a brief reading only


@dataclass(frozen=True)
class Column:
    """Neighbouring windows that are drawn as one. Of their percentiles the worst counts."""

    start: float
    end: float
    requests: int
    errors: int
    p50: float | None
    p99: float | None
    worst: float | None

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2

    @property
    def seconds(self) -> float:
        return max(self.end - self.start, 1e-9)


def columns(windows: Sequence[Window], most: int) -> list[Column]:
    """Return windows in ``most`` columns or fewer, of equally many windows each.

    A last one of less than half a second goes with the one before: its rate would be chance.
    """
    size = max(ceil(len(windows) / most), 1)
    groups = [list(windows[first : first + size]) for first in range(0, len(windows), size)]
    if len(groups) > 1 and sum(each.seconds for each in groups[-1]) < _SHORT:
        groups[-2:] = [groups[-2] + groups[-1]]
    return [_column(each) for each in groups]


def plot(result: Result, width: int) -> Markup | None:
    """Draw p50 and p99 of each second, the rate of answers, and errors; None when nothing was answered."""
    shown = columns(result.windows, most=width // 4)
    values = [value for each in shown for value in (each.p50, each.p99) if value is not None]
    if not values:
        return None
    x = Scale(0.0, max(shown[-1].end, 1e-6), 58, width - 10)
    latency = Frame(x, around(values, 214, 30))
    rates = Frame(x, upward(max((each.requests + each.errors) / each.seconds for each in shown), 330, 258))
    steady = result.steady
    return drawing.picture(
        f"timeline-{width}",
        TITLE,
        _description(result, values),
        width,
        370,
        joined(*(_failed(latency, each) for each in shown if each.errors)),
        drawing.grid(latency, units.tick, "latency"),
        _latencies(latency, shown),
        drawing.mark(latency, steady.after, "steady from here", "quiet")
        if steady and steady.reached and steady.after
        else None,
        drawing.grid(rates, units.number, "requests/s", most=3),
        joined(*(_answers(rates, each) for each in shown)),
        drawing.floor(rates, x.ticks(width // 80), lambda value: f"{value:g} s", "since the measurement began"),
        drawing.readings(
            latency,
            ((each.start, each.end, each.middle, _reading(each, brief=width < _ROOM)) for each in shown),
            rates.bottom,
        ),
    )


def _column(windows: Sequence[Window]) -> Column:
    latencies = [each.latency for each in windows if each.latency]
    return Column(
        windows[0].start,
        windows[-1].start + windows[-1].seconds,
        sum(each.requests for each in windows),
        sum(each.errors for each in windows),
        max((each.p50 for each in latencies), default=None),
        max((each.p99 for each in latencies), default=None),
        max((each.max for each in latencies), default=None),
    )


def _latencies(frame: Frame, shown: Sequence[Column]) -> Markup:
    lower = [(each.middle, each.p50) for each in shown]
    upper = [(each.middle, each.p99) for each in shown]
    return joined(
        drawing.band(frame, lower, upper, "p99"),
        drawing.line(frame, upper, "p99"),
        drawing.line(frame, lower, "p50"),
    )


def _failed(frame: Frame, column: Column) -> Markup:
    left, right = frame.x(column.start), frame.x(column.end)
    return drawing.bar(left, frame.top, right - left, frame.bottom - frame.top, "failed")


def _answers(frame: Frame, column: Column) -> Markup:
    left = frame.x(column.start)
    width = frame.x(column.end) - left - 1
    good, all_ = (frame.y(count / column.seconds) for count in (column.requests, column.requests + column.errors))
    return joined(
        drawing.bar(left, good, width, frame.bottom - good, "bar answered"),
        drawing.bar(left, all_, width, good - all_, "bar error") if column.errors else None,
    )


def _reading(column: Column, brief: bool) -> str:
    errors = f", errors {column.errors:,}" if column.errors else ""
    worst = "" if brief else f", max {units.duration(column.worst)}"
    latency = f"p50 {units.duration(column.p50)}, p99 {units.duration(column.p99)}{worst}"
    return f"{column.start:g} s: {latency}, {units.number(column.requests / column.seconds)}/s{errors}"


def _description(result: Result, values: Sequence[float]) -> str:
    return (
        f"Median and 99th percentile of latency in each of {len(result.windows)} windows, between "
        f"{units.duration(min(values))} and {units.duration(max(values))}, with the rate of answers and errors below."
    )
