"""How large a batch may be, and how long to wait for it, when nobody has said so: docs/decisions/0006.

Two things are measured, each as an average that forgets. Rows arrive every ``gap`` seconds. A run of n rows takes
``fixed + n * each`` seconds (a line through the runs seen: least squares). Then

- *size*: a request may have to wait for a run that has begun, and then for its own. So a run gets half of the latency
  bound: the size is the largest n with ``fixed + n * each <= bound / 2``, and at least 1;
- *wait*: joining one more row saves ``fixed`` and costs the wait for it. So a batch waits for others only while rows
  arrive faster than that (``gap < fixed``), and then for ``fixed`` seconds, or half of the bound if that is less.

Where joining saves nothing, as where one row keeps every core busy, ``fixed`` is near 0: nothing ever waits, and rows
are joined only when they had to queue anyway.
"""

_MEMORY = 0.95
"""Weight of the past for each new run or arrival: about the last twenty count."""
_LONGEST_GAP = 1.0
_LARGEST = 2**31 - 1


class Pace:
    """Measure one model, and choose for it. The caller serializes the calls, and limits the size. Times are seconds."""

    def __init__(self, bound: float) -> None:
        self._half = bound / 2
        self._gap = _LONGEST_GAP
        self._last: float | None = None
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
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
        self._weight = _MEMORY * self._weight + 1.0
        self._x = _MEMORY * self._x + rows
        self._y = _MEMORY * self._y + seconds
        self._xx = _MEMORY * self._xx + rows**2
        self._xy = _MEMORY * self._xy + rows * seconds
        self._choose()

    def _choose(self) -> None:
        if not self._weight:
            return
        fixed, each = self._line()
        room = self._half - fixed
        self.size = max(1, int(min(_LARGEST, room / each))) if each > 0 else _LARGEST
        self.wait = min(fixed, self._half) if self._gap < fixed else 0.0

    def _line(self) -> tuple[float, float]:
        """Return the time of a run, and of each row in it; with one size seen, all of it is the rows'."""
        rows, seconds = self._x / self._weight, self._y / self._weight
        spread = self._xx / self._weight - rows**2
        if spread < 1e-9 * rows**2:
            return 0.0, seconds / rows
        each = max(0.0, (self._xy / self._weight - rows * seconds) / spread)
        return max(0.0, seconds - each * rows), each
