"""The command ``python -m export accelerator``."""

import sys
from pathlib import Path

import click

from export import options
from export.progress import following, stopwatch, written

_MAX_BATCH = 1024


@click.command(short_help="Compile a SavedModel for AWS Inferentia.")
@options.source
@click.option(
    "--chip",
    type=click.Choice(["inf1", "inf2"]),
    default="inf1",
    show_default=True,
    help="inf1: tensorflow-neuron and neuron-cc (requirements-neuron.txt). inf2: tensorflow-neuronx.",
)
@click.option(
    "--python",
    default=sys.executable,
    envvar="CORTEX_NEURON_PYTHON",
    metavar="PROGRAM",
    help="The Python interpreter that has the tool chain; it is too old to be this one.  [env: CORTEX_NEURON_PYTHON]",
)
@click.option(
    "--num-neuroncores",
    type=int,
    default=1,
    show_default=True,
    help="NeuronCores that run the model together, 1, 2 or 4: 4 / processes_per_replica of the yaml.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, _MAX_BATCH),
    default=1,
    show_default=True,
    help="The batch that is compiled for; requests of other sizes are split into it.",
)
@click.option(
    "--static-weights/--no-static-weights",
    default=True,
    show_default=True,
    help="Keep the weights in the NeuronCores' own memory (inf1).",
)
@click.option(
    "--cast",
    type=click.Choice(["bf16", "none"]),
    default="bf16",
    show_default=True,
    help="bf16: all of float32 becomes bf16; on inf2, that of matrix products. none: as little as the compiler allows.",
)
@options.output("neuron")
@options.version
@options.force
def command(
    source: Path,
    chip: str,
    python: str,
    num_neuroncores: int,
    batch_size: int,
    static_weights: bool,
    cast: str,
    output: Path | None,
    version: int | None,
    force: bool,
) -> None:
    """Compile the SavedModel in SOURCE (default: models/resnet50) for AWS Inferentia, the model of
    cortex_accelerator.yaml.

    It runs on NeuronCores and nowhere else; compiling takes no device, but AWS's tool chain in an environment of its
    own. The report says which share of the graph's operations was compiled: it should be near 100 %. The requests
    recorded with the SavedModel go along, and a model server on the device checks their answers.

    \b
    Examples:
      python -m export accelerator --python neuron/bin/python
      python -m export accelerator --python neuron/bin/python --num-neuroncores 4 --batch-size 5
      python -m export accelerator --chip inf2 --python neuronx/bin/python
    """
    if chip == "inf2":
        options.refuse("static_weights", "with --chip inf2")
    from export import accelerator

    order = accelerator.Order(
        source, output, version, force, chip, python, num_neuroncores, batch_size, static_weights, cast
    )
    made, compiled = accelerator.export(order, stopwatch())
    click.echo(f"{written(made)}  {compiled.share:.1%} of the operations on the device")
    click.echo(following(made, "cortex_accelerator.yaml", Path("models/resnet50_neuron")))
