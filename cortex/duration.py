"""Go durations: ``100ms``, ``60s``, ``1h30m``."""

import re
from decimal import Decimal

_UNITS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "\N{MICRO SIGN}s": Decimal("1e-6"),
    "\N{GREEK SMALL LETTER MU}s": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20}"
_UNIT = "|".join(_UNITS)
_PART = re.compile(f"({_NUMBER})({_UNIT})")
_GRAMMAR = re.compile(f"([+-]?)(0|(?:(?:{_NUMBER})(?:{_UNIT}))+)")
_LONGEST = Decimal(2**63 - 1) * _UNITS["ns"]


def parse_duration(text: str) -> float:
    """Return the seconds that a duration stands for.

    Raises ValueError for any other text, with a message for a person. As in Go, 292 years is the longest.
    """
    match = _GRAMMAR.fullmatch(text)
    seconds = sum((Decimal(number) * _UNITS[unit] for number, unit in _PART.findall(text)), Decimal(0))
    if match is None or seconds > _LONGEST:
        raise ValueError("invalid duration, some valid examples are 100ms, 60s, 5m, 1h30m")
    return float(-seconds if match[1] == "-" else seconds)
