"""One signature of a SavedModel as OpenVINO's graph, with every input and output found by its alias."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex.model_server import saved_model
from cortex.model_server.engines.base import Unsupported
from cortex.model_server.saved_model import DEFAULT_SIGNATURE, SavedModel
from cortex.protos import meta_graph_pb2, types_pb2
from cortex.tensors import type_name

_TYPES = frozenset(
    getattr(types_pb2, f"DT_{name}") for name in ("FLOAT", "HALF", "UINT8", "INT8", "UINT16", "INT16", "INT32", "BOOL")
)
"""The types of which OpenVINO's CPU plugin keeps every value: it computes integers in 32 bits and decimals in single
precision or less, and has next to no operations on strings."""

_NOISE = ("Exception from", "Check '", "FrontEnd API failed", "Summary:", "To facilitate", "Caught exception")


@dataclass(frozen=True)
class Graph:
    """An `openvino.Model`, and the index of each alias among its inputs and outputs, which it orders by itself."""

    model: Any
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


def first_signature(model: SavedModel) -> str:
    """Return ``serving_default``, or the first signature of a model without it. Raises Unsupported when it has none."""
    names = list(model.runnable)
    if not names:
        raise Unsupported("the SavedModel has no signature")
    return DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else names[0]


def convert(core: Any, model: SavedModel, signature: str) -> Graph:
    """Convert one signature. Raises Unsupported with the reason in one line."""
    wanted = model.signatures[signature]
    _check_types(signature, wanted)
    try:
        if signature == DEFAULT_SIGNATURE:
            graph = core.read_model(model.directory)
            if found := _found(
                graph, {alias: alias for alias in wanted.inputs}, {alias: alias for alias in wanted.outputs}
            ):
                return found
        return _convert_alone(core, model, signature)
    except RuntimeError as error:
        raise Unsupported(f"OpenVINO cannot convert signature {signature!r}: {one_line(error)}") from error


def one_line(error: RuntimeError) -> str:
    """Return the part of OpenVINO's many lines that names the cause: not where in its sources it was thrown."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_NOISE)]
    return " ".join(told or lines)[:500]


def _convert_alone(core: Any, model: SavedModel, signature: str) -> Graph:
    """Convert a signature that OpenVINO would pass over, or whose aliases it would change.

    Its reader knows ``serving_default`` and no other signature, and renames an output that is called like an input.
    So it reads a copy of the directory (files linked, not copied) with this signature alone, under names of our own.
    """
    proto = saved_model.parse(model.directory)
    wanted = model.signatures[signature]
    inputs = {alias: f"cortex_input_{number}" for number, alias in enumerate(wanted.inputs)}
    outputs = {alias: f"cortex_output_{number}" for number, alias in enumerate(wanted.outputs)}
    renamed = meta_graph_pb2.SignatureDef(method_name=wanted.method_name)
    for alias, name in inputs.items():
        renamed.inputs[name].CopyFrom(wanted.inputs[alias])
    for alias, name in outputs.items():
        renamed.outputs[name].CopyFrom(wanted.outputs[alias])
    for graph in proto.meta_graphs:
        graph.signature_def.clear()
        graph.signature_def[DEFAULT_SIGNATURE].CopyFrom(renamed)
    found = _found(_read_copy(core, model.directory, proto), inputs, outputs)
    if found is None:
        raise Unsupported(f"OpenVINO drops inputs or outputs of signature {signature!r}")
    return found


def _read_copy(core: Any, directory: Path, proto: Any) -> Any:
    copy = Path(tempfile.mkdtemp(prefix="cortex-signature-"))
    try:
        (copy / "saved_model.pb").write_bytes(proto.SerializeToString())
        for entry in directory.iterdir():
            if entry.name not in ("saved_model.pb", "saved_model.pbtxt"):
                (copy / entry.name).symlink_to(entry.resolve())
        return core.read_model(copy)
    finally:
        shutil.rmtree(copy)


def _found(model: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Graph | None:
    """Return the graph with the index of each alias, given its name there, or None when one is missing."""
    inputs_at, outputs_at = _indices(model.inputs, inputs), _indices(model.outputs, outputs)
    if len(inputs_at) < len(inputs) or len(outputs_at) < len(outputs):
        return None
    return Graph(model, inputs_at, outputs_at)


def _indices(ports: Sequence[Any], names: Mapping[str, str]) -> dict[str, int]:
    named = [port.get_names() for port in ports]
    return {alias: index for alias, name in names.items() for index, known in enumerate(named) if name in known}


def _check_types(name: str, signature: meta_graph_pb2.SignatureDef) -> None:
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for alias, info in tensors.items():
            if info.dtype not in _TYPES:
                raise Unsupported(
                    f"OpenVINO has no exact {type_name(info.dtype)}, which {kind} {alias!r} of signature {name!r} is"
                )
