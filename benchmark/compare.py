"""A deployment beside the reference: the same requests, the same clients, turn and turn about."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Protocol

import psutil
from rich.table import Table

from benchmark import processes
from benchmark.processes import Memory
from cortex.errors import UserError
from cortex.loadtest import HTTP, ClosedLoop, Payload, Result, run

_WARM_UP_SECONDS = 3.0

Step = Callable[[str], None]


class System(Protocol):
    """Something that answers the request of the comparison at ``url``."""

    name: str
    url: str

    def processes(self) -> list[psutil.Process]: ...


@dataclass(frozen=True)
class Figures:
    """What one system did: throughput in requests/s and median latency in seconds, by number of clients."""

    name: str
    throughput: dict[int, float]
    latency: dict[int, float]
    runs: dict[int, list[float]]
    """The throughput of every repeat, of which ``throughput`` is the median."""
    memory: Memory


@dataclass(frozen=True)
class Comparison:
    measured: Figures
    reference: Figures

    def rows(self) -> list[tuple[str, float, str, str]]:
        """Return (what, ratio, measured, reference), with every ratio above 1 where the measured system is better."""
        ours, theirs = self.measured, self.reference
        rows = []
        for n in ours.throughput:
            a, b = ours.throughput[n], theirs.throughput[n]
            rows.append((f"throughput, {_clients(n)}", a / b, f"{a:.1f} req/s", f"{b:.1f} req/s"))
        for n in ours.latency:
            a, b = ours.latency[n], theirs.latency[n]
            rows.append((f"median latency, {_clients(n)}", b / a, f"{a * 1e3:.1f} ms", f"{b * 1e3:.1f} ms"))
        for kind in ("rss", "pss"):
            a, b = getattr(ours.memory, kind), getattr(theirs.memory, kind)
            rows.append((f"memory, {kind.upper()}", b / a, f"{a:.0f} MB", f"{b:.0f} MB"))
        return rows

    def table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("", "times better", self.measured.name, self.reference.name):
            table.add_column(heading, justify="left" if not heading else "right")
        for what, ratio, ours, theirs in self.rows():
            table.add_row(what, f"{ratio:.2f}", ours, theirs)
        return table

    def as_dict(self) -> dict[str, Any]:
        return {"times_better": {what: ratio for what, ratio, *_ in self.rows()}, **asdict(self)}


def compare(
    measured: System,
    reference: System,
    payload: Payload,
    clients: Sequence[int],
    seconds: float,
    repeats: int,
    step: Step,
) -> Comparison:
    """Load both systems in turn, each repeat at every number of clients, and take medians over the repeats.

    Raises UserError when a request failed: a system that answers with errors has no throughput to compare.
    """
    systems = (measured, reference)
    for system in systems:
        step(f"warming up {system.name}")
        _load(system, payload, max(clients), min(seconds, _WARM_UP_SECONDS))
    runs: dict[tuple[str, int], list[Result]] = {}
    for repeat in range(repeats):
        for n in clients:
            for system in systems:
                step(f"repeat {repeat + 1} of {repeats}: {_clients(n)} at {system.name}")
                runs.setdefault((system.name, n), []).append(_load(system, payload, n, seconds))
    return Comparison(*(_figures(system, {n: runs[system.name, n] for n in clients}) for system in systems))


def _load(system: System, payload: Payload, clients: int, seconds: float) -> Result:
    summary = run(ClosedLoop(threads=clients, seconds=seconds), HTTP(system.url), payload)
    if summary.interrupted:
        raise KeyboardInterrupt
    if summary.errors or not summary.latency:
        raise UserError(f"{system.name}: requests failed: {dict(summary.errors)}")
    return summary


def _figures(system: System, runs: dict[int, list[Result]]) -> Figures:
    rates = {n: [each.requests_per_second for each in summaries] for n, summaries in runs.items()}
    latencies = {n: [each.latency.p50 for each in summaries if each.latency] for n, summaries in runs.items()}
    return Figures(
        name=system.name,
        throughput={n: median(values) for n, values in rates.items()},
        latency={n: median(values) for n, values in latencies.items()},
        runs=rates,
        memory=processes.memory(system.processes()),
    )


def _clients(n: int) -> str:
    return f"{n} client" + ("s" if n > 1 else "")
