"""What a model's graph is made of: how many operations of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cortex.model_server import saved_model

_PLUMBING = frozenset({"Const", "Constant", "Identity", "NoOp", "Placeholder", "ReadVariableOp", "VarHandleOp"})
"""Operations that compute nothing: they hold, name or pass on a value."""


def of_saved_model(directory: Path) -> Counter[str]:
    """Count the operations of the largest function of a SavedModel, or of its graph where that is larger."""
    graph = saved_model.parse(directory).meta_graphs[0].graph_def
    serving = [each.node_def for each in graph.library.function if "serve" in each.signature.name]
    return _counted(node.op for node in max([graph.node, *serving], key=len))


def of_onnx(path: Path) -> Counter[str]:
    """Count the operations of an ONNX graph."""
    import onnx

    return _counted(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


def _counted(kinds: Iterable[str]) -> Counter[str]:
    return Counter(kind for kind in kinds if kind not in _PLUMBING)
