"""What one run found, as frozen values: what runs return, reports render, and JSON files keep.

Times are in seconds and sizes in bytes throughout; renderers choose units.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cortex.loadtest.latency import Latency


@dataclass(frozen=True)
class Window:
    """One second of a run (the last may be shorter). A request belongs to the window in which it ended.

    ``latency`` is counted from the scheduled time; None when nothing was answered in it.
    """

    start: float
    """Seconds since the measurement began."""
    seconds: float
    requests: int
    inferences: int
    errors: int
    latency: Latency | None


@dataclass(frozen=True)
class Steady:
    """Whether the run settled: three windows in a row whose rate and median latency agree within 10 %."""

    reached: bool
    after: float | None
    """Seconds since the measurement began at which the first such window starts."""
    words: str
    """A sentence or two for people."""
    lasted: bool = True
    """Whether no later window had less than half of their rate, or more than double their median latency."""


@dataclass(frozen=True)
class Client:
    """What the tester itself did, so that it is not mistaken for the server."""

    processes: int
    threads: int
    """Of each process; one connection each."""
    cpu_seconds: float
    """Processor time of all processes while measuring."""
    busiest: float
    """The largest share of one core that a process used: 1.0 is a whole core, the most that a process can use."""
    cpu_per_request: float
    """Processor time that one request cost the tester, in seconds."""
    late: int
    """Requests that were sent more than a millisecond after they were due (open loop)."""
    late_share: float
    worst_lateness: float
    """How long after it was due the latest request was sent, in seconds."""
    warning: str | None
    """A sentence when the figures are of the tester rather than of the server, else None."""


@dataclass(frozen=True)
class Stage:
    """One stage of the server's own time, under the server's own name for it: decode, queue, predict, ..."""

    name: str
    mean: float
    """Seconds for each time that the stage was passed."""
    count: int
    source: str = ""
    """Which of the server's processes told it: its metrics URL, with the metric behind # where there are several."""


@dataclass(frozen=True)
class Server:
    """What is known of the server. Every part of it may be missing: an empty tuple, or None."""

    stages: tuple[Stage, ...] = ()
    """In the order in which a request passes them."""
    cpu_cores: float | None = None
    """Mean number of cores that its processes kept busy; None when it is not on this machine."""
    memory: int | None = None
    """Largest resident size of its processes together, in bytes."""
    processes: int | None = None


@dataclass(frozen=True)
class Cost:
    """What inferences cost at the measured rate."""

    price_per_hour: float | None
    per_million_inferences: float | None
    target_rate: float | None
    """Inferences per second that are wanted."""
    replicas: int | None
    """How many servers like the measured one that takes."""
    replicas_price_per_hour: float | None


@dataclass(frozen=True)
class Result:
    """One run. ``requests``, ``inferences`` and latencies are of answers that counted; all others are in ``errors``."""

    seconds: float
    """How long was measured: from the end of the warm-up to the end of the last request, and of the schedule of an open
    loop or the interruption.
    """
    requests: int
    inferences: int
    latency: Latency | None
    """From the time at which each request was *due* until its answer was read: what a user waits. The honest figure."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """By kind, most frequent first; kinds are phrases such as ``HTTP 503 Service Unavailable``, ``timeout``,
    ``wrong answer``."""
    interrupted: bool = False
    unanswered: int = 0
    """Requests that were due before an interruption, and had no answer soon after it. They are in no other figure."""
    uncorrected: Latency | None = None
    """From the time at which each request was *sent*. Equals ``latency`` in a closed loop; hides stalls in an open one.
    """
    sent_bytes: int = 0
    """Of request bodies."""
    received_bytes: int = 0
    """Of answer bodies."""
    windows: tuple[Window, ...] = ()
    steady: Steady | None = None
    client: Client | None = None
    server: Server | None = None
    cost: Cost | None = None
    started: str = ""
    """When the measurement began: ISO 8601 with the offset."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was run, as plain values in the order to show them: connections, endpoint, protocol, payload, load, ..."""
    warmup_seconds: float = 0.0
    """How long was sent before; nothing of it is counted."""

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def error_share(self) -> float:
        """Failed requests as a share of all, 0 to 1."""
        total = self.requests + self.failed
        return self.failed / total if total else 0.0

    @property
    def open_loop(self) -> bool:
        """Whether requests were due at times of a schedule, so that `uncorrected` says something of its own."""
        return bool(self.settings.get("open_loop"))

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def inferences_per_second(self) -> float:
        return self.inferences / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return every figure as plain values, rates included."""
        return asdict(self) | {
            "failed": self.failed,
            "error_share": self.error_share,
            "requests_per_second": self.requests_per_second,
            "inferences_per_second": self.inferences_per_second,
        }


def read_back(data: Mapping[str, Any]) -> Result:
    """Return the result that ``as_dict`` was called on. Raises KeyError, TypeError or ValueError for anything else."""
    known = {key: data[key] for key in Result.__dataclass_fields__ if key in data}  # an older report has fewer
    known["windows"] = tuple(_window(each) for each in known["windows"])
    for key in ("latency", "uncorrected"):
        known[key] = _latency(known[key])
    for key, kind in (("steady", Steady), ("client", Client), ("cost", Cost)):
        known[key] = kind(**known[key]) if known[key] else None
    known["server"] = _server(known["server"])
    return Result(**known)


_NUMBERS = {"start": float, "seconds": float, "requests": int, "inferences": int, "errors": int}


def _window(data: dict[str, Any]) -> Window:
    numbers = {name: kind(data[name]) for name, kind in _NUMBERS.items()}
    return Window(**{**data, **numbers, "latency": _latency(data["latency"])})


def _latency(data: dict[str, Any] | None) -> Latency | None:
    if not data:
        return None
    found = Latency(**data)
    next(found.values(), None)  # raises for what is no histogram: now, rather than after the run that is to be compared
    return found


def _server(data: dict[str, Any] | None) -> Server | None:
    return Server(**{**data, "stages": tuple(Stage(**stage) for stage in data["stages"])}) if data else None
