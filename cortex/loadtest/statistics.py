"""What happened: tallies that add up across threads, seconds and processes."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram

from cortex.loadtest.latency import histogram, latency, record
from cortex.loadtest.results import Window


class Tally:
    """Count what came of requests. Not safe to share between threads without a lock."""

    def __init__(self) -> None:
        self._open: HdrHistogram | None = histogram()
        self._closed = b""
        self.errors: Counter[str] = Counter()
        self.requests = 0
        """How many were answered."""
        self.inferences = 0

    @property
    def latencies(self) -> HdrHistogram:
        """How long they took."""
        if self._open is not None:
            return self._open
        opened = histogram()
        opened.decode_and_add(self._closed)
        return opened

    @property
    def failed(self) -> int:
        return self.errors.total()

    def success(self, latency: float, inferences: int) -> None:
        """Count one answered request: its latency in seconds, and what it stands for."""
        self._open = self.latencies
        record(self._open, latency)
        self.requests += 1
        self.inferences += inferences

    def failure(self, kind: str) -> None:
        """Count one request that failed. It is no inference, and its latency is in no percentile."""
        self.errors[kind] += 1

    def packed(self) -> dict[str, Any]:
        """Return everything as a small value that can travel between processes."""
        latencies = self._closed if self._open is None else self._open.encode()
        counts = {"requests": self.requests, "inferences": self.inferences}
        return {"latencies": latencies, "errors": dict(self.errors), **counts}

    def unpack(self, packed: Mapping[str, Any]) -> None:
        """Add what `packed` of another tally returned."""
        self._open = self.latencies
        self._open.decode_and_add(packed["latencies"])
        self.errors.update(packed["errors"])
        self.requests += packed["requests"]
        self.inferences += packed["inferences"]

    def close(self) -> None:
        """Take little memory, until something is added: an open histogram takes 190 kB."""
        if self._open is not None:
            self._closed = self._open.encode()
            self._open = None

    def window(self, start: float, seconds: float) -> Window:
        return Window(start, seconds, self.requests, self.inferences, self.failed, latency(self.latencies))


@dataclass
class Effort:
    """What it took the tester to send: sums and extremes over requests."""

    sent_bytes: int = 0
    received_bytes: int = 0
    late: int = 0
    """Requests sent more than a millisecond after they were due."""
    overslept: int = 0
    """Those of them whose connection was free in time: the tester itself was late."""
    worst_lateness: float = 0.0

    def add(self, other: "Effort") -> None:
        self.sent_bytes += other.sent_bytes
        self.received_bytes += other.received_bytes
        self.late += other.late
        self.overslept += other.overslept
        self.worst_lateness = max(self.worst_lateness, other.worst_lateness)


_LATE = 0.001  # seconds


@dataclass
class Journal:
    """The tallies of each second of a run, by number of the second, and what went into it.

    Seconds are counted from ``start``, on the clock of `time.monotonic`. Those before it are warm-up: they are kept for
    progress, and in no figure. Not safe to share without a lock.
    """

    start: float
    corrected: bool = False
    """Whether requests were due at set times, so that the time since they were sent is a figure of its own."""
    windows: dict[int, Tally] = field(default_factory=dict)
    sent: Tally = field(default_factory=Tally)
    """Latencies from the time of sending; empty unless ``corrected``."""
    effort: Effort = field(default_factory=Effort)
    last: float = 0.0
    scheduled: float = 0.0
    """Seconds that were measured in any case: a schedule is not over with its last request, nor is a run with its last
    answer when it is interrupted.
    """
    _recent: set[int] = field(default_factory=set)
    """The seconds that others still add to, most likely."""

    def success(self, due: float, sent: float, ended: float, inferences: int) -> None:
        """Count one answered request, by the times at which it was due, sent and answered."""
        self._window(due, ended).success(ended - due, inferences)
        if self.corrected and due >= self.start:
            self.sent.success(ended - sent, inferences)

    def failure(self, kind: str, due: float, ended: float) -> None:
        """Count one request that failed."""
        self._window(due, ended).failure(kind)

    def departure(self, due: float, sent: float, waited: bool, size: int, answer_size: int) -> None:
        """Note what a request took that was sent: ``waited`` tells that its connection was free when it was due."""
        if due < self.start:
            return
        effort = self.effort
        effort.sent_bytes += size
        effort.received_bytes += answer_size
        if self.corrected and sent - due > _LATE:
            effort.late += 1
            effort.overslept += waited
            effort.worst_lateness = max(effort.worst_lateness, sent - due)

    def packed(self) -> dict[str, Any]:
        """Return everything as a small value that can travel between processes."""
        return {
            "windows": {second: tally.packed() for second, tally in self.windows.items()},
            "sent": self.sent.packed() if self.corrected else None,
            "effort": self.effort,
            "last": self.last,
        }

    def add(self, packed: Mapping[str, Any]) -> None:
        """Add what `packed` of another journal with the same start returned."""
        for second, tally in packed["windows"].items():
            self.windows.setdefault(second, Tally()).unpack(tally)
            self._recent.add(second)
        for second in sorted(self._recent)[:-2]:
            self.windows[second].close()
            self._recent.remove(second)
        if packed["sent"]:
            self.sent.unpack(packed["sent"])
        self.effort.add(packed["effort"])
        self.last = max(self.last, packed["last"])

    def whole(self) -> Tally:
        """Return the tally of the whole measurement."""
        return self.tally(range(max(self.windows, default=-1) + 1))

    def tally(self, seconds: Iterable[int]) -> Tally:
        """Return the tally of some seconds."""
        whole = Tally()
        for second in seconds:
            if second in self.windows:
                whole.unpack(self.windows[second].packed())
        return whole

    def ended(self, warm: bool) -> tuple[int, int]:
        """Return how many requests of the warm-up, or of the measurement, were answered so far, and how many failed."""
        tallies = [tally for second, tally in self.windows.items() if (second < 0) == warm]
        return sum(each.requests for each in tallies), sum(each.failed for each in tallies)

    @property
    def seconds(self) -> float:
        """From the start to the end of the last request, and of what was measured in any case."""
        return max(self.last - self.start, self.scheduled)

    def series(self) -> tuple[Window, ...]:
        """Return every second of the measurement, also those in which nothing ended."""
        empty, count = Tally(), max(max(self.windows, default=-1) + 1, math.ceil(self.scheduled))
        return tuple(
            self.windows.get(second, empty).window(float(second), max(min(self.seconds - second, 1.0), 0.0))
            for second in range(count)
        )

    def _window(self, due: float, ended: float) -> Tally:
        """Return the tally for a request: the warm-up's, even if it ended after that, when it was due before."""
        second = math.floor(ended - self.start)
        if due >= self.start:
            self.last = max(self.last, ended)
        else:
            second = min(second, -1)
        tally = self.windows.get(second)
        if tally is None:
            tally = self.windows[second] = Tally()
        return tally
