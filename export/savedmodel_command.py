"""The command ``python -m export savedmodel``."""

from pathlib import Path

import click

from export import options
from export.progress import following, stopwatch, written

_USUAL = Path("models/resnet50")
_MAX_SEED = 2**32 - 1


@click.command(short_help="Make a SavedModel of Keras' ResNet-50, the source of all others.")
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
    type=options.path,
    default=_USUAL,
    show_default=True,
    help="The model's directory. Versions are numbered directories in it.",
)
@click.option(
    "--version",
    type=click.IntRange(1, options.MAX_VERSION),
    default=1,
    show_default=True,
    help="The number of this version. Model servers serve the highest one.",
)
@click.option("--seed", type=click.IntRange(0, _MAX_SEED), default=0, show_default=True, help="For --weights random.")
@options.force
def command(weights: str, output: Path, version: int, seed: int, force: bool) -> None:
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
    if weights != "random":
        options.refuse("seed", "without --weights random")
    from export import savedmodel as exporter
    from export.weights import parse

    order = exporter.Order(parse(weights, seed), output, version, force)
    made = exporter.export(order, stopwatch())
    click.echo(written(made))
    click.echo(following(made, "cortex_cpu.yaml", _USUAL))
