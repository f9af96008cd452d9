"""``python -m benchmark launch``: one model on this machine's processors, with the settings recommended for them.

The measurement itself runs in a process of its own, whose environment is set before it starts.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from benchmark import configuration, container, measurement
from benchmark.batches import PIXELS
from benchmark.configuration import ACCURACY, BENCHMARK, LAST, REPEATED, Configuration
from benchmark.settings import ALL_SOCKETS, decide
from cortex.errors import UserError
from cortex.topology import this_topology

_ROOT = Path(__file__).parents[1]


def _take(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Let a configuration file stand in for what is not said on the command line."""
    if path:
        context.default_map = dict(configuration.read(path))


_count = click.IntRange(1)


@click.command()
@click.option(
    "--in-graph", required=True, metavar="PATH", help="SavedModel directory, frozen .pb, .onnx, or OpenVINO IR."
)
@click.option("--model-name", default="resnet50", show_default=True, help="Names the log.")
@click.option(
    "--framework",
    type=click.Choice(["tensorflow", "openvino", "onnxruntime"]),
    default="tensorflow",
    show_default=True,
    help="The engine.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="int8 needs a quantised model.",
)
@click.option("--mode", type=click.Choice(["inference"]), default="inference", show_default=True)
@click.option("--batch-size", type=_count, help="1 for latency, 128 for throughput.  [default: 128]")
@click.option("--benchmark-only", "measure", flag_value=BENCHMARK, help="Measure the speed; this is the default.")
@click.option("--accuracy-only", "measure", flag_value=ACCURACY, help="Measure top-1 and top-5 on labelled pictures.")
@click.option(
    "--data-location",
    "--data-locations",
    metavar="PATH",
    help="TFRecords in ImageNet's layout: a directory or a file.  [default: synthetic data]",
)
@click.option("--steps", type=_count, help="Measured batches.  [default: 50; with --accuracy-only every picture]")
@click.option("--warmup-steps", type=click.IntRange(0), help="Batches before those.  [default: 10]")
@click.option("--num-cores", type=_count, help="Physical cores to run on.  [default: all of the socket]")
@click.option(
    "--socket-id",
    type=click.IntRange(ALL_SOCKETS),
    help="Socket (NUMA node) to run on, -1 for all.  [default: the first of several]",
)
@click.option("--num-intra-threads", type=_count, help="Threads inside an operation.  [default: one per physical core]")
@click.option("--num-inter-threads", type=_count, help="Operations at the same time.  [default: 1]")
@click.option(
    "--pixels", type=click.Choice(list(PIXELS)), help="What the model was trained on.  [default: raw, RGB 0 to 255]"
)
@click.option("--label-offset", type=click.IntRange(0, 1), help="Label of the model's first class.  [default: 1]")
@click.option("--input-node", metavar="NAME", help="Where pictures go in.  [default: the only input or placeholder]")
@click.option("--output-node", metavar="NAME", help="Where scores come out.  [default: the only output or last node]")
@click.option("--output-dir", metavar="DIR", default=str(_ROOT / "build" / "benchmark"), help="For logs and results.")
@click.option("--docker-image", metavar="IMAGE", help="Run inside this image.")
@click.option("--debug", is_flag=True, help="Give a shell with everything set, in which benchmark/start.sh runs it.")
@click.option("--verbose", is_flag=True, help="Also show what the engine logs.")
@click.option(
    "--configuration",
    "_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_take,
    help="Take what is not said here from an earlier launch's last.json.",
)
@click.pass_context
def launch(context: click.Context, /, debug: bool, **options: Any) -> None:
    """Measure one model at the recommended settings, or check its accuracy.

    \b
    Examples:
      python -m benchmark launch --in-graph models/resnet50 --batch-size 1
      python -m benchmark launch --in-graph models/resnet50 --framework openvino --precision bf16
      python -m benchmark launch --in-graph frozen.pb --accuracy-only --data-location validation/
    """
    asked = _configuration(options)
    repeated = bool(context.default_map)  # a repetition leaves the last configuration as it was
    sys.exit(
        _in_container(asked, asked.docker_image, debug, repeated)
        if asked.docker_image
        else _here(asked, _origins(context), debug, repeated)
    )


def _configuration(options: Mapping[str, Any]) -> Configuration:
    """Return what was asked for, with absolute paths: it may be launched again from elsewhere."""
    if empty := next((name for name in ("in_graph", "output_dir") if not options[name]), None):
        raise UserError(f"--{empty.replace('_', '-')}: expected a path, not an empty text")
    said = {name: value for name, value in options.items() if value not in (None, "")}
    for name in ("in_graph", "data_location", "output_dir"):
        if name in said:
            said[name] = Path(os.path.expanduser(said[name])).absolute()  # noqa: PTH111  # Path's may raise
    return Configuration(**said)


def _origins(context: click.Context) -> Mapping[str, str]:
    """Return where each option that was given comes from."""
    origins = {}
    for name, value in context.params.items():
        match context.get_parameter_source(name):
            case ParameterSource.COMMANDLINE:
                origins[name] = f"--{value}-only" if name == "measure" else f"--{name.replace('_', '-')}"
            case ParameterSource.DEFAULT_MAP:
                origins[name] = "earlier launch"
    return origins


def _in_container(asked: Configuration, image: str, debug: bool, repeated: bool) -> int:
    if shutil.which("docker") is None:
        raise UserError("--docker-image: docker is not on PATH")
    command = container.command(asked, image, debug, _handed_over(asked, repeated))
    with subprocess.Popen(command) as child, measurement.ended_with(child):
        return child.wait()


def _here(asked: Configuration, origins: Mapping[str, str], debug: bool, repeated: bool) -> int:
    """Measure, and keep what ran for the next launch: what cannot run takes the place of nothing that could."""
    settings = decide(asked, this_topology(), origins, os.environ, shutil.which("numactl"))
    if debug:
        return measurement.shell(settings, _handed_over(asked, repeated))
    measurement.measure(asked, settings)
    if not repeated:
        configuration.write(asked)
    return 0


def _handed_over(asked: Configuration, repeated: bool) -> Path:
    """Write what start.sh is to launch in an image or a shell, and return the file."""
    return configuration.write(asked, REPEATED if repeated else LAST)
