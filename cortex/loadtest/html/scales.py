"""Where a value stands on a drawing, and which values its axis names."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A line from ``low`` at ``start`` to ``high`` at ``end``, in units of the drawing. ``low`` is less than ``high``.

    On a logarithmic one both are positive. Values outside are drawn at the nearer end.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = map(self._linear, (self.low, self.high, min(max(value, self.low), self.high)))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Return round values from ``low`` to ``high``, ``most`` of them or fewer."""
        return _decades(self.low, self.high, most) if self.log else _steps(self.low, self.high, most)

    def _linear(self, value: float) -> float:
        return math.log10(value) if self.log else value


def upward(highest: float, start: float, end: float) -> Scale:
    """Return a linear scale from zero to a round value above the highest one."""
    step = _step(max(highest, 1e-9) * 1.05, 5)
    return Scale(0.0, math.ceil(max(highest, 1e-9) * 1.05 / step) * step, start, end)


def around(values: list[float], start: float, end: float) -> Scale:
    """Return a scale from zero that holds all values, or a logarithmic one where they differ too much for that."""
    least, most = min(values), max(values)
    if least <= 0 or most / least < 20:
        return upward(most, start, end)
    return Scale(_down(least), _up(most), start, end, log=True)


def _step(span: float, most: int) -> float:
    """Return the least of 1, 2 or 5 times a power of ten that divides a span into so many parts or fewer."""
    power = float(10 ** math.floor(math.log10(span / most)))
    return next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most * (1 + 1e-9))


def _steps(low: float, high: float, most: int) -> list[float]:
    step = _step(high - low, most)
    first = math.ceil(low / step - 1e-9)
    return [each * step for each in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        kept = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(kept) <= most:
            break
    return kept


def _down(value: float) -> float:
    """Return the nearest 1, 2 or 5 times a power of ten at or below a value."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(power * factor for factor in (1, 2, 5) if power * factor <= value * (1 + 1e-9))


def _up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * (1 - 1e-9))
