"""Where a server's time goes, by its own account: what its Prometheus metrics counted while it was measured.

Every histogram or summary with a label ``stage`` is read, of any server, in the unit that its name ends with. Of
TensorFlow Serving's own metrics, two stages are known by their names. A page may hold several such metrics, as that of
an API on this machine does: its own stages, and those of the model server, which are inside one of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from cortex.loadtest import pages
from cortex.loadtest.http import HTTP
from cortex.loadtest.redaction import redacted
from cortex.loadtest.results import Stage

_SECONDS = 2.0
_ORDER = ("decode", "preprocess", "queue", "predict", "model", "execute", "encode")
_TF_SERVING = {
    ":tensorflow:serving:batching_session:queuing_latency": "queue",
    ":tensorflow:serving:runtime_latency": "execute",
}
_UNITS = {"_microseconds": 1e-6, "_milliseconds": 1e-3, "_seconds": 1.0}


@dataclass(frozen=True)
class _Total:
    seconds: float = 0.0
    count: float = 0.0


Reading = Mapping[tuple[str, str], _Total]
"""What each stage came to so far, by its metric and its name; TensorFlow Serving's are of one metric without a name."""


def read(url: str, door: HTTP | None = None) -> Reading:
    """Return the stages that a metrics page tells of, as `pages.read` gets it: none when there is no such page."""
    try:
        return _totals(pages.read(url, door, _SECONDS).decode())
    except (OSError, ValueError, KeyError, IndexError):
        return {}  # the parser of prometheus_client raises these for what is no metrics page


def stages(before: Reading, after: Reading, url: str) -> list[Stage]:
    """Return what happened between two readings, in the order in which a request passes the stages."""
    found = []
    several = len({metric for metric, _ in after}) > 1
    for metric, name in sorted(after, key=_place):
        old, new = before.get((metric, name), _Total()), after[metric, name]
        count, seconds = new.count - old.count, new.seconds - old.seconds
        if count > 0 and math.isfinite(count) and math.isfinite(seconds):
            source = f"{redacted(url)}#{metric}" if several else redacted(url)
            found.append(Stage(name, max(seconds, 0.0) / count, round(count), source))
    return found


def _place(stage: tuple[str, str]) -> tuple[str, int, str]:
    metric, name = stage
    return metric, _ORDER.index(name) if name in _ORDER else len(_ORDER), name


def _totals(text: str) -> Reading:
    found: dict[tuple[str, str], _Total] = {}
    for family in text_string_to_metric_families(text):
        own = _TF_SERVING.get(family.name)
        for sample in family.samples:
            stage = sample.labels.get("stage") or own
            if not stage or not sample.name.endswith(("_sum", "_count")):
                continue
            metric = sample.name.rpartition("_")[0]
            key = ("" if own else metric, stage)
            total = found.get(key, _Total())
            if sample.name.endswith("_sum"):
                total = _Total(total.seconds + sample.value * _unit(metric), total.count)
            else:
                total = _Total(total.seconds, total.count + sample.value)
            found[key] = total
    return found


def _unit(name: str) -> float:
    if name in _TF_SERVING:
        return 1e-6
    return next((factor for ending, factor in _UNITS.items() if name.endswith(ending)), 1.0)
