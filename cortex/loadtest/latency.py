"""How long requests took: HDR histograms of three significant digits, from a microsecond to an hour.

Percentiles of many processes can be merged without keeping every value, and a histogram travels as a short string:
HdrHistogram's own V2 encoding, compressed, in base64, with microseconds as its unit. Other tools of that family
read it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

_LONGEST = 3_600_000_000  # microseconds
_SHAPE = (1, _LONGEST, 3)
_POINTS = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0)


def histogram() -> HdrHistogram:
    """Return an empty histogram."""
    return HdrHistogram(*_SHAPE)


def record(into: HdrHistogram, seconds: float) -> None:
    """Count one latency. One outside the range is counted at its edge, not dropped."""
    into.record_value(min(max(round(seconds * 1e6), 1), _LONGEST))


@dataclass(frozen=True)
class Latency:
    """How long the answered requests took, in seconds."""

    count: int
    mean: float
    min: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    p999: float
    """99.9 %."""
    p9999: float
    """99.99 %."""
    max: float
    hdr: str
    """The whole histogram."""

    def at(self, percent: float) -> float:
        """Return the latency that this share of the requests, 0 to 100, did not exceed."""
        return _counted(self.hdr).at(percent)

    def values(self) -> Iterator[tuple[float, int]]:
        """Yield each latency that occurred, ascending, and how often: for histograms and percentile curves.

        Values are exact to three digits. Raises ValueError when ``hdr`` is no histogram of ours.
        """
        counted = _counted(self.hdr)
        yield from zip((counted.highest / 1e6).tolist(), counted.counts.tolist(), strict=True)


def latency(recorded: HdrHistogram) -> Latency | None:
    """Sum up a histogram; None for one that is empty."""
    if not recorded.get_total_count():
        return None
    counted = _Counted.of(recorded)
    p50, p75, p90, p95, p99, p999, p9999, most = map(counted.at, _POINTS)
    count, least, whole = counted.total, counted.least, recorded.encode().decode()
    return Latency(count, counted.mean, least, p50, p75, p90, p95, p99, p999, p9999, most, whole)


@dataclass(frozen=True)
class _Counted:
    """The buckets of a histogram that hold something, as arrays: HdrHistogram's own ways step through all 23,552."""

    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]
    """The ends of each bucket, in microseconds."""
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, recorded: HdrHistogram) -> "_Counted":
        counts = np.ctypeslib.as_array(recorded.counts).astype(np.int64)
        [used] = np.nonzero(counts)
        edges = _edges()
        return cls(edges[used], edges[used + 1] - 1, counts[used])

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        middle = self.lowest + (self.highest - self.lowest + 1) // 2
        return float(middle @ self.counts) / self.total / 1e6

    @property
    def least(self) -> float:
        return float(self.lowest[0]) / 1e6

    def at(self, percent: float) -> float:
        """Return the least latency, in seconds, that at least this share of the requests did not exceed."""
        rank = max(math.ceil(round(percent * self.total / 100, 6)), 1)
        return float(self.highest[np.searchsorted(np.cumsum(self.counts), rank)]) / 1e6


@lru_cache(maxsize=1)
def _edges() -> NDArray[np.int64]:
    """Return the lowest value of each bucket, in microseconds, and the one after the last."""
    empty = histogram()
    return np.array([empty.get_value_from_index(index) for index in range(empty.counts_len + 1)], np.int64)


@lru_cache(maxsize=256)
def _counted(hdr: str) -> _Counted:
    """Decode a histogram. Raises ValueError for what is none, or none of this range and precision."""
    try:
        decoded = HdrHistogram.decode(hdr)
    except Exception as error:  # hdrh's own kinds, and those of base64, zlib and ctypes, have no base in common
        raise ValueError(f"not a histogram: {error}") from error
    if (decoded.lowest_trackable_value, decoded.highest_trackable_value, decoded.significant_figures) != _SHAPE:
        raise ValueError("not a histogram of microseconds up to an hour, in three digits")
    return _Counted.of(decoded)
