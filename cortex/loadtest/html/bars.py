"""Lengths side by side: where the server's time goes, and how sure a change is."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import isfinite

from cortex.loadtest import units
from cortex.loadtest.findings import Change, Comparison
from cortex.loadtest.html import drawing
from cortex.loadtest.html.drawing import Frame
from cortex.loadtest.html.markup import Markup, element, joined
from cortex.loadtest.html.scales import Scale
from cortex.loadtest.results import Stage

STAGES = "Where the time goes"
COMPARISON = "Change"
_ROW = 62
_STYLES = 6  # of stages, in the page's style
REST = "outside of these"


def stages(told: Sequence[Stage], mean: float, width: int) -> Markup:
    """Draw the stages of each process that told them as one bar, against the mean latency that the client saw."""
    rows = [(source, list(row)) for source, row in groupby(told, key=lambda each: each.source)]
    totals = [sum(each.mean for each in row) for _, row in rows]
    x = Scale(0.0, max(*totals, mean, 1e-9), 0, width)
    bottom = len(rows) * _ROW
    frame = Frame(x, Scale(0.0, 1.0, bottom, 0))
    parts = ", ".join(f"{each.name} {units.duration(each.mean)}" for each in told)
    return drawing.picture(
        f"stages-{width}",
        STAGES,
        f"Of a mean latency of {units.duration(mean)}: {parts}.",
        width,
        bottom + 40,
        *(_stacked(x, row, styles(told), index * _ROW, mean) for index, (_, row) in enumerate(rows)),
        drawing.floor(frame, x.ticks(max(width // 90, 4))[1:], units.tick, "mean time of a request"),
    )


def styles(told: Sequence[Stage]) -> dict[str, str]:
    """Return the class that each stage is drawn and listed with, by name."""
    names = dict.fromkeys(each.name for each in told)
    return {name: f"stage{index % _STYLES}" for index, name in enumerate(names)}


def changes(found: Comparison, width: int) -> Markup | None:
    """Draw the interval that holds each figure's ratio to before; None when no figure has one."""
    shown = [each for each in found.changes if all(map(isfinite, (each.low, each.ratio, each.high)))]
    if not shown:
        return None
    spread = max(max(abs(each.low - 1), abs(each.high - 1), 0.01) for each in shown) * 1.2
    x = Scale(1 - spread, 1 + spread, 10, width - 10)
    bottom = len(shown) * 40 + 10
    return drawing.picture(
        f"changes-{width}",
        COMPARISON,
        found.words,
        width,
        bottom + 40,
        element("line", x1=x(1), x2=x(1), y1=6, y2=bottom, class_="axis"),
        *(_interval(x, each, 40 * index + 16) for index, each in enumerate(shown)),
        drawing.floor(Frame(x, Scale(0, 1, bottom, 6)), x.ticks(width // 90), _relative, "after, relative to before"),
    )


def _relative(ratio: float) -> str:
    percent = round(100 * (ratio - 1), 2)
    return f"{percent:+g} %" if percent else "0 %"


def _stacked(x: Scale, row: Sequence[Stage], kinds: Mapping[str, str], top: float, mean: float) -> Markup:
    parts, at = [element("text", row[0].source or "server", x=0, y=top + 14, class_="caption")], 0.0
    for stage in row:
        parts.append(_piece(x, at, at + stage.mean, stage.name, top + 22, kinds[stage.name]))
        at += stage.mean
    if mean > at:
        parts.append(_piece(x, at, mean, REST, top + 22, "rest"))
    return joined(*parts)


def _piece(x: Scale, start: float, end: float, name: str, top: float, kind: str) -> Markup:
    width = x(end) - x(start)
    fits = width > len(name) * 7 + 8
    return element(
        "g",
        element("title", f"{name}: {units.duration(end - start)}"),
        drawing.bar(x(start), top, width - 1, 30, f"piece {kind}"),
        element("text", name, x=x(start) + width / 2, y=top + 19, class_=f"middle on {kind}") if fits else None,
    )


def _interval(x: Scale, change: Change, y: float) -> Markup:
    kind = change.verdict.replace(" ", "-")
    return joined(
        element("text", change.name, x=10, y=y, class_="caption"),
        element("line", x1=x(change.low), x2=x(change.high), y1=y + 9, y2=y + 9, class_=f"interval {kind}"),
        element("circle", cx=x(change.ratio), cy=y + 9, r=5, class_=f"dot change {kind}"),
    )
