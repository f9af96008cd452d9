"""Throughput of the stacks as bars: an SVG of its own, legible on light and dark pages."""

from collections.abc import Sequence

from benchmark.aims import engine
from benchmark.cells import API, ENGINE, FLASK, MODEL_SERVER, ONE_PROCESS, TENSORFLOW, Row
from benchmark.sections import MIDDLE
from cortex.loadtest.html.markup import Markup, element
from cortex.loadtest.html.scales import upward

_WIDTH, _LEFT, _RIGHT, _BAR, _GAP, _TOP = 760, 230, 640, 22, 10, 64
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1b1f26 }
.title { font-weight: 600 } .soft { fill: #596273 }
.engine { fill: #8a94a6 } .server { fill: #5a8ddc } .api { fill: #1d5fd6 } .other { fill: #b4530a }
@media (prefers-color-scheme: dark) {
  text { fill: #e8ebf0 } .soft { fill: #9fa9b8 }
  .engine { fill: #6b7686 } .server { fill: #4a78c4 } .api { fill: #6ea8ff } .other { fill: #f5a25b }
}
"""
_KINDS = {
    ENGINE: "engine",
    MODEL_SERVER: "server",
    API: "api",
    ONE_PROCESS: "other",
    TENSORFLOW: "other",
    FLASK: "other",
}


def svg(rows: Sequence[Row]) -> str:
    """Draw the section of stacks, with 8 clients where clients are counted."""
    shown = [row for row in rows if _is_shown(row, rows)]
    across = upward(max((row.rate for row in shown), default=1.0), _LEFT, _RIGHT)
    height = _TOP + len(shown) * (_BAR + _GAP) + 8
    title = "Answers per second, ResNet-50, one small picture a request"
    aside = f"With {MIDDLE} clients where they are counted; in brackets the share of the engine alone in that precision"
    told = ", ".join(f"{_label(row)}: {row.rate:.1f}" for row in shown)
    picture = element(
        "svg",
        element("title", title),
        element("desc", told),
        element("style", Markup(_STYLE)),
        element("text", title, x=12, y=24, class_="title"),
        element("text", aside, x=12, y=44, class_="soft"),
        *(_bar(row, across(row.rate), _TOP + number * (_BAR + _GAP), rows) for number, row in enumerate(shown)),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH} {height}",
        width=_WIDTH,
        height=height,
        role="img",
    )
    return picture + "\n"


def _is_shown(row: Row, rows: Sequence[Row]) -> bool:
    if row.cell.stack == ENGINE:
        return row is engine(rows, row.cell.precision)
    return row.cell.asks_the_model or row.cell.clients == MIDDLE


def _bar(row: Row, end: float, top: float, rows: Sequence[Row]) -> Markup:
    best, middle = engine(rows, row.cell.precision), top + _BAR * 0.7
    of = f" ({row.times(best).value:.0%})" if best and best is not row else ""
    return element(
        "g",
        element("text", _label(row), x=12, y=middle, class_="soft"),
        element("rect", x=_LEFT, y=top, width=max(end - _LEFT, 1.0), height=_BAR, rx=3, class_=_KINDS[row.cell.stack]),
        element("text", f"{row.rate:.1f}{of}", x=end + 8, y=middle),
    )


def _label(row: Row) -> str:
    return f"{row.cell.precision}  {row.cell.name}"
