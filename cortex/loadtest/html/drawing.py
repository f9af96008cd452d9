"""The parts that plots are drawn from. Colours come from the page's style, by the class of what is drawn."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from cortex.loadtest.html.markup import Markup, element, joined
from cortex.loadtest.html.scales import Scale

XY = tuple[float, float | None]
"""A point of a line. It has a gap where there is no value."""
Label = Callable[[float], str]


@dataclass(frozen=True)
class Frame:
    """Where a plot is drawn: across from left to right, up from bottom to top."""

    x: Scale
    y: Scale

    @property
    def left(self) -> float:
        return self.x.start

    @property
    def right(self) -> float:
        return self.x.end

    @property
    def top(self) -> float:
        return self.y.end

    @property
    def bottom(self) -> float:
        return self.y.start


def picture(name: str, title: str, description: str, width: int, height: int, *parts: Markup | None) -> Markup:
    """Return a whole drawing that says what it shows to those who cannot see it. Names are unique on a page."""
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-desc"),
        *parts,
        viewBox=f"0 0 {width} {height}",
        role="img",
        class_="plot",
        id=name,
        aria_labelledby=f"{name}-title",
        aria_describedby=f"{name}-desc",
    )


def grid(frame: Frame, label: Label, caption: str, most: int = 5) -> Markup:
    """Return the lines and labels of the upward axis, and its caption above it, which tells of a logarithmic one."""
    lines = [
        joined(
            element("line", x1=frame.left, x2=frame.right, y1=frame.y(value), y2=frame.y(value), class_="grid"),
            element("text", label(value), x=frame.left - 8, y=frame.y(value) + 4, class_="end"),
        )
        for value in frame.y.ticks(most)
    ]
    words = caption + (", log scale" if frame.y.log else "")
    return joined(element("text", words, x=0, y=frame.top - 13, class_="caption over"), *lines)


def floor(frame: Frame, ticks: Iterable[float], label: Label, caption: str) -> Markup:
    """Return the line below a plot with its labels, leaving out those that would run into the one before."""
    parts = [element("line", x1=frame.left, x2=frame.right, y1=frame.bottom, y2=frame.bottom, class_="axis")]
    free = 0.0
    for value in ticks:
        at, half = frame.x(value), len(label(value)) * 3.4
        if at - half < free:
            continue
        free = at + half + 6
        parts.append(element("line", x1=at, x2=at, y1=frame.bottom, y2=frame.bottom + 4, class_="axis"))
        parts.append(
            element("text", label(value), x=min(at, frame.right + 10 - half), y=frame.bottom + 17, class_="middle")
        )
    parts.append(element("text", caption, x=frame.right, y=frame.bottom + 34, class_="caption end"))
    return joined(*parts)


def line(frame: Frame, points: Sequence[XY], kind: str, dots: bool | None = None) -> Markup:
    """Return a line through points, broken where one has no value. Few points are dotted, so that one alone shows."""
    paths = [
        element("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in part), class_=f"line {kind}")
        for part in _unbroken(frame, points)
        if len(part) > 1
    ]
    shown = len(points) <= 40 if dots is None else dots
    return joined(*paths, *(dot(frame, x, y, kind) for x, y in points if shown and y is not None))


def dot(frame: Frame, x: float, y: float, kind: str) -> Markup:
    return element("circle", cx=frame.x(x), cy=frame.y(y), r=3.2, class_=f"dot {kind}")


def band(frame: Frame, lower: Sequence[XY], upper: Sequence[XY], kind: str) -> Markup:
    """Return the area between two lines of the same points."""
    pairs = zip(_unbroken(frame, lower), _unbroken(frame, upper), strict=True)
    areas = ("L".join(f"{x:.1f} {y:.1f}" for x, y in [*below, *reversed(above)]) for below, above in pairs)
    return joined(*(element("path", d=f"M{area}Z", class_=f"band {kind}") for area in areas))


def bar(left: float, top: float, width: float, height: float, kind: str) -> Markup:
    return element("rect", x=left, y=top, width=max(width, 0.5), height=max(height, 0.0), class_=kind)


def mark(frame: Frame, value: float, label: str, kind: str, row: int = 0) -> Markup:
    """Return an upright line with a label at its top, on the side where there is room."""
    at = frame.x(value)
    side = "end" if at > (frame.left + frame.right) / 2 else "start"
    away = -5 if side == "end" else 5
    return joined(
        element("line", x1=at, x2=at, y1=frame.top, y2=frame.bottom, class_=f"mark {kind}"),
        element("text", label, x=at + away, y=frame.top + 11 + 15 * row, class_=f"label {kind} {side}"),
    )


def readings(frame: Frame, columns: Iterable[tuple[float, float, float, str]], bottom: float | None = None) -> Markup:
    """Return areas that show a reading above the plot while a pointer is over them.

    Each column is where it begins and ends, where its line stands, and its text.
    """
    low = frame.bottom if bottom is None else bottom
    return joined(
        *(
            element(
                "g",
                bar(frame.x(start), frame.top, frame.x(end) - frame.x(start), low - frame.top, "catch"),
                element("line", x1=frame.x(at), x2=frame.x(at), y1=frame.top, y2=low, class_="guide"),
                element("text", text, x=frame.right, y=frame.top - 13, class_="end"),
                class_="reading",
            )
            for start, end, at, text in columns
        )
    )


def _unbroken(frame: Frame, points: Sequence[XY]) -> list[list[tuple[float, float]]]:
    placed = [(frame.x(x), None if y is None else frame.y(y)) for x, y in points]
    runs = (list(run) for gap, run in groupby(placed, key=lambda each: each[1] is None) if not gap)
    return [[(x, y) for x, y in run if y is not None] for run in runs]
