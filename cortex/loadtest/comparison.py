"""Whether a change is real: two runs, compared by resampling their seconds.

Requests of the same second are not independent of each other, so the bootstrap draws whole windows, with replacement,
and takes each figure anew from what it drew (a block bootstrap: Davison & Hinkley, "Bootstrap Methods and their
Application", 1997, section 8.2). The interval holds 95 % of the ratios.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cortex.errors import UserError
from cortex.loadtest.findings import Change, Comparison
from cortex.loadtest.results import Result, Window
from cortex.loadtest.units import share

_DRAWS = 2000
_FEWEST = 3  # windows, below which resampling says nothing
_INTERVAL = (2.5, 97.5)
_INFERENCES = "inferences/s"
_LATENCIES = {"latency mean": None, "latency p50": 50.0, "latency p90": 90.0, "latency p99": 99.0}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Sample:
    """The seconds of a run as arrays: ``counts[i, j]`` requests of window i took ``latencies[j]``."""

    seconds: Floats
    requests: Floats
    inferences: Floats
    latencies: Floats
    counts: Floats

    def draws(self, seed: int) -> Floats:
        """Return how often each window is drawn in each of the draws, [draws, windows]."""
        size = len(self.seconds)
        return np.random.default_rng(seed).multinomial(size, [1 / size] * size, _DRAWS).astype(np.float64)

    @property
    def batched(self) -> bool:
        """Whether there were other than one inference in each request."""
        return not np.array_equal(self.requests, self.inferences)

    def figures(self, draws: Floats) -> dict[str, Floats]:
        """Return each figure for each draw."""
        time, histograms = draws @ self.seconds, draws @ self.counts
        found = {"requests/s": draws @ self.requests / time, _INFERENCES: draws @ self.inferences / time}
        for name, percent in _LATENCIES.items():
            found[name] = self._mean(histograms) if percent is None else self._percentile(histograms, percent)
        return found

    def _mean(self, histograms: Floats) -> Floats:
        mean: Floats = histograms @ self.latencies / np.maximum(histograms.sum(axis=1), 1)
        return mean

    def _percentile(self, histograms: Floats, percent: float) -> Floats:
        summed = np.cumsum(histograms, axis=1)
        reached = summed >= summed[:, -1:] * percent / 100
        found: Floats = self.latencies[np.argmax(reached, axis=1)]
        return found


def compare(source: Path, before: Result, after: Result) -> Comparison:
    """Compare a run with an earlier one, from the file ``source``.

    Raises UserError when one of them has too few seconds, or no answers, to be compared.
    """
    samples = [_sample(f"{source}", before), _sample("this run", after)]
    draws = [sample.figures(sample.draws(seed)) for seed, sample in enumerate(samples)]
    usable = np.logical_and(*(each["requests/s"] > 0 for each in draws))  # without an answer there is no latency
    plain = [sample.figures(np.ones((1, len(sample.seconds)))) for sample in samples]
    told = [name for name in plain[0] if name != _INFERENCES or any(sample.batched for sample in samples)]
    ratios = {name: draws[1][name][usable] / draws[0][name][usable] for name in told}
    changes = tuple(
        _change(name, float(plain[0][name][0]), float(plain[1][name][0]), each) for name, each in ratios.items()
    )
    return Comparison(str(source), before, changes, _words(changes) + _errors(before, after))


def _sample(name: str, result: Result) -> _Sample:
    windows = [each for each in result.windows if each.seconds > 0.5]
    answered = sum(bool(each.requests) for each in windows)
    if answered < _FEWEST:
        raise UserError(
            f"{name}: {answered} seconds with answers are too few to compare; run {_FEWEST + 1} s or longer"
        )
    latencies, counts = _table(windows)
    return _Sample(
        np.array([each.seconds for each in windows]),
        np.array([float(each.requests) for each in windows]),
        np.array([float(each.inferences) for each in windows]),
        latencies,
        counts,
    )


def _table(windows: Sequence[Window]) -> tuple[Floats, Floats]:
    rows = [dict(each.latency.values()) if each.latency else {} for each in windows]
    latencies = sorted({value for row in rows for value in row})
    counts = [[float(row.get(value, 0)) for value in latencies] for row in rows]
    return np.array(latencies), np.array(counts)


def _change(name: str, before: float, after: float, ratios: Floats) -> Change:
    low, high = (float(each) for each in np.percentile(ratios, _INTERVAL))
    more = 1 if low > 1 else -1 if high < 1 else 0
    good = more if name.endswith("/s") else -more
    verdict = {1: "better", 0: "no change", -1: "worse"}[good]
    return Change(name, before, after, after / before, low, high, verdict)


def _words(changes: Sequence[Change]) -> str:
    parts = []
    for verdict in ("better", "worse"):
        names = [f"{change.name} {change.ratio - 1:+.1%}" for change in changes if change.verdict == verdict]
        if names:
            parts.append(f"{verdict.capitalize()} with 95 % confidence: {', '.join(names)}.")
    return " ".join(parts) or "No change that these runs could tell from chance."


def _errors(before: Result, after: Result) -> str:
    """Say how many requests failed in either run, since no figure has them; nothing where none did."""
    if not (before.failed or after.failed):
        return ""
    return f" Errors are in none of these figures: {share(before.error_share)} before, {share(after.error_share)} now."
