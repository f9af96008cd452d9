"""The highest rate that holds a bound on latency."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from cortex.errors import UserError
from cortex.loadtest.findings import Objective, Search, Trial
from cortex.loadtest.results import Result
from cortex.loadtest.units import duration, number

_BOUND = re.compile(r"p(?P<percentile>\d{1,2}(?:\.\d+)?)=(?P<value>\d+(?:\.\d+)?)(?P<unit>us|ms|s)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_PRECISION = 0.02  # of the rate: when the search ends
_KEPT_UP = 0.98  # of the rate: a server that answers at less than that piles up work, however slowly
_ERRORS = 0.001  # of all requests: what is no failure of the bound
_GROWTH = 1.2  # from a rate that held to the next one, until one does not
_FEWEST = 0.01  # of the first guess: where the search gives up
_CONFIRMATIONS = 4

Measure = Callable[[float, bool], Result]
"""Run an open loop at a rate, longer when the flag says so."""


def objective(text: str) -> Objective:
    """Read a bound such as ``p99=100ms``. Raises UserError for anything else."""
    match = _BOUND.fullmatch(text.replace(" ", ""))
    if not match or not float(match["value"]) or not float(match["percentile"]):
        raise UserError(f"{text}: not a bound on latency; it looks like p99=100ms")
    return Objective(float(match["percentile"]), float(match["value"]) * _UNITS[match["unit"]])


def search(bound: Objective, capacity: float, measure: Measure) -> Search:
    """Search by halving, then confirm the rate by a longer run, going down a little whenever that does not hold.

    ``capacity`` is a first guess of what the server answers at most, such as a closed loop gets from it; the search
    goes beyond it for as long as rates hold.
    """
    finder = _Finder(bound, measure)
    try:
        rate = finder.find(capacity)
    except _Interrupted:
        best = max((trial.rate for trial in finder.trials if trial.held), default=None)
        words = "Interrupted before the rate was confirmed" + (f"; {number(best)} requests/s held." if best else ".")
        return Search(bound, tuple(finder.trials), None, words)
    last, named = finder.trials[-1], f"{bound.name} at {duration(bound.bound)}"
    if rate is None:
        longer = " in a longer run" if any(trial.held for trial in finder.trials) else ""
        words = f"No rate held {named}{longer}. At {number(last.rate)} requests/s: {last.why}."
    else:
        words = (
            f"The highest rate that holds {named} is {number(rate)} requests/s, confirmed by a longer run: {last.why}."
            f"{_beyond(finder.trials, rate)}"
        )
    return Search(bound, tuple(finder.trials), rate, words)


def _beyond(trials: Sequence[Trial], rate: float) -> str:
    """Say what the tester warned of where the search ended: what failed there need not have been the server."""
    end = min((trial for trial in trials if not trial.held and trial.rate > rate), key=lambda trial: trial.rate)
    client = end.result.client
    return f" At {number(end.rate)} requests/s: {client.warning}" if client and client.warning else ""


def confirmed(found: Search) -> Result | None:
    """Return the run to report: the one that confirmed the rate, or else the last; None when there was none."""
    return found.trials[-1].result if found.trials else None


class _Interrupted(Exception):
    pass


class _Finder:
    def __init__(self, bound: Objective, measure: Measure) -> None:
        self._bound = bound
        self._measure = measure
        self.trials: list[Trial] = []

    def find(self, capacity: float) -> float | None:
        """Halve until the rate is known, and then try the lowest one that failed again: chance only makes slower."""
        low, high, sure = 0.0, math.inf, False
        rate = capacity * 0.9
        while rate >= capacity * _FEWEST and not sure:
            if self._holds(rate, longer=False):
                low, high = rate, math.inf if rate >= high else high
            else:
                sure, high = rate == high, rate
            settled = high < math.inf and high - low <= _PRECISION * high
            rate = high if settled else low * _GROWTH if high == math.inf else (low + high) / 2
        return self._confirm(low) if low else None

    def _confirm(self, rate: float) -> float | None:
        for _ in range(_CONFIRMATIONS):
            if self._holds(rate, longer=True):
                return rate
            rate *= 1 - _PRECISION
        return None

    def _holds(self, rate: float, longer: bool) -> bool:
        try:
            result = self._measure(rate, longer)
        except KeyboardInterrupt:
            raise _Interrupted from None
        if result.interrupted:
            raise _Interrupted
        trial = judged(self._bound, rate, result)
        self.trials.append(trial)
        return trial.held


def judged(bound: Objective, rate: float, result: Result) -> Trial:
    """Tell whether a run held the bound: in latency, without errors, and without falling behind."""
    trial = Trial(rate, False, "nothing was answered", result)
    if result.latency is None:
        return trial
    reached = result.latency.at(bound.percentile)
    if result.error_share > _ERRORS:
        return replace(trial, why=f"{result.error_share:.1%} errors")
    if reached > bound.bound:
        return replace(trial, why=f"{bound.name} {duration(reached)}")
    answering = result.seconds - result.latency.p50  # until the first answers come, no server is behind
    if result.requests < _KEPT_UP * rate * answering:
        return replace(trial, why=f"only {number(result.requests / answering)} requests/s were answered")
    return replace(trial, held=True, why=f"{bound.name} {duration(reached)}")
