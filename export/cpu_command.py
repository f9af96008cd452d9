"""The command ``python -m export cpu``."""

from pathlib import Path

import click

from export import options
from export.progress import following, stopwatch, written


@click.command(short_help="Make an artifact for CPUs, in fp32, bf16 or int8, from a SavedModel.")
@options.source
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "int8"]),
    default="bf16",
    show_default=True,
    help="How the weights are stored. fp32: as they are. bf16: rounded, in half the space. int8: a quarter of the "
    "space and the fastest, after calibration.",
)
@click.option(
    "--calibration",
    type=options.path_or_random,
    metavar="DIR|FILE|random",
    help="What the model is to see in use: a folder of pictures (searched with its subfolders), or TFRecords (a file, "
    "or a folder of them) of ImageNet's Examples or of PredictionLogs. int8 needs it to choose its scales; fp32 and "
    "bf16 measure on it how well they agree. random: noise, whose scales fit nothing; only to try the commands.",
)
@click.option(
    "--subset-size",
    type=click.IntRange(8),
    default=300,
    show_default=True,
    help="How many samples calibrate. As many again, where there are enough, and a fifth of all otherwise, are held "
    "out to measure the agreement with fp32. For fp32 and bf16: how many measure it.",
)
@options.output("cpu")
@options.version
@options.force
def command(
    source: Path,
    precision: str,
    calibration: str | None,
    subset_size: int,
    output: Path | None,
    version: int | None,
    force: bool,
) -> None:
    """Make an artifact for CPUs from the SavedModel in SOURCE (default: models/resnet50).

    It is an OpenVINO IR with the inputs and outputs of the SavedModel's signature serving_default. Put its directory
    into predictor.model_path and change nothing else. Beside it go recorded requests with the artifact's own answers,
    which the model server replays before it serves, and model_card.json, which says what it was made from and how well
    it agrees with fp32.

    The precision of the artifact is that of its weights. In which one the processor computes is predictor.precision in
    the yaml: auto takes bf16 where the processor has it.

    \b
    Examples:
      python -m export cpu
      python -m export cpu --precision int8 --calibration ~/imagenet/val
      python -m export cpu models/mine --precision int8 --calibration requests.tfrecord --output models/mine_int8
    """
    if calibration is None:
        options.refuse("subset_size", "without --calibration")
    from export import cpu

    order = cpu.Order(source, precision, calibration, subset_size, output, version, force)
    made = cpu.export(order, stopwatch())
    click.echo(written(made))
    click.echo(following(made, "cortex_cpu.yaml"))
