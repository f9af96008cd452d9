"""Measure what a prediction API sustains: load, statistics and report, apart from any command line.

    from cortex.loadtest import HTTP, ClosedLoop, images_json, picture, run

    summary = run(ClosedLoop(workers=2, threads=4, seconds=30), HTTP(endpoint), images_json(picture("cat.jpg")))
    print(summary.inferences_per_second, summary.latency.p99)

How a request travels: `run` (crew.py) starts the processes of a load (worker.py), whose threads send a `Payload`
through a `Door` each time the `Load` says that one is due, and tell their `Tally` how it went. The tallies of all are
one `Summary`, which report.py puts into words.
"""

from cortex.loadtest.crew import run
from cortex.loadtest.doors import HTTP, Connection, Door, Failed
from cortex.loadtest.loads import ClosedLoop, Load
from cortex.loadtest.payloads import Payload, image_form, images_json, picture
from cortex.loadtest.statistics import Latency, Summary, Tally

__all__ = [
    "HTTP",
    "ClosedLoop",
    "Connection",
    "Door",
    "Failed",
    "Latency",
    "Load",
    "Payload",
    "Summary",
    "Tally",
    "image_form",
    "images_json",
    "picture",
    "run",
]
