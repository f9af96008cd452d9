"""OpenVINO's own file format (IR): ``model.xml``, the graph, and ``model.bin``, its weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13

from cortex.errors import UserError
from cortex.model_server.engines import openvino_graph
from cortex.model_server.engines.base import Unsupported
from cortex.model_server.model_file import IR, ModelFile
from cortex.model_server.saved_model import SavedModel
from export.signature import SIGNATURE

FILE = "model.xml"
INSTEAD = "deploy the SavedModel as it is"

_SMALLEST = 256  # values; what is smaller saves nothing


def convert(source: SavedModel) -> Any:
    """Return the signature as an ``openvino.Model`` whose inputs and outputs have their aliases for their only names.

    Raises UserError for one that OpenVINO cannot convert, or whose inputs and outputs share names, which an IR cannot.
    """
    signature = source.signatures[SIGNATURE]
    if shared := sorted(set(signature.inputs) & set(signature.outputs)):
        reason = f"{shared[0]!r} is both an input and an output, which an IR cannot hold"
        raise UserError(f"{source.directory}: {reason}; {INSTEAD}")
    try:
        graph = openvino_graph.convert(ov.Core(), source, source.signatures, SIGNATURE)
    except Unsupported as error:
        raise UserError(f"{source.directory}: {error}; {INSTEAD}") from error
    for ports, indices in ((graph.model.inputs, graph.inputs), (graph.model.outputs, graph.outputs)):
        for alias, index in indices.items():
            ports[index].set_names({alias})
    return graph.model


def round_weights(model: Any) -> None:
    """Store the weights of ``model`` in bf16, each rounded to the nearest.

    Only matrices and kernels: a vector (a bias, a scale) takes no space, and a processor adds it in fp32 anyway. What
    a weight was in bf16 it is again in fp32, so a machine without bf16 computes with the same weights.
    """
    for node in [each for each in model.get_ops() if _is_weight(each)]:
        rounded = opset13.convert(opset13.constant(node.data, ov.Type.bf16), "f32")
        rounded.set_friendly_name(node.get_friendly_name())
        for taker in node.output(0).get_target_inputs():
            taker.replace_source_output(rounded.output(0))


def save(model: Any, directory: Path) -> ModelFile:
    """Write the model into a version directory; types stay as they are. Raises UserError when it cannot be written."""
    path = directory / FILE
    try:
        ov.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # it does not say why, and has removed what it wrote of a file that did not fit
        free = f"{shutil.disk_usage(directory).free / 1e6:.0f} MB are free there"
        raise UserError(f"cannot write into {directory.parent}: {openvino_graph.one_line(error)} ({free})") from error
    return ModelFile(directory, IR, path)


def _is_weight(node: Any) -> bool:
    if node.get_type_name() != "Constant" or node.get_element_type() != ov.Type.f32:
        return False
    sizes = np.array(node.get_output_shape(0))
    return bool(sizes.prod() >= _SMALLEST and (sizes > 1).sum() > 1)
