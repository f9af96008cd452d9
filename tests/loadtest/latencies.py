"""Latencies of given requests."""

from cortex.loadtest.latency import Latency, histogram, latency, record


def of(*seconds: float) -> Latency:
    """Return the latency of requests of which each took so long."""
    recorded = histogram()
    for each in seconds:
        record(recorded, each)
    summed = latency(recorded)
    assert summed
    return summed
