"""The same load at several sizes, and the size that is worth having."""

import math
from collections.abc import Callable, Sequence

from cortex.errors import UserError
from cortex.loadtest.findings import Point, Sweep
from cortex.loadtest.results import Result
from cortex.loadtest.units import duration, number

CONNECTIONS, RATE = "connections", "rate"
_UNITS = {CONNECTIONS: "connections", RATE: "requests/s"}


def values(text: str) -> list[float]:
    """Read what ``--sweep`` says: ``1,2,4,8``, and ``..`` goes on to an end as the two values before began.

    ``1,2,4..64`` doubles, ``10,20,30..100`` adds ten, and ``1..8`` adds one. Two values whose way is not clear, as in
    ``10,20..100``, add when doubling does not meet the end. Raises UserError for anything else.
    """
    try:
        found = _values(text)
    except ValueError:
        found = []
    if not found or min(found) <= 0 or sorted(set(found)) != found:
        raise UserError(f"{text}: not a sweep; it looks like 1,2,4,8 or 1,2,4..64 and ascends")
    return found


def _values(text: str) -> list[float]:
    head, dots, end = text.partition("..")
    begun = [_size(each) for each in head.split(",")]
    if not dots:
        return begun
    if _size(end) < begun[-1]:
        raise ValueError(text)
    return [*begun, *_rest(begun, _size(end))]


def _size(text: str) -> float:
    size = float(text)
    if not math.isfinite(size):
        raise ValueError(text)
    return size


def _rest(begun: Sequence[float], end: float) -> list[float]:
    if len(begun) == 1:
        return _progression(begun[-1], end, lambda value: value + 1)
    before, last = begun[-2:]
    factor, step = last / before, last - before
    multiplied = _progression(last, end, lambda value: value * factor)
    added = _progression(last, end, lambda value: value + step)
    if len(begun) > 2:
        return multiplied if before / begun[-3] == factor else added
    return added if added[-1:] == [end] and [end] != multiplied[-1:] else multiplied


def _progression(last: float, end: float, following: Callable[[float], float]) -> list[float]:
    """Return the values up to ``end``; nothing where they would not ascend, and at most a thousand."""
    found: list[float] = []
    while last < (value := following(last)) <= end and len(found) < 1000:
        found.append(value)
        last = value
    return found


def sweep(over: str, sizes: Sequence[float], measure: Callable[[float], Result]) -> Sweep:
    """Measure each size, ascending. An interrupted one is the last.

    KeyboardInterrupt from a run that had measured nothing yet is raised when there was none before.
    """
    points: list[Point] = []
    try:
        for size in sizes:
            points.append(Point(size, measure(size)))
            if points[-1].result.interrupted:
                break
    except KeyboardInterrupt:
        if not points:
            raise
    return judged(over, points)


def judged(over: str, points: Sequence[Point]) -> Sweep:
    """Name the knee: the point with the most *power*, throughput divided by latency.

    Up to it throughput grows faster than latency, after it latency grows faster (Kleinrock, "Power and deterministic
    rules of thumb for probabilistic problems in computer communications", ICC 1979). At the last point it is not known
    whether more would not be better still, so that one is no knee.
    """
    power = [_power(point.result) for point in points]
    if not any(power):
        return Sweep(over, tuple(points), None, "No requests were answered, so there is no knee.")
    best = power.index(max(power))
    where = f"{points[best].value:g} {_UNITS[over]}"
    if best == len(points) - 1:
        words = f"The knee is not reached: throughput still grows faster than latency at {where}. Sweep further."
        return Sweep(over, tuple(points), None, words)
    result, last = points[best].result, points[-1].result
    assert result.latency
    gained = last.requests_per_second / result.requests_per_second - 1
    longer = f"{last.latency.p50 / result.latency.p50:.1f} times the latency" if last.latency else "no answers"
    rate, median = number(result.requests_per_second), duration(result.latency.p50)
    words = (
        f"The knee is at {where}: {rate} requests/s at p50 {median}. "
        f"{points[-1].value:g} {_UNITS[over]} bring {gained:+.0%} throughput for {longer}."
    )
    if last.client and last.client.warning:  # then it need not be the server's knee
        words += f" At {points[-1].value:g} {_UNITS[over]}: {last.client.warning}"
    return Sweep(over, tuple(points), best, words)


def _power(result: Result) -> float:
    return result.requests_per_second / result.latency.p50 if result.latency else 0.0
