"""One signature of a model as OpenVINO's graph, with every input and output found by its alias."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino as ov
from openvino._offline_transformations import apply_moc_transformations

from cortex.errors import Error
from cortex.model_server import saved_model
from cortex.model_server.engines import ports, tflite_file
from cortex.model_server.engines.base import Unsupported
from cortex.model_server.engines.openvino_bodies import bodies
from cortex.model_server.engines.openvino_refusals import check_nodes, check_operations
from cortex.model_server.engines.openvino_reversal import reverse_by_gathers
from cortex.model_server.engines.ports import Port
from cortex.model_server.model_file import IR, TFLITE, Model, ModelFile
from cortex.model_server.saved_model import DEFAULT_SIGNATURE, SavedModel, Signatures
from cortex.protos import meta_graph_pb2, types_pb2
from cortex.tensors import type_name

_TYPES = frozenset(
    getattr(types_pb2, f"DT_{name}") for name in ("FLOAT", "HALF", "UINT8", "INT8", "UINT16", "INT16", "INT32", "BOOL")
)
"""The types of which OpenVINO's CPU plugin keeps every value: its integers have 32 bits, its decimals are of single
precision or less, and it has next to no operations on strings."""

_ONE = ov.Dimension(1)
_NOISE = ("Exception from", "Check '", "FrontEnd API failed", "Summary:", "To facilitate", "Caught exception")


@dataclass(frozen=True)
class Graph:
    """An `openvino.Model`, and the index of each alias among its inputs and outputs, which it orders by itself."""

    model: Any
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]

    @property
    def shapes(self) -> dict[str, Any]:
        """The `openvino.PartialShape` of each input."""
        return {alias: self.model.inputs[index].partial_shape for alias, index in self.inputs.items()}

    def of_one_row(self) -> "Graph | None":
        """Return the graph for requests of one row, with the same weights; None where it leaves open more, or nothing.

        The rows are the first dimension of its inputs.
        """
        shapes = [port.partial_shape for port in self.model.inputs]
        if any(shape.rank.is_dynamic or any(dim.is_dynamic for dim in list(shape)[1:]) for shape in shapes):
            return None
        rows = {index: shape for index, shape in enumerate(shapes) if shape.is_dynamic}
        if not rows or not all(shape[0].compatible(_ONE) for shape in rows.values()):
            return None
        if any(bodies(node) for node in self.model.get_ops()):  # these lose their rows when the graph has one
            return None
        model = self.model.clone()
        try:
            model.reshape({index: [1, *list(shape)[1:]] for index, shape in rows.items()})
            check_operations(model, "")
        except (RuntimeError, Unsupported):  # it computes with its rows in a way that one row does not fit
            return None
        return Graph(model, self.inputs, self.outputs)


def first_signature(signatures: Signatures) -> str:
    """Return ``serving_default``, or the first signature of a model without it. Raises Unsupported when it has none."""
    names = list(saved_model.runnable(signatures))
    if not names:
        raise Unsupported("the model has no signature")
    return DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else names[0]


def signatures_of(core: Any, model: Model) -> Signatures:
    """Return the signatures that the model states, or ``serving_default`` with the names of an ONNX or IR graph."""
    if isinstance(model, SavedModel):
        return model.signatures
    graph = _read(core, model)
    if model.format == TFLITE:
        return {key: _stated(key, tensors, graph) for key, tensors in tflite_file.read(model.path).items()}
    inputs, outputs = ({_name(port): _name(port) for port in side} for side in (graph.inputs, graph.outputs))
    return {DEFAULT_SIGNATURE: _signature(graph, inputs, outputs)}


def convert(core: Any, model: Model, signatures: Signatures, name: str) -> Graph:
    """Convert one signature. Raises Unsupported with the reason in one line."""
    try:
        if not isinstance(model, SavedModel) and model.format == IR:  # whoever made it chose OpenVINO's arithmetic
            graph = _read_signature(core, model, signatures, name)
        else:
            graph = _fused(core, model, signatures, name)
        reverse_by_gathers(graph.model)
    except Error:
        raise
    except Exception as error:  # OpenVINO was called, whose errors are of many classes
        raise Unsupported(f"OpenVINO cannot convert signature {name!r}: {one_line(error)}") from error
    return graph


def _fused(core: Any, model: Model, signatures: Signatures, name: str) -> Graph:
    """Convert one signature, and do at once what OpenVINO would do for each compiled form: fuse, and copy weights.

    So all forms of a graph share its weights: 150 MB less for ResNet-50. An IR went through this when it was made.
    """
    _check_types(name, signatures[name])
    if isinstance(model, SavedModel):
        whole = model.graph()
        check_nodes(whole, name)
        graph = _convert_alone(core, model, name) if saved_model.copies(whole) else _convert(core, model, name)
    else:
        graph = _read_signature(core, model, signatures, name)
    apply_moc_transformations(graph.model, cf=False, smart_reshape=False)
    check_operations(graph.model, name)
    _break_ties(graph.model)
    return graph


def _break_ties(model: Any) -> None:
    """Let the first of equal values win in every TopK, as in TensorFlow and ONNX; the reader of ONNX forgets it."""
    for node in model.get_ops():
        if node.get_type_name() == "TopK" and node.get_attributes()["sort"] == "value":
            node.set_attribute("stable", True)
        for body in bodies(node):
            _break_ties(body)


def _read_signature(core: Any, model: ModelFile, signatures: Signatures, name: str) -> Graph:
    wanted = signatures[name]
    inputs, outputs = ({alias: info.name for alias, info in side.items()} for side in (wanted.inputs, wanted.outputs))
    found = _found(_read(core, model), inputs, outputs)
    if found is None:
        raise Unsupported(f"OpenVINO drops inputs or outputs of signature {name!r}")
    return found


def one_line(error: Exception) -> str:
    """Return the part of OpenVINO's many lines that names the cause: not where in its sources it was thrown."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_NOISE)]
    return " ".join(told or lines)[:500]


def _convert(core: Any, model: SavedModel, signature: str) -> Graph:
    wanted = model.signatures[signature]
    if signature == DEFAULT_SIGNATURE:
        graph = core.read_model(model.directory)
        inputs, outputs = ({alias: alias for alias in side} for side in (wanted.inputs, wanted.outputs))
        if found := _found(graph, inputs, outputs):
            return found
    return _convert_alone(core, model, signature)


def _read(core: Any, model: ModelFile) -> Any:
    try:
        return core.read_model(model.path)
    except RuntimeError as error:
        raise Unsupported(f"OpenVINO cannot read {model.path.name}: {one_line(error)}") from error


def _stated(key: str, tensors: tflite_file.Tensors, graph: Any) -> meta_graph_pb2.SignatureDef:
    if tensors.subgraph:
        raise Unsupported(f"OpenVINO reads only the main graph of a TF Lite file, which signature {key!r} is not")
    if any(port.partial_shape == ov.PartialShape([]) for port in graph.inputs):
        raise Unsupported(f"OpenVINO takes an input of any rank for a scalar, and signature {key!r} has one of these")
    return _signature(graph, tensors.inputs, tensors.outputs)


def _signature(graph: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> meta_graph_pb2.SignatureDef:
    """Return the signature of a graph, given the name in it of each input and output by its alias."""
    found = _found(graph, inputs, outputs)
    if found is None:
        raise Unsupported("OpenVINO drops inputs or outputs of the model")
    return ports.signature(
        [_port(graph.inputs[index], alias, inputs[alias]) for alias, index in found.inputs.items()],
        [_port(graph.outputs[index], alias, outputs[alias]) for alias, index in found.outputs.items()],
    )


def _port(port: Any, alias: str, name: str) -> Port:
    shape = port.partial_shape
    sizes = None if shape.rank.is_dynamic else tuple(-1 if dim.is_dynamic else dim.get_length() for dim in shape)
    try:
        dtype = port.element_type.to_dtype()
    except IndexError as error:
        raise Unsupported(f"OpenVINO gives numpy no {port.element_type.get_type_name()}, which {alias!r} is") from error
    return Port(alias, name, dtype, sizes)


def _name(port: Any) -> str:
    """Return one name of a port; of several, the same one every time."""
    return min(_names(port))


def _names(port: Any) -> set[str]:
    names: set[str] = port.get_names()
    return names or {port.get_node().get_friendly_name()}


def _convert_alone(core: Any, model: SavedModel, signature: str) -> Graph:
    """Convert a signature that OpenVINO would pass over, or whose aliases it would change or variables it would miss.

    Its reader knows ``serving_default`` and no other signature, renames an output that is called like an input, and
    where there are many variables it does not find those that are not restored themselves. So it reads a copy of the
    directory (files linked, not copied) with this signature alone, under names of our own, and the restored variables.
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
        saved_model.read_copies(graph)
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


def _indices(sides: Sequence[Any], names: Mapping[str, str]) -> dict[str, int]:
    named = [_names(port) for port in sides]
    return {alias: index for alias, name in names.items() for index, known in enumerate(named) if name in known}


def _check_types(name: str, signature: meta_graph_pb2.SignatureDef) -> None:
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for alias, info in tensors.items():
            if info.dtype not in _TYPES:
                raise Unsupported(
                    f"OpenVINO has no exact {type_name(info.dtype)}, which {kind} {alias!r} of signature {name!r} is"
                )
