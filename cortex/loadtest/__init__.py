"""Measure what a prediction API sustains: load, statistics and report, apart from any command line.

    from cortex.loadtest import HTTP, ClosedLoop, as_json, picture, run

    result = run(ClosedLoop(workers=2, threads=4, seconds=30), HTTP(endpoint), as_json([picture("cat.jpg")]))
    print(result.inferences_per_second, result.latency.p99)

How a request travels: `run` (crew.py) starts the processes of a load (worker.py), whose threads send a `Payload`
through a `Door` each time the `Load` says that one is due, and write into their `Journal` how it went. The journals of
all become one `Result` (results.py), which the reports put into words and pictures. sweep.py, search.py and
comparison.py find things out by several results.
"""

from cortex.loadtest.crew import run
from cortex.loadtest.doors import TLS, Connection, Door, Failed
from cortex.loadtest.findings import Report
from cortex.loadtest.http import HTTP
from cortex.loadtest.latency import Latency
from cortex.loadtest.loads import ClosedLoop, Load, OpenLoop
from cortex.loadtest.payloads import Payload, as_json, picture
from cortex.loadtest.progress import Progress
from cortex.loadtest.results import Result

__all__ = [
    "HTTP",
    "TLS",
    "ClosedLoop",
    "Connection",
    "Door",
    "Failed",
    "Latency",
    "Load",
    "OpenLoop",
    "Payload",
    "Progress",
    "Report",
    "Result",
    "as_json",
    "picture",
    "run",
]
