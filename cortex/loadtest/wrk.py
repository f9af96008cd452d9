"""Measure a server with wrk and with the tester by turns, and print what each says of the other.

    python -m cortex.loadtest.wrk PICTURE ENDPOINT [--connections 8] [--seconds 10] [--turns 3]

Both send the same bytes in a closed loop over as many connections, in turns, so that a machine that slows down slows
both. The ratio of each pair of turns is the tester's figure divided by wrk's.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

from cortex.errors import CortexError, Error, UserError
from cortex.loadtest.crew import run
from cortex.loadtest.http import HTTP
from cortex.loadtest.loads import ClosedLoop
from cortex.loadtest.payloads import Payload, as_json, picture
from cortex.loadtest.units import duration, number

_WARMUP = 1.0  # seconds
_SCRIPT = """
local file = io.open("%s", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"] = "%s"
function done(summary, latency)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format('\\n{"seconds": %%.6f, "answered": %%d, "failed": %%d, "p50": %%.6f, "p99": %%.6f}\\n',
    summary.duration / 1e6, summary.requests - e.status, failed,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
"""


@dataclass(frozen=True)
class Figures:
    """What one of the two said of one turn. Latencies are in seconds."""

    rate: float
    """Answered requests per second."""
    p50: float
    p99: float
    failed: int


def by_wrk(endpoint: str, payload: Payload, connections: int, seconds: int) -> Figures:
    """Measure with wrk. Raises UserError when it is not installed, CortexError when it fails."""
    if not (wrk := shutil.which("wrk")):
        raise UserError("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "script.lua")
        body.write_bytes(payload.body)
        script.write_text(_SCRIPT % (body, payload.content_type))
        size = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s"]
        done = subprocess.run([wrk, *size, "-s", script, endpoint], capture_output=True, text=True, check=False)
    try:
        told = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise CortexError(f"wrk failed: {(done.stderr or done.stdout).strip()}") from None
    return Figures(told["answered"] / told["seconds"], told["p50"], told["p99"], told["failed"])


def by_tester(endpoint: str, payload: Payload, connections: int, seconds: float) -> Figures:
    """Measure with one process of the tester. Raises CortexError when nothing was answered."""
    result = run(ClosedLoop(1, connections, seconds=seconds), HTTP(endpoint), payload)
    if not result.latency:
        raise CortexError(f"nothing was answered: {dict(result.errors)}")
    return Figures(result.requests_per_second, result.latency.p50, result.latency.p99, result.failed)


def ratios(pairs: Sequence[tuple[Figures, Figures]]) -> dict[str, float]:
    """Return the median of the tester's figure divided by wrk's, for pairs of the tester's and wrk's turns."""
    names = ("rate", "p50", "p99")
    return {name: median(getattr(ours, name) / getattr(wrk, name) for ours, wrk in pairs) for name in names}


@click.command()
@click.argument("image")
@click.argument("endpoint")
@click.option("--connections", type=click.IntRange(1), default=8, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=10, show_default=True, help="Of each turn.")
@click.option("--turns", type=click.IntRange(1), default=3, show_default=True, help="Of each of the two.")
def main(image: str, endpoint: str, connections: int, seconds: int, turns: int) -> None:
    """Measure ENDPOINT with wrk and with the tester by turns, and print the ratios."""
    try:
        payload = as_json([picture(image)])
        run(ClosedLoop(1, connections, seconds=_WARMUP), HTTP(endpoint), payload)
        pairs = []
        for turn in range(turns):
            wrk = by_wrk(endpoint, payload, connections, seconds)
            ours = by_tester(endpoint, payload, connections, seconds)
            pairs.append((ours, wrk))
            click.echo(f"turn {turn + 1}: wrk     {_words(wrk)}\n        tester  {_words(ours)}")
    except Error as error:
        raise click.ClickException(str(error)) from error
    told = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios(pairs).items())
    click.echo(f"tester / wrk over {connections} connections, median of {turns} turns: {told}")


def _words(figures: Figures) -> str:
    latencies = f"p50 {duration(figures.p50)}  p99 {duration(figures.p99)}"
    return f"{number(figures.rate)} requests/s  {latencies}  {figures.failed} errors"


if __name__ == "__main__":
    main()
