"""Figures as people read them: a number, a space, a unit. The same words in the live line, the table and the pages."""

from collections.abc import Mapping, Sequence
from typing import Any

NONE = "–"  # noqa: RUF001  # an en dash stands where there is no figure


def number(value: float) -> str:
    """Return a number with three digits or more, in groups of thousands: ``0.012``, ``3.14``, ``41.2``, ``2,531``."""
    if value == int(value) or abs(value) >= 999.95:
        return f"{value:,.0f}"
    if abs(value) < 0.995:
        return f"{value:.3g}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def duration(seconds: float | None) -> str:
    """Return a latency in the unit that suits its size: ``85.0 µs``, ``41.2 ms``, ``2.05 s``."""
    if seconds is None:
        return NONE
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if abs(seconds) * factor < 999.5:
            return f"{_three(seconds * factor)} {unit}" if seconds else "0 s"
    return f"{_three(seconds)} s"


def tick(seconds: float) -> str:
    """Return a round latency with no digit more than it needs: ``250 µs``, ``30 ms``, ``1 s``."""
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if 0 < abs(seconds) * factor < 999.5:
            return f"{seconds * factor:.4g} {unit}"
    return f"{seconds:.4g} s"


def clock(seconds: float) -> str:
    """Return how long something takes: ``7 s``, ``2:05 min``, ``1:02:05 h``."""
    whole = max(round(seconds), 0)
    minutes, rest = divmod(whole, 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


def share(part: float) -> str:
    """Return a share, 0 to 1, in percent: ``0 %``, ``0.012 %``, ``12.5 %``. Never 0 % or 100 % for what is not."""
    percent = part * 100
    if percent in (0, 100):
        return f"{percent:.0f} %"
    if percent > 99.9:
        return "> 99.9 %"
    return f"{percent:.1f} %" if percent >= 1 else f"{percent:.2g} %" if percent >= 1e-3 else "< 0.001 %"


def size(count: float) -> str:
    """Return a number of bytes in decimal units: ``512 B``, ``1.2 kB``, ``490 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{_three(count)} {unit}"
        count /= 1000
    return f"{_three(count)} TB"


def money(amount: float) -> str:
    """Return an amount without its currency, which is that of ``--price-per-hour``."""
    return f"{amount:,.2f}" if amount >= 0.1 else f"{amount:.2g}"


def text(value: Any) -> str:
    """Return a setting as text: ``yes`` for True, lists and mappings spelled out, nothing that moves a cursor."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{text(key)}: {text(each)}" for key, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(text, value))
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(value))


def _three(value: float) -> str:
    """Return three digits, however many of them are behind the point."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
