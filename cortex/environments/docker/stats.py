"""What the workers of an API answered so far, asked of one of them for all: they see each other's sockets."""

import re
from collections.abc import Sequence

from cortex.environments.base import NetworkStats
from cortex.environments.docker.condition import is_worker
from cortex.environments.docker.engine import Container, Engine

_COUNT = re.compile(r'^(cortex_\w+?)(?:\{status="(\w+)"\})? ([0-9.e+]+)$', re.MULTILINE)


def network_stats(engine: Engine, containers: Sequence[Container]) -> NetworkStats:
    """Return the sum over all workers that answer; nothing is counted where none does."""
    workers = [row for row in containers if row.running and is_worker(row)]
    if not workers:
        return NetworkStats()
    addresses = [row.labels["cortex.listen"] for row in workers]
    _, text = engine.ask(workers[0].id, "python", "/opt/cortex/probe.py", "/metrics", *addresses)
    return parse(text)


def parse(text: str) -> NetworkStats:
    """Sum the counts in the answers of several workers, in Prometheus' text form."""
    sums: dict[tuple[str, str], float] = {}
    for name, status, value in _COUNT.findall(text):
        sums[name, status] = sums.get((name, status), 0.0) + float(value)
    return NetworkStats.of(sums)
