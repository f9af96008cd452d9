"""The words that more than one error message uses. Every message is one line, whatever a user wrote."""

import json
import math
from collections.abc import Iterable

NOT_NULL = "cannot be null (specify a value, or remove the key to use the default value)"
NOT_EMPTY = "cannot be empty"
_LONGEST = 100


def quote(value: object) -> str:
    """Return a value as yaml would have it on one line: text in double quotes, cut when it is long."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": ".inf", "-inf": "-.inf"}.get(str(value), ".nan")
    text = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]}...{text[-1]}"


def bare(text: str) -> str:
    """Return text on one line, without the quotes."""
    return quote(text)[1:-1]


def number(value: float) -> str:
    """Return a number without a fraction where it has none."""
    return quote(int(value) if value == int(value) else value)


def invalid_type(value: object, expected: str) -> str:
    """Say that a value is of another type than ``expected``."""
    return f"{quote(value)}: invalid type (expected {expected})"


def choice(options: Iterable[str]) -> str:
    """Return ``"a", "b", or "c"``."""
    *first, last = (quote(option) for option in options)
    if len(first) > 1:
        return f"{', '.join(first)}, or {last}"
    return " or ".join([*first, last])
