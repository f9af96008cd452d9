"""Tables and the few formats of `cortex get`, as Cortex prints them."""

from collections.abc import Sequence

import click

_GAP = "   "


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns three spaces apart under a bold header (click drops the bold where nobody could see it)."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [_GAP.join(map(str.ljust, row, widths)).rstrip() for row in (header, *rows)]
    return "\n".join([bold(lines[0]), *lines[1:]])


def bold(text: str) -> str:
    return click.style(text, bold=True)


def age(seconds: float) -> str:
    """Say how long ago something was: ``12s``, ``5m``, ``3h`` or ``2d``."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def latency(milliseconds: float | None) -> str:
    """Say a mean latency in six digits: ``51.25 ms``, ``1.25 s``, or ``-`` when there is none."""
    if not milliseconds:
        return "-"
    return f"{milliseconds:.6g} ms" if milliseconds < 1_000 else f"{milliseconds / 1_000:.6g} s"


def count(number: int) -> str:
    return str(number) if number else "-"
