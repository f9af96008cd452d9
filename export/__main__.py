"""``python -m export``: make the artifacts of the targets."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from cortex.errors import Error

_MAX_VERSION = 2**63 - 1
_MAX_SEED = 2**32 - 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Make the model directories that the cortex_*.yaml files deploy."""


@commands.command()
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|random|PATH",
    help="imagenet: Keras downloads the trained weights (100 MB, once). PATH: a .h5 or .keras file of a Keras "
    "ResNet-50 with 1,000 classes. random: not trained, so that everything can be tried without a download.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("models/resnet50"),
    show_default=True,
    help="The model's directory. Versions are numbered directories in it.",
)
@click.option(
    "--version",
    type=click.IntRange(1, _MAX_VERSION),
    default=1,
    show_default=True,
    help="The number of this version. Model servers serve the highest one.",
)
@click.option("--seed", type=click.IntRange(0, _MAX_SEED), default=0, show_default=True, help="For --weights random.")
@click.option("--force", is_flag=True, help="Replace the version if it exists.")
def savedmodel(weights: str, output: Path, version: int, seed: int, force: bool) -> None:
    """Export Keras' ResNet-50 as a TensorFlow SavedModel, the model of cortex_cpu.yaml.

    The model takes "input", uint8 [n, 224, 224, 3] in RGB, and gives "output", float32 [n, 1000] after softmax.
    Preprocessing is inside it. Beside it, in assets.extra, go recorded requests with their answers, which a model
    server replays before it serves, and model_card.json, which says where the model comes from.

    \b
    Examples:
      python -m export savedmodel
      python -m export savedmodel --weights random
      python -m export savedmodel --weights resnet50.h5 --version 2
    """
    from export import savedmodel as exporter
    from export.weights import parse

    order = exporter.Order(parse(weights, seed), output, version, force)
    made = exporter.export(order, _stopwatch())
    click.echo(f"{made}  {_megabytes(made)} MB")
    click.echo("next: cortex deploy cortex_cpu.yaml")


def _stopwatch() -> Callable[[str], None]:
    """Return a function that prints a step and the seconds since the start, on the standard error stream."""
    start = time.monotonic()
    return lambda text: click.echo(f"{time.monotonic() - start:5.1f} s  {text}", err=True)


def _megabytes(directory: Path) -> int:
    return round(sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6)


def main() -> None:
    """Run a command; a failure is one line on the standard error stream and an exit code."""
    try:
        commands(prog_name="python -m export")
    except Error as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
