"""A tensor from the model server, as the flat list that Cortex's users know.

Cortex read the typed field of the answer out of protobuf's JSON form, so the shape is gone, int64 is a string, bytes
are base64, NaN and infinities are words, and a half is its bit pattern. This does the same from either encoding of a
tensor, without a step in Python for each element. Floats are the exact value of the float32.
"""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

from cortex.protos import tensor_pb2, types_pb2
from cortex.tensors import Array, to_array, type_name


def flat_list(name: str, proto: tensor_pb2.TensorProto) -> list[Any]:
    """Return the values of one output. Raises KeyError, as Cortex did, for the dtypes it had no list for and for an
    empty tensor; ValueError for a tensor that does not hold together."""
    if proto.dtype not in _LISTS:
        raise KeyError(
            f"output {name!r} is of type {type_name(proto.dtype)}; predict_numpy() returns outputs of any type"
        )
    array = to_array(proto)
    if not array.size:
        raise KeyError(f"output {name!r} is empty, of shape {list(array.shape)}; predict_numpy() returns empty outputs")
    return _LISTS[proto.dtype](array.ravel())


def _plain(array: Array) -> list[Any]:
    values: list[Any] = array.tolist()
    return values


def _floats(array: Array) -> list[Any]:
    values = _plain(array)
    if not np.isfinite(array).all():
        for index in np.flatnonzero(~np.isfinite(array)).tolist():
            values[index] = "NaN" if np.isnan(array[index]) else "Infinity" if array[index] > 0 else "-Infinity"
    return values


def _interleaved(array: Array) -> list[Any]:
    return _floats(array.view(array.real.dtype))


def _halves(array: Array) -> list[Any]:
    return _plain(array.view(np.uint16))


def _integers(array: Array) -> list[Any]:
    return [str(value) for value in array.tolist()]


def _base64(array: Array) -> list[Any]:
    return [base64.b64encode(value).decode() for value in array.tolist()]


_LISTS: dict[int, Callable[[Array], list[Any]]] = {
    types_pb2.DT_FLOAT: _floats,
    types_pb2.DT_DOUBLE: _floats,
    types_pb2.DT_INT32: _plain,
    types_pb2.DT_INT64: _integers,
    types_pb2.DT_BOOL: _plain,
    types_pb2.DT_STRING: _base64,
    types_pb2.DT_HALF: _halves,
    types_pb2.DT_COMPLEX64: _interleaved,
    types_pb2.DT_COMPLEX128: _interleaved,
}
