"""A SavedModel's signature as an ONNX graph: the form that ONNX Runtime, and TensorRT inside it, read."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cortex.errors import CortexError, UserError
from export.signature import SIGNATURE

if TYPE_CHECKING:
    import onnx

OPSET = 18  # what every ONNX Runtime since 1.14 and TensorRT since 8.6 read
_SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "MALLOC_TRIM_THRESHOLD_": str(2**33),  # it copies the whole graph many times: without these, glibc asks the system
    "MALLOC_MMAP_THRESHOLD_": str(2**30),  # for every copy's memory anew, which takes most of the time
}
_NEEDED = ("tf2onnx", "onnx", "onnxruntime")


def check_tools() -> None:
    """Raise UserError, with the line that installs them, when tools of the conversion are missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed: pip install {' '.join(missing)}")


def convert(saved_model: Path, target: Path) -> None:
    """Write signature ``serving_default`` of a SavedModel as ONNX, inputs and outputs under their names in it.

    tf2onnx runs in a process of its own: it loads TensorFlow, which takes 2 GB while it converts, and sees no GPU.
    Where this process is killed, that one goes on for a while: it writes to a place that no other run will use.
    Raises CortexError with its last words when it fails.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as room:
        written = Path(room) / target.name
        argv = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(saved_model), "--tag", "serve"]
        argv += ["--signature_def", SIGNATURE, "--opset", str(OPSET), "--output", str(written)]
        done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | _SETTINGS, check=False)
        if done.returncode or not written.is_file():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise CortexError(f"tf2onnx cannot convert {saved_model}: {said[-1] if said else done.returncode}")
        _arrange(written)
        written.replace(target)


def _arrange(path: Path) -> None:
    """Name the batch dimension, and cast before anything else: TensorRT takes uint8 as an input and nowhere else."""
    import onnx

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    _cast_first(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _cast_first(graph: onnx.GraphProto) -> None:
    """Swap the slice that turns RGB to BGR and the cast behind it, which makes no difference to the values."""
    for place, sliced in enumerate(graph.node):
        users = [node for node in graph.node if sliced.output[0] in node.input]
        if sliced.op_type != "Slice" or sliced.input[0] != graph.input[0].name or len(users) != 1:
            continue
        (cast,) = users
        if cast.op_type != "Cast":
            continue
        between = f"{cast.output[0]}/rgb"
        cast.input[0], sliced.input[0] = sliced.input[0], between
        cast.output[0], sliced.output[0] = between, cast.output[0]
        moved = type(cast)()
        moved.CopyFrom(cast)
        graph.node.remove(cast)
        graph.node.insert(place, moved)
        return
