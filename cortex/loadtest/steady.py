"""Whether a run settled, and what can be said of it when it did not."""

import math
from collections.abc import Sequence

from cortex.loadtest.results import Steady, Window

AGREEMENT = 0.10
"""By how much of their mean the windows may be apart."""
_IN_A_ROW = 3
_ENOUGH = 100  # requests in a window for its figures to mean something: the rate of chance arrivals is then within 10 %


def steady(windows: Sequence[Window]) -> Steady:
    """Look for three windows in a row whose rate and median latency agree within 10 %.

    A window is as many seconds as it takes for a hundred requests.
    """
    whole = [each for each in windows if each.seconds >= 0.99]
    total = sum(each.requests for each in whole)
    if not total:
        return Steady(False, None, "Nothing was answered for a whole second, so a steady state cannot be told.")
    width = max(1, math.ceil(_ENOUGH * len(whole) / total))
    groups = [whole[i : i + width] for i in range(0, len(whole) - width + 1, width)]
    for i in range(len(groups) - _IN_A_ROW + 1):
        if _agree(groups[i : i + _IN_A_ROW]):
            after = i * width
            return Steady(True, float(after), f"Steady after {after} s: three windows of {width} s agree within 10 %.")
    if len(groups) < _IN_A_ROW:
        return Steady(
            False,
            None,
            f"Too short to tell whether it was steady: three windows of {width} s are needed, so run {3 * width + 1} s "
            "or longer.",
        )
    return Steady(
        False,
        None,
        f"Not steady: no three windows of {width} s agree within 10 % in rate and median latency. Run longer, add "
        "--warmup, or see what else the machine does; take the figures as they are with care.",
    )


def _agree(groups: Sequence[Sequence[Window]]) -> bool:
    return _close([_rate(group) for group in groups]) and _close([_median(group) for group in groups])


def _rate(group: Sequence[Window]) -> float:
    return sum(each.requests for each in group) / sum(each.seconds for each in group)


def _median(group: Sequence[Window]) -> float:
    """Return the mean of the windows' medians, weighted by their requests."""
    weighed = [(each.latency.p50, each.requests) for each in group if each.latency]
    total = sum(count for _, count in weighed)
    return sum(p50 * count for p50, count in weighed) / total if total else 0.0


def _close(figures: Sequence[float]) -> bool:
    mean = sum(figures) / len(figures)
    return max(figures) - min(figures) <= AGREEMENT * mean
