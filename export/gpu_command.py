"""The command ``python -m export gpu``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from export import options
from export.progress import following, stopwatch, written

_MAX_BATCH = 65536


@click.command(short_help="Make an artifact for NVIDIA GPUs from a SavedModel.")
@options.source
@click.option(
    "--precision",
    type=click.Choice(["fp16", "fp32", "int8"]),
    default="fp16",
    show_default=True,
    help="What TensorRT computes in. int8 needs --calibration.",
)
@click.option(
    "--calibration",
    type=options.path_or_random,
    metavar="DIR|FILE|random",
    help="For int8, what the model is to see in use: a folder of pictures, or TFRecords, as in python -m export cpu.",
)
@click.option(
    "--subset-size", type=click.IntRange(8), default=300, show_default=True, help="How many samples calibrate."
)
@click.option(
    "--best-batch",
    type=click.IntRange(1, _MAX_BATCH),
    default=32,
    show_default=True,
    help="The batch size that TensorRT tunes its engines for: the max_batch_size of the yaml.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1, _MAX_BATCH),
    default=128,
    show_default=True,
    help="The largest batch that its engines take.",
)
@click.option(
    "--provider",
    type=click.Choice(["tensorrt", "cuda", "cpu"]),
    default="tensorrt",
    show_default=True,
    help="What ONNX Runtime is to compute with. tensorrt falls back to cuda; cpu is for tests.",
)
@click.option(
    "--engine",
    type=click.Choice(["onnxruntime", "tensorflow"]),
    default="onnxruntime",
    show_default=True,
    help="What is to run it. tensorflow: TF-TRT in fp16, which TensorFlow had up to 2.17 (requirements-tensorrt.txt).",
)
@options.output("gpu")
@options.version
@options.force
def command(
    source: Path,
    precision: str,
    calibration: str | None,
    subset_size: int,
    best_batch: int,
    max_batch: int,
    provider: str,
    engine: str,
    output: Path | None,
    version: int | None,
    force: bool,
) -> None:
    """Make an artifact for NVIDIA GPUs from the SavedModel in SOURCE (default: models/resnet50).

    It holds the SavedModel and its graph as ONNX, for ONNX Runtime with TensorRT or CUDA. On a machine with a GPU,
    onnxruntime-gpu and tensorrt, TensorRT's engines are built into it: a server of the same kind starts without
    building any. On another machine they are built when it is first loaded on a GPU. Put its directory into
    predictor.model_path of cortex_gpu.yaml and change nothing else.

    The requests recorded with the SavedModel, and their answers, go along: the artifact is checked with them here, on
    the GPU if there is one, and by every model server that loads it.

    \b
    Examples:
      python -m export gpu
      python -m export gpu --precision int8 --calibration ~/imagenet/val
      python -m export gpu --best-batch 64 --max-batch 256
    """
    if precision != "int8":
        options.refuse("subset_size", "without --precision int8")
    if engine == "tensorflow":
        options.refuse("provider", "with --engine tensorflow")
    elif provider != "tensorrt":
        for name in ("best_batch", "max_batch"):
            options.refuse(name, "without --provider tensorrt")
    from export.gpu_order import Order

    order = Order(
        source, output, version, force, precision, provider, (best_batch, max_batch), calibration, subset_size
    )
    made = _exporter(engine)(order, stopwatch())
    click.echo(written(made))
    click.echo(following(made, "cortex_gpu.yaml"))


def _exporter(engine: str) -> Callable[..., Any]:
    """Import the exporter for an engine: either one runs where the tools of the other are not installed."""
    if engine == "tensorflow":
        from export import gpu_tftrt

        return gpu_tftrt.export
    from export import onnx_graph

    onnx_graph.check_tools()
    from export import gpu

    return gpu.export
