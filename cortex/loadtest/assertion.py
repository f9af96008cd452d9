"""Conditions that a run has to meet: ``p99<100ms,errors<0.1%``."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from cortex.errors import UserError
from cortex.loadtest.findings import Check
from cortex.loadtest.results import Result
from cortex.loadtest.units import number

_CONDITION = re.compile(
    r"(?P<name>p\d{1,2}(?:\.\d+)?|mean|max|min|errors|rate|inferences)\s*(?P<operator><=|>=|<|>)\s*"
    r"(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>us|ms|s|%|/s)?"
)
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_EXAMPLE = "it looks like p99<100ms,errors<0.1%,rate>50 (p50 to p99.99, mean, min, max, errors, rate, inferences)"


@dataclass(frozen=True)
class Condition:
    """One of them. ``unit`` is part of what it says: errors are counted, or a share when it is ``%``."""

    text: str
    name: str
    operator: str
    value: float
    unit: str

    def check(self, result: Result) -> Check:
        """Compare. A latency that does not exist, because nothing was answered, meets no condition."""
        actual = _actual(self, result)
        if actual is None:
            return Check(self.text, "nothing was answered", False)
        return Check(self.text, f"{number(actual)}{self.unit}", _OPERATORS[self.operator](actual, self.value))


def conditions(text: str) -> list[Condition]:
    """Read conditions, separated by commas. Raises UserError, naming the one that cannot be read."""
    return [_condition(each.strip()) for each in text.split(",")]


def _condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if not match:
        raise UserError(f"{text}: not a condition; {_EXAMPLE}")
    name, unit = match["name"], match["unit"] or ""
    allowed = {"errors": ("", "%"), "rate": ("", "/s"), "inferences": ("", "/s")}.get(name, tuple(_TIMES))
    if unit not in allowed:
        raise UserError(f"{text}: {name} needs one of the units {', '.join(each or 'none' for each in allowed)}")
    return Condition(text, name, match["operator"], float(match["value"]), unit)


def _actual(condition: Condition, result: Result) -> float | None:
    """Return what was measured, in the unit of the condition."""
    if condition.name == "errors":
        return result.error_share * 100 if condition.unit == "%" else float(result.failed)
    if condition.name == "rate":
        return result.requests_per_second
    if condition.name == "inferences":
        return result.inferences_per_second
    if result.latency is None:
        return None
    known = {"mean": result.latency.mean, "min": result.latency.min, "max": result.latency.max}
    name = condition.name
    return (known[name] if name in known else result.latency.at(float(name[1:]))) / _TIMES[condition.unit]
