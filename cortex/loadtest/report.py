"""What a person reads: a line while it runs, and a table at the end."""

from rich.table import Table

from cortex.loadtest.loads import Load
from cortex.loadtest.statistics import Summary


def line(load: Load, summary: Summary) -> str:
    """Return how far a load has come and how it goes, in one line."""
    if load.seconds is not None:
        done = f"{min(summary.seconds, load.seconds):.0f} of {load.seconds:g} s"
    else:
        done = f"{summary.requests + summary.failed} of {load.requests} requests"
    p50 = f", p50 {_milliseconds(summary.latency.p50)}" if summary.latency else ""
    return f"{done}: {summary.inferences_per_second:.1f} inferences/s{p50}, {summary.failed} errors"


def table(summary: Summary) -> Table:
    """Return throughput, latency and errors as a table of two columns."""
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    grid.add_column(style="bold")
    grid.add_column()
    for name, value in _rows(summary):
        grid.add_row(name, value)
    return grid


def _rows(summary: Summary) -> list[tuple[str, str]]:
    rows = [
        ("duration", f"{summary.seconds:.1f} s" + (" (interrupted)" if summary.interrupted else "")),
        ("requests answered", str(summary.requests)),
        ("throughput", f"{summary.requests_per_second:.1f} requests/s"),
        ("", f"{summary.inferences_per_second:.1f} inferences/s"),
    ]
    if latency := summary.latency:
        names = {"mean": latency.mean, "p50": latency.p50, "p90": latency.p90, "p99": latency.p99, "max": latency.max}
        rows += [(f"latency {name}", _milliseconds(value)) for name, value in names.items()]
    rows.append(("errors", str(summary.failed)))
    rows += [(f"  {kind}", str(count)) for kind, count in summary.errors.items()]
    return rows


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
