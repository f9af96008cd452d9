"""How long requests took: HDR histograms of three significant digits, from a microsecond to an hour.

Percentiles of many processes can be merged without keeping every value, and a histogram travels as a short string:
HdrHistogram's own V2 encoding, compressed, in base64, with microseconds as its unit. Other tools of that family
read it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from hdrh.histogram import HdrHistogram

_LONGEST = 3_600_000_000  # microseconds
_POINTS = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)


def histogram() -> HdrHistogram:
    """Return an empty histogram."""
    return HdrHistogram(1, _LONGEST, 3)


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
        return float(_decoded(self.hdr).get_value_at_percentile(percent)) / 1e6

    def values(self) -> Iterator[tuple[float, int]]:
        """Yield each latency that occurred, ascending, and how often: for histograms and percentile curves.

        Values are exact to three digits.
        """
        for bucket in _decoded(self.hdr).get_recorded_iterator():
            yield bucket.value_iterated_to / 1e6, bucket.count_at_value_iterated_to


def latency(recorded: HdrHistogram) -> Latency | None:
    """Sum up a histogram; None for one that is empty."""
    if not recorded.get_total_count():
        return None
    at = recorded.get_percentile_to_value_dict([*_POINTS, 100.0])
    p50, p75, p90, p95, p99, p999, p9999, most = (at[each] / 1e6 for each in (*_POINTS, 100.0))
    first = next(iter(recorded.get_recorded_iterator()))  # the histogram's own minimum is 0 once an empty one was added
    least = min(recorded.get_lowest_equivalent_value(first.value_iterated_to) / 1e6, most)
    mean, whole = recorded.get_mean_value() / 1e6, recorded.encode().decode()
    return Latency(recorded.get_total_count(), mean, least, p50, p75, p90, p95, p99, p999, p9999, max=most, hdr=whole)


@lru_cache(maxsize=256)
def _decoded(hdr: str) -> HdrHistogram:
    return HdrHistogram.decode(hdr)
