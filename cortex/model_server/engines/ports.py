"""Signatures for graphs that state none of their own, or not as SavedModels do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cortex import tensors
from cortex.model_server.engines.base import Unsupported
from cortex.model_server.saved_model import PREDICT_METHOD
from cortex.protos import meta_graph_pb2


@dataclass(frozen=True)
class Port:
    """One input or output of a graph: what requests call it, its name in the graph, dtype and shape.

    A dimension that is not fixed is -1; ``shape`` is None when not even the rank is.
    """

    alias: str
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None


def signature(inputs: Sequence[Port], outputs: Sequence[Port]) -> meta_graph_pb2.SignatureDef:
    """Return the Predict signature of these ports. Raises Unsupported for a dtype that TensorFlow does not have."""
    built = meta_graph_pb2.SignatureDef(method_name=PREDICT_METHOD)
    for ports, infos in ((inputs, built.inputs), (outputs, built.outputs)):
        for port in ports:
            infos[port.alias].CopyFrom(_info(port))
    return built


def _info(port: Port) -> meta_graph_pb2.TensorInfo:
    try:
        info = meta_graph_pb2.TensorInfo(name=port.name, dtype=tensors.enum_of(port.dtype))
    except ValueError as error:
        raise Unsupported(f"{port.alias!r}: {error}") from error
    info.tensor_shape.unknown_rank = port.shape is None
    for size in port.shape or ():
        info.tensor_shape.dim.add(size=size)
    return info
