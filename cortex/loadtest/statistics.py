"""What happened: tallies that add up across threads and processes, and the summary of them all.

Latencies go into HDR histograms of three significant digits, from a microsecond to an hour, so that percentiles of
many processes can be merged without keeping every value.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram

_LONGEST = 3_600_000_000  # microseconds


def _histogram() -> HdrHistogram:
    return HdrHistogram(1, _LONGEST, 3)


class Tally:
    """Count what came of requests. Not safe to share between threads without a lock."""

    def __init__(self) -> None:
        self._latencies = _histogram()
        self._errors: Counter[str] = Counter()
        self._inferences = 0
        self._last = 0.0

    def success(self, latency: float, inferences: int, now: float) -> None:
        """Count one answered request: its latency in seconds, what it stands for, and when it ended."""
        self._latencies.record_value(min(max(round(latency * 1e6), 1), _LONGEST))
        self._inferences += inferences
        self._last = max(self._last, now)

    def failure(self, kind: str, now: float) -> None:
        """Count one request that failed. It is no inference, and its latency is in no percentile."""
        self._errors[kind] += 1
        self._last = max(self._last, now)

    def packed(self) -> dict[str, Any]:
        """Return everything as a small value that can travel between processes."""
        return {
            "latencies": self._latencies.encode(),
            "errors": dict(self._errors),
            "inferences": self._inferences,
            "last": self._last,
        }

    def add(self, packed: Mapping[str, Any]) -> None:
        """Add what another tally counted."""
        self._latencies.decode_and_add(packed["latencies"])
        self._errors.update(packed["errors"])
        self._inferences += packed["inferences"]
        self._last = max(self._last, packed["last"])

    def summary(self, start: float, *, interrupted: bool = False) -> "Summary":
        """Sum up, counting time from ``start`` to the end of the last request."""
        return Summary(
            seconds=max(self._last - start, 0.0),
            requests=self._latencies.get_total_count(),
            inferences=self._inferences,
            latency=_latency(self._latencies),
            errors=dict(self._errors.most_common()),
            interrupted=interrupted,
        )


@dataclass(frozen=True)
class Latency:
    """How long the answered requests took, in seconds."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float


def _latency(histogram: HdrHistogram) -> Latency | None:
    if not histogram.get_total_count():
        return None
    at = histogram.get_percentile_to_value_dict([50, 90, 99, 100])
    return Latency(histogram.get_mean_value() / 1e6, *(at[p] / 1e6 for p in (50, 90, 99, 100)))


@dataclass(frozen=True)
class Summary:
    """What a load came to. ``requests`` and ``latency`` are of answered requests only; the others are in ``errors``."""

    seconds: float
    requests: int
    inferences: int
    latency: Latency | None
    errors: Mapping[str, int] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

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
            "requests_per_second": self.requests_per_second,
            "inferences_per_second": self.inferences_per_second,
        }
