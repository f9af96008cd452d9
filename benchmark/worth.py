"""``python -m benchmark worth``: what each recommended setting of the launcher is worth on this machine.

One setting is changed at a time, and measured in turns with the recommended ones; the figure is the ratio of a pair.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import click

from benchmark import document
from benchmark.machine import this_machine
from benchmark.tables import table
from cortex.errors import UserError
from cortex.topology import this_topology
from export.progress import Step, stopwatch

_ROOT = Path(__file__).parents[1]
_DOCUMENT = _ROOT / "docs" / "performance.md"
_WARM_UP = "1"


@dataclass(frozen=True)
class Change:
    """One departure from the recommended settings: options of the launcher, or variables of its environment."""

    framework: str
    what: str
    options: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Worth:
    """A change with its pairs of rates, in images per second: as recommended, and with the change."""

    change: Change
    pairs: tuple[tuple[float, float], ...]

    @property
    def ratio(self) -> float:
        return median(changed / recommended for recommended, changed in self.pairs)


def changes(cores: int) -> tuple[Change, ...]:
    """Return what is tried where a launch runs on so many cores."""
    several = str(2 * cores)
    tensorflow = [
        Change("tensorflow", "intra-op threads: 1", {"--num-intra-threads": "1"}),
        Change("tensorflow", f"intra-op threads: {several}, two for each core", {"--num-intra-threads": several}),
        Change("tensorflow", f"inter-op threads: {cores}", {"--num-inter-threads": str(cores)}),
        Change("tensorflow", "oneDNN: off", environ={"TF_ENABLE_ONEDNN_OPTS": "0"}),
        Change("tensorflow", "OMP_NUM_THREADS: 1", environ={"OMP_NUM_THREADS": "1"}),
        Change("tensorflow", "KMP_AFFINITY: none", environ={"KMP_AFFINITY": "none"}),
        Change("tensorflow", "KMP_BLOCKTIME: 200", environ={"KMP_BLOCKTIME": "200"}),
        Change("tensorflow", "precision: bf16", {"--precision": "bf16"}),
        Change("tensorflow", "batch size: 1", {"--batch-size": "1"}),
    ]
    openvino = [
        Change("openvino", "threads: 1", {"--num-intra-threads": "1"}),
        Change("openvino", f"threads: {several}, two for each core", {"--num-intra-threads": several}),
        Change("openvino", "precision: bf16", {"--precision": "bf16"}),
        Change("openvino", "batch size: 1", {"--batch-size": "1"}),
    ]
    return (*tensorflow, *openvino)


@click.command()
@click.option(
    "--in-graph", default="models/resnet50", show_default=True, metavar="PATH", help="A SavedModel directory."
)
@click.option(
    "--framework",
    type=click.Choice(["tensorflow", "openvino"]),
    multiple=True,
    help="Only this engine; may be repeated.  [default: both]",
)
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True)
@click.option("--images", type=click.IntRange(1), default=96, show_default=True, help="Images of a run, at least.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Pairs for each setting.")
@click.option("--write-docs", is_flag=True, help="Write the table into docs/performance.md as well.")
@click.option("--document", "path", type=click.Path(path_type=Path), default=_DOCUMENT, hidden=True)
def worth(
    in_graph: str,
    framework: tuple[str, ...],
    batch_size: int,
    images: int,
    rounds: int,
    write_docs: bool,
    path: Path,
) -> None:
    """Measure what each recommended setting is worth: one is changed at a time, in turns with the recommended ones."""
    topology = this_topology()
    cores = len(topology.cores(min(topology.sockets)))  # a launch stays on one socket
    chosen = [each for each in changes(cores) if not framework or each.framework in framework]
    base = {"--in-graph": in_graph, "--batch-size": str(batch_size)}
    if write_docs:
        document.around(path, document.SETTINGS)  # better before the measurement than after it
    step = stopwatch()
    found = [_measured(each, base, images, rounds, step) for each in chosen]
    shown = _shown(found)
    click.echo(shown)
    if write_docs:
        document.put(shown, path, document.SETTINGS)


def _measured(change: Change, base: Mapping[str, str], images: int, rounds: int, step: Step) -> Worth:
    pairs = []
    for number in range(rounds):
        step(f"{change.framework}: {change.what}: pair {number + 1} of {rounds}")
        sides = [Change(change.framework, "as recommended"), change]
        ordered = sides if number % 2 == 0 else sides[::-1]
        rates = {each.what: _rate(each, base, images) for each in ordered}
        pairs.append((rates["as recommended"], rates[change.what]))
    return Worth(change, tuple(pairs))


def _rate(change: Change, base: Mapping[str, str], images: int) -> float:
    """Launch once, and return the images per second. Raises UserError with the launcher's own words."""
    options = {**base, **change.options, "--framework": change.framework, "--warmup-steps": _WARM_UP}
    options["--steps"] = str(-(-images // int(options["--batch-size"])))
    with tempfile.TemporaryDirectory(prefix="cortex-worth-") as folder:
        command = [sys.executable, "-m", "benchmark", "launch", "--output-dir", folder]
        command += [word for pair in options.items() for word in pair]
        environ = {**os.environ, **change.environ}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().removeprefix("Error: ")[-2000:]
            raise UserError(f"{change.framework}, {change.what}: {said}")
        (result,) = Path(folder).glob("benchmark_*.json")
        return float(json.loads(result.read_text())["figures"]["throughput"])


def _shown(found: Iterable[Worth]) -> str:
    """Return the ratios with the rates they are of, and where they come from, as Markdown."""
    lines = []
    for each in found:
        recommended, changed = (f"{median(side):.1f}" for side in zip(*each.pairs, strict=True))
        lines.append((each.change.framework, each.change.what, f"{each.ratio:.2f} times", changed, recommended))
    head = ("engine", "changed", "rate beside the recommended", "images/s", "as recommended")
    command = shlex.join(["python", "-m", "benchmark", *sys.argv[1:]])
    return "\n\n".join([table(head, lines), f"    {command}", f"{this_machine()}, {datetime.now(UTC):%Y-%m-%d}."])
