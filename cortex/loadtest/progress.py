"""How a run goes, while it does."""

import math
from dataclasses import dataclass

from cortex.loadtest.latency import latency
from cortex.loadtest.loads import Load
from cortex.loadtest.statistics import Journal


@dataclass(frozen=True)
class Progress:
    """How a run goes, for a live line. Rate and latencies are of about the last second."""

    stage: str
    """``warm-up`` or ``measuring``; a sweep or a search puts its own words before it."""
    left: float | None
    """Seconds that this stage still takes; None when the number of requests decides."""
    done: int
    """Requests that ended in this stage, well or not."""
    total: int | None
    """How many there will be; None when time decides."""
    rate: float
    """Answered requests per second."""
    inference_rate: float
    p50: float | None
    p99: float | None
    errors: int
    in_flight: int


def progress(load: Load, journal: Journal, began: float, now: float, in_flight: int) -> Progress:
    """Return how a load goes that began, with its warm-up, at ``began``."""
    warm = now < journal.start
    begin, length = (began, journal.start - began) if warm else (journal.start, load.seconds)
    second = math.floor(now - journal.start)
    recent = journal.tally((second - 1, second))
    shown = latency(recent.latencies)
    time_shown = min(now - journal.start - (second - 1), now - began)
    requests, errors = journal.ended(warm)
    return Progress(
        stage="warm-up" if warm else "measuring",
        left=None if length is None else max(begin + length - now, 0.0),
        done=requests + errors,
        total=None if warm else load.requests,
        rate=recent.requests / time_shown,
        inference_rate=recent.inferences / time_shown,
        p50=shown.p50 if shown else None,
        p99=shown.p99 if shown else None,
        errors=errors,
        in_flight=in_flight,
    )
