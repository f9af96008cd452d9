"""How large a batch may be, and how long to wait for it, when nobody has said so: docs/decisions/0006.

Two things are measured, and forgotten. Rows arrive every ``gap`` seconds, on an average. A run of n rows takes
``fixed + n * each`` seconds (a line through the last runs: least squares). Then

- *size*: a request may have to wait for a run that has begun, and then for its own. So a run gets half of the latency
  bound: the size is the largest n with ``fixed + n * each <= bound / 2``, and at least 1. A line takes two sizes: where
  the last runs all had the same, and fitted, one row more is tried;
- *wait*: joining one more row saves ``fixed`` and costs the wait for it. So a batch waits for others only while rows
  arrive faster than that (``gap < fixed``), and then for ``fixed`` seconds, or half of the bound if that is less.

Where joining saves nothing, as where one row keeps every core busy, ``fixed`` is near 0: nothing ever waits, and rows
are joined only when they had to queue anyway.
"""

from collections import deque
from collections.abc import Collection
from statistics import fmean

_RUNS = 40
"""How many of the last runs count."""
_MEMORY = 0.95
"""Weight of the past for each new arrival: about the last twenty count."""
_LONGEST_GAP = 1.0
_LARGEST = 2**31 - 1


class Pace:
    """Measure a signature, and choose for it. The caller serializes the calls, and limits the size. All in seconds."""

    def __init__(self, bound: float) -> None:
        self._half = bound / 2
        self._gap = _LONGEST_GAP
        self._last: float | None = None
        self._runs: deque[tuple[int, float]] = deque(maxlen=_RUNS)
        self._fixed = self._each = 0.0
        self._least = 1
        self.size = 1
        self.wait = 0.0

    def arrived(self, rows: int, now: float) -> None:
        """Note that a request has come."""
        if self._last is not None:
            gap = min(_LONGEST_GAP, max(0.0, now - self._last) / rows)
            self._gap = _MEMORY * self._gap + (1 - _MEMORY) * gap
        self._last = now
        self._choose()

    def ran(self, rows: int, seconds: float) -> None:
        """Note what a run took."""
        self._runs.append((rows, seconds))
        self._fixed, self._each = _line(self._runs)
        fits = self._fixed + rows * self._each <= self._half
        self._least = rows + 1 if fits and {rows} == {size for size, _ in self._runs} else 1
        self._choose()

    def _choose(self) -> None:
        if not self._runs:
            return
        room = self._half - self._fixed
        self.size = max(self._least, int(min(_LARGEST, room / self._each))) if self._each > 0 else _LARGEST
        self.wait = min(self._fixed, self._half) if self._gap < self._fixed else 0.0


def _line(runs: Collection[tuple[int, float]]) -> tuple[float, float]:
    """Return the time of a run, and of each row in it; with one size seen, all of it is the rows'."""
    rows, seconds = (fmean(each) for each in zip(*runs, strict=True))
    spread = sum((n - rows) ** 2 for n, _ in runs)
    if not spread:
        return 0.0, seconds / rows
    each = max(0.0, sum((n - rows) * (took - seconds) for n, took in runs) / spread)
    return max(0.0, seconds - each * rows), each
