"""A value from user code, as the tensor that a signature asks for.

The rules are those of ``tf.compat.v1.make_tensor_proto(value, dtype)``, which Cortex's users know: an array is cast
without a word (a uint8 image becomes float32), while Python values are checked: a float is no int32, a ragged list is
no tensor. A test holds both against each other. What numpy makes a tensor of by itself is accepted here, too: a list of
equal arrays or of numpy's booleans, a range.
"""

import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np

from cortex.protos import tensor_pb2
from cortex.tensors import Array, dtype_of, fill, type_name

_STRING = np.dtype(np.object_)
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "b": (bool,),
    "i": (numbers.Integral, np.integer),
    "u": (numbers.Integral, np.integer),
    "f": (numbers.Real, np.integer, np.floating),
    "c": (numbers.Complex, np.number),
    "O": (bytes, str),
}
_NUMPY_KINDS = {"b": "b", "i": "biu", "u": "biu", "f": "biuf", "c": "biufc", "O": ""}
"""The kinds that numpy infers from a list only when every element is one of `_PYTHON_TYPES`."""


def fill_tensor(proto: tensor_pb2.TensorProto, value: Any, dtype: int) -> None:
    """Write the value into an empty tensor, as a ``DataType`` number. Raises TypeError, ValueError or OverflowError."""
    if isinstance(value, tensor_pb2.TensorProto):
        proto.CopyFrom(value)
        return
    if value is None:
        raise ValueError("None values not supported.")
    kind = dtype_of(dtype)
    fill(proto, _from_array(np.asarray(value), kind) if _is_array(value) else _from_python(value, kind, dtype))


def _is_array(value: Any) -> bool:
    if callable(getattr(value, "__array__", None)) or isinstance(getattr(value, "__array_interface__", None), dict):
        return True
    return isinstance(value, (bytearray, memoryview)) or hasattr(value, "typecode")  # the last is array.array


def _from_array(array: Array, kind: np.dtype[Any]) -> Array:
    cast = _cast(array, kind)
    if kind == _STRING:
        for element in cast.ravel().tolist():
            if not isinstance(element, (bytes, str)):
                raise TypeError(f"Expected binary or unicode string, got {element!r}")
    return cast


def _cast(array: Array, kind: np.dtype[Any]) -> Array:
    if array.dtype == kind:
        return array
    with np.errstate(all="ignore"):
        return array.astype(kind)


def _from_python(value: Any, kind: np.dtype[Any], dtype: int) -> Array:
    if kind == _STRING:
        return _strings(value, dtype)
    inferred = np.array(value)  # refuses ragged lists
    # What numpy infers answers for all elements at once; only a doubtful list is walked.
    if inferred.size and inferred.dtype.kind not in _NUMPY_KINDS[_family(kind)]:
        _check(value, kind, dtype)
    return _cast(inferred, kind)


def _strings(value: Any, dtype: int) -> Array:
    array = np.array(value, np.object_)  # any other dtype would take the longest string's memory for each
    if any(isinstance(element, (list, tuple)) for element in array.ravel().tolist()):
        raise ValueError(f"Expected values to be a dense tensor, but got lists of different lengths: {value}")
    _check(value, _STRING, dtype)
    return array


def _check(value: Any, kind: np.dtype[Any], dtype: int) -> None:
    accepted = _PYTHON_TYPES[_family(kind)]
    for leaf in _leaves(value):
        if isinstance(leaf, accepted) or (isinstance(leaf, np.ndarray) and issubclass(leaf.dtype.type, accepted)):
            continue
        raise TypeError(f"Expected {type_name(dtype)}, but got {leaf} of type '{type(leaf).__name__}'.")


def _family(kind: np.dtype[Any]) -> str:
    return "f" if kind.kind == "V" else kind.kind  # bfloat16 is a void to numpy


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for element in value:
            yield from _leaves(element)
    else:
        yield value
