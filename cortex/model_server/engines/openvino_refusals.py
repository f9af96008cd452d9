"""What OpenVINO computes otherwise than TensorFlow without a word, found in a graph before it answers anybody.

Such a signature is refused, so that an engine takes it that answers it right. Where shapes are computed, none of this
counts: their values are small. The list was made by asking both engines the same (OpenVINO 2026.4).
"""

import re
from collections.abc import Iterator
from typing import Any

import openvino as ov
from openvino.op.util import ConcatOutputDescription

from cortex.model_server.engines.base import Unsupported
from cortex.model_server.engines.openvino_bodies import bodies
from cortex.protos import meta_graph_pb2

_WRITES = re.compile(r"Assign(Add|Sub)?(VariableOp)?|(Resource)?Scatter(?!Nd$|NdNonAliasing)\w*")
_GROWS = "resize_if_index_out_of_bounds"
_DIVISIONS = ("Divide", "Mod", "FloorMod")
_COMPARISONS = ("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual")
_LENGTHS = {"LSTMSequence": 3, "GRUSequence": 2, "RNNSequence": 2}
"""Which input of a sequence operation says how long each sequence is."""
_UNCHECKED = {
    "CTCGreedyDecoderSeqLen": 1,
    "GatherND": 1,
    "Range": 2,
    "ScatterElementsUpdate": 1,
    "StridedSlice": 3,
    "VariadicSplit": 2,
}
"""Which input memory is read or written by, or divided by, without a look at what it is."""
_WRONG = {
    "NonZero": "answers with numbers of the request before where a choice by values leaves nothing",
    "Unique": "gives other values than tf.unique",
}


def check_operations(model: Any, signature: str, *, is_body: bool = False) -> None:
    """Raise Unsupported for an `openvino.Model` with an operation that is wrong for some values of its inputs.

    In the body of a loop or a branch all inputs count as such; its comparisons are those of a loop's own small numbers.
    """
    varying: set[str] = set()
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        given = [each.get_source_output().get_node().get_name() in varying for each in node.inputs()]
        if kind == "Parameter" or (any(given) and kind != "ShapeOf"):
            varying.add(node.get_name())
            reason = "" if is_body and kind in _COMPARISONS else _reason(kind, node, given)
            if reason:
                raise Unsupported(f"OpenVINO {reason}, and signature {signature!r} does that ({kind})")
        for body in bodies(node):
            check_operations(body, signature, is_body=True)


def check_nodes(graph: meta_graph_pb2.MetaGraphDef, signature: str) -> None:
    """Raise Unsupported for a signature of TensorFlow's that changes a variable, or lets an array grow."""
    for node in _reached(graph, signature):
        if _WRITES.fullmatch(node.op):
            raise Unsupported(f"OpenVINO never changes a variable, and signature {signature!r} does ({node.op})")
        if _GROWS in node.attr and node.attr[_GROWS].b:
            raise Unsupported(f"OpenVINO loses what is written to an array that grows, as in signature {signature!r}")


def _reason(kind: str, node: Any, given: list[bool]) -> str:
    """Return what is wrong with an operation, of which ``given`` says what inputs depend on a request; empty if not."""
    dtype = node.get_output_element_type(0).get_type_name() if node.get_output_size() else ""
    if dtype == "f64":
        return "computes with doubles in single precision"
    if kind in ("MatMul", "Einsum") and dtype in ("i8", "u8"):
        return "adds up products of 8-bit integers within 8 bits"
    if kind in _DIVISIONS and dtype[0] in "iu":
        return "divides integers in floating point"
    if kind in _COMPARISONS and all(given) and node.get_input_element_type(0).get_type_name() in ("i32", "i64"):
        return "compares integers in single precision"
    if kind in _LENGTHS and given[_LENGTHS[kind]]:
        return "runs through whole sequences, however short they are said to be"
    if kind == "Loop" and any(given[:2]) and _collects(node):
        return "answers with numbers of the request before where a loop makes no turn"
    if (kind in _UNCHECKED and given[_UNCHECKED[kind]]) or (kind == "Gather" and _is_unchecked(node, given)):
        return "reads what lies behind a tensor, or ends the process, at an index, length or step that does not fit"
    if kind == "ScatterNDUpdate" and given[1] and not given[0]:
        return "keeps one of the values that tf.scatter_nd adds up"
    if kind == "StridedSlice" and any(given[1:]) and _is_static(node):
        return "fails over a place that a request says in a tensor of known size"
    return _WRONG.get(kind, "")


def _is_unchecked(gather: Any, given: list[bool]) -> bool:
    """Say whether a gather takes indices as they are: over a list of integers, and for each row of a batch its own.

    The latter fails for a batch of one, and for batches of which one is longer than the other.
    """
    data, indices = gather.get_input_partial_shape(0), gather.get_input_partial_shape(1)
    if gather.get_attributes()["batch_dims"]:
        return given[1]
    is_list = data.rank == ov.Dimension(1) and gather.get_input_element_type(0).get_type_name() in ("i32", "i64")
    return is_list and not (indices.rank.is_static and len(indices) > 1)


def _is_static(node: Any) -> bool:
    shapes = node.get_input_partial_shape(0), node.get_output_partial_shape(0)
    return not any(shape.is_dynamic for shape in shapes)


def _collects(loop: Any) -> bool:
    """Say whether a loop puts together what its turns give."""
    return any(isinstance(each, ConcatOutputDescription) for each in loop.get_output_descriptions())


def _reached(graph: meta_graph_pb2.MetaGraphDef, signature: str) -> Iterator[Any]:
    """Yield the nodes that a signature runs: those its outputs need, and all of the functions that these call."""
    nodes = {node.name: node for node in graph.graph_def.node}
    functions = {each.signature.name: each for each in graph.graph_def.library.function}
    waiting = [info.name for info in graph.signature_def[signature].outputs.values()]
    while waiting:
        node = nodes.pop(waiting.pop().removeprefix("^").partition(":")[0], None)
        if node is not None:
            waiting += node.input
            yield node
            yield from _called(node, functions)


def _called(node: Any, functions: dict[str, Any]) -> Iterator[Any]:
    for value in node.attr.values():
        for name in (value.func.name, *(each.name for each in value.list.func)):
            if function := functions.pop(name, None):
                for inner in function.node_def:
                    yield inner
                    yield from _called(inner, functions)
