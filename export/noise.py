"""Inputs that mean nothing, for a signature whose real ones are not at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cortex import tensors
from cortex.errors import UserError
from cortex.protos import meta_graph_pb2


def samples(signature: meta_graph_pb2.SignatureDef) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Yield requests of one row without end, the same ones every time.

    Integers of 8 bits are evenly spread, others are 0 or 1, as booleans are; decimals are normal around 0. Raises
    UserError for an input of which more than the batch is free: nobody says how large it is.
    """
    random = np.random.default_rng(0)
    shapes = {alias: _shape(alias, info) for alias, info in signature.inputs.items()}
    dtypes = {alias: tensors.dtype_of(info.dtype) for alias, info in signature.inputs.items()}
    while True:
        yield {alias: _array(random, shape, dtypes[alias]) for alias, shape in shapes.items()}


def _shape(alias: str, info: meta_graph_pb2.TensorInfo) -> list[int]:
    sizes = [dim.size for dim in info.tensor_shape.dim]
    if info.tensor_shape.unknown_rank or -1 in sizes[1:]:
        raise UserError(
            f"input {alias!r} has no fixed shape, so noise cannot stand for it: pass --calibration with TFRecords of "
            "PredictionLogs"
        )
    return [1 if size == -1 else size for size in sizes]


def _array(random: np.random.Generator, shape: list[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f" or dtype.kind == "V":
        return random.standard_normal(shape).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind in "ui":
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return random.integers(0, 2, shape).astype(dtype)
