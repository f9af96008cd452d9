"""``python -m benchmark``: the figures of the whole stack, with the machine and the command that made them."""

import json
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmark.compare import compare as run_comparison
from benchmark.launch import launch
from benchmark.machine import this_machine
from benchmark.model_server import model_server as run_model_server
from benchmark.model_server import subjects
from benchmark.startup import startup as run_startup
from benchmark.systems import Deployment, FlaskAPI
from benchmark.tfrecords import tfrecords
from cortex.errors import Error
from cortex.loadtest import image_form, picture

_ROOT = Path(__file__).parents[1]

_config = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=_ROOT / "cortex_cpu.yaml",
    help="The yaml to deploy; its first API is measured.  [default: cortex_cpu.yaml]",
)
_json = click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write everything to this file.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure the whole stack on this machine."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended then, too


main.add_command(launch)
main.add_command(tfrecords)


@main.command()
@_config
@click.option("--image", default=str(_ROOT / "export" / "cat.jpg"), help="URL or path of the picture to send.")
@click.option("--clients", type=click.IntRange(1), multiple=True, default=(1, 8), show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Of each run."
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Runs of each kind.")
@_json
def compare(
    config: Path, image: str, clients: tuple[int, ...], seconds: float, repeats: int, json_path: Path | None
) -> None:
    """Compare a deployment with Flask + Gunicorn + Keras at the same requests.

    Both run at the same time and are loaded in turn. Figures are medians over the repeats.
    """

    def measure(step: Callable[[str], None]) -> Any:
        payload = image_form(picture(image))
        step("starting both systems")
        with FlaskAPI() as reference, Deployment(config) as deployment:
            return run_comparison(deployment, reference, payload, clients, seconds, repeats, step)

    _report(measure, json_path)


@main.command()
@_config
@_json
def startup(config: Path, json_path: Path | None) -> None:
    """Measure how soon a deployment is live, and what it holds in memory."""
    _report(lambda step: run_startup(config, step), json_path)


@main.command()
@click.option(
    "--base-path",
    type=click.Path(path_type=Path),
    default=_ROOT / "models" / "resnet50",
    help="The model, with its version directories.  [default: models/resnet50, exported when missing]",
)
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), multiple=True, default=("fp32", "bf16"), show_default=True
)
@click.option("--int8", type=click.Path(exists=True, path_type=Path), help="Base path of the model as an int8 IR.")
@click.option("--clients", type=click.IntRange(1), default=4, show_default=True)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True, help="Of each run.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Pairs of runs.")
@_json
def model_server(
    base_path: Path,
    precision: tuple[str, ...],
    int8: Path | None,
    clients: int,
    seconds: float,
    repeats: int,
    json_path: Path | None,
) -> None:
    """Compare the model server over a Unix socket with its engine alone in a process."""

    def measure(step: Callable[[str], None]) -> Any:
        return run_model_server(subjects(base_path, precision, int8), clients, seconds, repeats, step)

    _report(measure, json_path)


def _report(measure: Callable[[Callable[[str], None]], Any], json_path: Path | None) -> None:
    """Measure with progress on stderr, and print the table, the machine and the command."""
    try:
        with Console(stderr=True).status("") as status:
            result = measure(lambda text: status.update(f"{text} ..."))
    except Error as error:
        raise click.ClickException(str(error)) from error
    machine, command = this_machine(), shlex.join(["python", "-m", "benchmark", *sys.argv[1:]])
    _print(result.table(), f"\non {machine}, {datetime.now(UTC):%Y-%m-%d}\nby {command}")
    if json_path:
        facts = {"command": command, "when": datetime.now(UTC).isoformat(), "machine": asdict(machine)}
        json_path.write_text(json.dumps(facts | result.as_dict(), indent=2) + "\n")


def _print(table: Table, facts: str) -> None:
    console = Console()
    console.print(table)
    console.print(facts, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
