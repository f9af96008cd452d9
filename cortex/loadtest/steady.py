"""Whether a run settled, and what can be said of it when it did not."""

import math
from collections.abc import Sequence

from cortex.loadtest.results import Steady, Window

_AGREEMENT = 0.10  # of their mean: by how much windows may be apart
_IN_A_ROW = 3
_FAR = 2  # times: what no run of a steady server does by chance with a hundred requests in a window
_ENOUGH = 100  # requests in a window for its figures to mean something: the rate of chance arrivals is then within 10 %


def steady(windows: Sequence[Window]) -> Steady:
    """Look for three windows in a row whose rate and median latency agree within 10 %, and for any later one far off.

    A window is as many seconds as it takes for a hundred requests.
    """
    whole = [each for each in windows if each.seconds >= 0.99]
    rate = _rate(windows)
    if not rate:
        return Steady(False, None, "Nothing was answered, so a steady state cannot be told.")
    width = max(1, math.ceil(_ENOUGH / rate))
    groups = [whole[i : i + width] for i in range(0, len(whole) - width + 1, width)]
    for i in range(len(groups) - _IN_A_ROW + 1):
        if _agree(groups[i : i + _IN_A_ROW]):
            return _settled(i, width, groups)
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


def _settled(first: int, width: int, groups: Sequence[Sequence[Window]]) -> Steady:
    """Say since when it was steady, and whether that lasted."""
    after = first * width
    words = f"Steady after {after} s: three windows of {width} s agree within 10 %"
    start, usual = first + _IN_A_ROW, groups[first : first + _IN_A_ROW]
    off = [i for i in range(start, len(groups)) if _far(groups[i], usual)]
    if not off:
        return Steady(True, float(after), f"{words}.")
    span = f"{off[0] * width} s to {(off[-1] + 1) * width} s"
    return Steady(
        True,
        float(after),
        f"{words}. It did not last: from {span}, {len(off)} of {len(groups) - start} later windows had less than "
        "half of that rate or more than double that median latency.",
        lasted=False,
    )


def _far(group: Sequence[Window], usual: Sequence[Sequence[Window]]) -> bool:
    windows = [each for one in usual for each in one]
    return _rate(group) < _rate(windows) / _FAR or _median(group) > _median(windows) * _FAR


def _agree(groups: Sequence[Sequence[Window]]) -> bool:
    rates, medians = [_rate(group) for group in groups], [_median(group) for group in groups]
    return min(rates) > 0 and _close(rates) and _close(medians)


def _rate(group: Sequence[Window]) -> float:
    seconds = sum(each.seconds for each in group)
    return sum(each.requests for each in group) / seconds if seconds else 0.0


def _median(group: Sequence[Window]) -> float:
    """Return the mean of the windows' medians, weighted by their requests."""
    weighed = [(each.latency.p50, each.requests) for each in group if each.latency]
    total = sum(count for _, count in weighed)
    return sum(p50 * count for p50, count in weighed) / total if total else 0.0


def _close(figures: Sequence[float]) -> bool:
    mean = sum(figures) / len(figures)
    return max(figures) - min(figures) <= _AGREEMENT * mean
