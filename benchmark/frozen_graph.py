"""A frozen graph (one ``.pb`` file, a GraphDef whose variables are constants) as a SavedModel that every engine reads.

A GraphDef says nothing about what goes in and what comes out. What goes in is its placeholder, what comes out is the
node whose value no other node takes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from cortex.errors import UserError
from cortex.model_server.saved_model import DEFAULT_SIGNATURE, PREDICT_METHOD
from cortex.protos import meta_graph_pb2, saved_model_pb2, types_pb2

_VARIABLES = ("Variable", "VariableV2", "VarHandleOp")
_NO_RESULT = ("NoOp", "Const", "Assert", "Placeholder", "PlaceholderWithDefault")
_TYPE_ATTRIBUTES = ("DstT", "T", "dtype", "out_type")
"""The attributes that state the type of what a node puts out, for the operations that end a classifier."""


def convert(path: Path, input_node: str | None, output_node: str | None, directory: Path) -> None:
    """Write the graph as a SavedModel with the one signature ``input`` -> ``output`` into an existing directory.

    Raises UserError for a file that is no frozen graph, and for nodes that are not there or not to be told; OSError
    for a file that cannot be read.
    """
    meta = _read(path)
    nodes = {node.name: node for node in meta.graph_def.node}
    source = _named(nodes, input_node, "--input-node", path) or _input(meta.graph_def.node, path)
    result = _named(nodes, output_node, "--output-node", path) or _output(meta.graph_def.node, path)
    signature = meta.signature_def[DEFAULT_SIGNATURE]
    signature.method_name = PREDICT_METHOD
    taken, given = signature.inputs["input"], signature.outputs["output"]
    taken.name, taken.dtype = f"{source.name}:0", _dtype(source)
    _copy_shape(source, taken)
    given.name, given.dtype, given.tensor_shape.unknown_rank = f"{result.name}:0", _dtype(result), True
    meta.meta_info_def.tags.append("serve")
    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1, meta_graphs=[meta])
    (directory / "saved_model.pb").write_bytes(saved.SerializeToString())


def _read(path: Path) -> meta_graph_pb2.MetaGraphDef:
    meta = meta_graph_pb2.MetaGraphDef()
    try:
        meta.graph_def.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise UserError(f"--in-graph {path}: not a frozen graph ({error})") from error
    if not any(node.op for node in meta.graph_def.node):
        raise UserError(f"--in-graph {path}: not a frozen graph (no node in it)")
    if variable := next((node for node in meta.graph_def.node if node.op in _VARIABLES), None):
        raise UserError(
            f"--in-graph {path}: not frozen: {variable.name!r} is a variable; freeze it, or export a SavedModel"
        )
    return meta


def _named(nodes: dict[str, Any], name: str | None, flag: str, path: Path) -> Any:
    if name is None:
        return None
    node = nodes.get(name.removesuffix(":0"))
    if node is None:
        raise UserError(f"{flag} {name}: {path} has no such node")
    return node


def _input(nodes: Sequence[Any], path: Path) -> Any:
    return _only([node for node in nodes if node.op == "Placeholder"], "placeholder", "--input-node", path)


def _output(nodes: Sequence[Any], path: Path) -> Any:
    """Return the node that no other takes; of several the one softmax: a graph may keep ends that nobody wants."""
    taken = {name.removeprefix("^").partition(":")[0] for node in nodes for name in node.input}
    ends = [node for node in nodes if node.name not in taken and node.op not in _NO_RESULT]
    softmax = [node for node in ends if node.op == "Softmax"]
    return _only(softmax if len(softmax) == 1 else ends, "last node", "--output-node", path)


def _only(found: Sequence[Any], what: str, flag: str, path: Path) -> Any:
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"--in-graph {path}: no {what} in it; name the node with {flag}")
    names = ", ".join(node.name for node in found[:8]) + (", ..." if len(found) > 8 else "")
    raise UserError(f"--in-graph {path}: several could be the {what} ({names}); choose with {flag}")


def _dtype(node: Any) -> int:
    """Return the type of what a node puts out; float32 where the node does not say."""
    for name in _TYPE_ATTRIBUTES:
        if name in node.attr:
            return int(node.attr[name].type)
    return int(types_pb2.DT_FLOAT)


def _copy_shape(node: Any, info: Any) -> None:
    """Take over the shape of a placeholder; one without any becomes a shape nobody knows."""
    shape = node.attr["shape"].shape if "shape" in node.attr else None
    if shape is None or shape.unknown_rank:
        info.tensor_shape.unknown_rank = True
    else:
        info.tensor_shape.CopyFrom(shape)
