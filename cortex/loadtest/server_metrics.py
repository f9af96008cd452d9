"""Where a server's time goes, by its own account: what its Prometheus metrics counted while it was measured.

Every histogram or summary with a label ``stage`` is read, of any server, in the unit that its name ends with. Of
TensorFlow Serving's own metrics, two stages are known by their names.
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


Reading = Mapping[str, _Total]
"""What each stage came to so far."""


def read(url: str, door: HTTP | None = None) -> Reading:
    """Return the stages that a metrics page tells of, as `pages.read` gets it: none when there is no such page."""
    try:
        return _totals(pages.read(url, door, _SECONDS).decode())
    except (OSError, ValueError, KeyError, IndexError):
        return {}  # the parser of prometheus_client raises these for what is no metrics page


def stages(before: Reading, after: Reading, url: str) -> list[Stage]:
    """Return what happened between two readings, in the order in which a request passes the stages."""
    found = []
    for name in sorted(after, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)):
        old, new = before.get(name, _Total()), after[name]
        count, seconds = new.count - old.count, new.seconds - old.seconds
        if count > 0 and math.isfinite(count) and math.isfinite(seconds):
            found.append(Stage(name, max(seconds, 0.0) / count, round(count), redacted(url)))
    return found


def _totals(text: str) -> Reading:
    found: dict[str, _Total] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            stage = sample.labels.get("stage") or _TF_SERVING.get(family.name)
            if not stage or not sample.name.endswith(("_sum", "_count")):
                continue
            total = found.get(stage, _Total())
            if sample.name.endswith("_sum"):
                total = _Total(total.seconds + sample.value * _unit(family.name), total.count)
            else:
                total = _Total(total.seconds, total.count + sample.value)
            found[stage] = total
    return found


def _unit(name: str) -> float:
    if name in _TF_SERVING:
        return 1e-6
    return next((factor for ending, factor in _UNITS.items() if name.endswith(ending)), 1.0)
