"""numpy arrays to TensorProto and back, without TensorFlow.

The rules are those of ``tensorflow/core/framework/tensor.proto``: the values stand either in ``tensor_content`` (raw,
little-endian) or in the typed field of the dtype; a typed field that is shorter than the tensor repeats its last value.
A proto comes from outside, so its shape is checked before any memory is taken for it.
"""

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from cortex.protos import tensor_pb2, types_pb2

MAX_BYTES = 2**31 - 1  # what one protobuf message can hold, so no honest tensor is larger
_MOST_REPEATED = 2**24  # elements that a few values stand for: it is how a small message would take all memory
Array = NDArray[Any]


@dataclass(frozen=True)
class _Kind:
    """One dtype of TensorProto: its number, its numpy dtype, and the field that holds its values one by one."""

    enum: int
    dtype: np.dtype[Any]
    field: str


def _kinds() -> tuple[_Kind, ...]:
    rows: list[tuple[str, Any, str]] = [
        ("DT_FLOAT", np.float32, "float_val"),
        ("DT_DOUBLE", np.float64, "double_val"),
        ("DT_INT32", np.int32, "int_val"),
        ("DT_UINT8", np.uint8, "int_val"),
        ("DT_INT16", np.int16, "int_val"),
        ("DT_INT8", np.int8, "int_val"),
        ("DT_UINT16", np.uint16, "int_val"),
        ("DT_STRING", np.object_, "string_val"),
        ("DT_COMPLEX64", np.complex64, "scomplex_val"),
        ("DT_COMPLEX128", np.complex128, "dcomplex_val"),
        ("DT_INT64", np.int64, "int64_val"),
        ("DT_BOOL", np.bool_, "bool_val"),
        ("DT_HALF", np.float16, "half_val"),
        ("DT_BFLOAT16", ml_dtypes.bfloat16, "half_val"),
        ("DT_UINT32", np.uint32, "uint32_val"),
        ("DT_UINT64", np.uint64, "uint64_val"),
    ]
    return tuple(_Kind(types_pb2.DataType.Value(name), np.dtype(kind), field) for name, kind, field in rows)


_BY_ENUM = {kind.enum: kind for kind in _kinds()}
_BY_DTYPE = {kind.dtype: kind for kind in _kinds()}


_PACKED = {
    np.dtype(kind): tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name[field].number
    for kind, field in [
        (np.float32, "float_val"),
        (np.float64, "double_val"),
        (np.complex64, "scomplex_val"),
        (np.complex128, "dcomplex_val"),
    ]
}
"""The number of each typed field whose bytes in a message are those of the array itself."""


def dtype_of(enum: int) -> np.dtype[Any]:
    """Return the numpy dtype of a ``DataType`` number; strings are ``object``. ValueError for a dtype without one."""
    return _kind(enum).dtype


def enum_of(dtype: np.dtype[Any]) -> int:
    """Return the ``DataType`` number of a numpy dtype; strings are DT_STRING. ValueError if there is none."""
    if dtype.kind in "SU":
        dtype = np.dtype(np.object_)
    if dtype not in _BY_DTYPE:
        raise ValueError(f"numpy dtype {dtype} has no TensorFlow dtype")
    return _BY_DTYPE[dtype].enum


def type_name(enum: int) -> str:
    """Return TensorFlow's short name of a ``DataType`` number: ``float32`` for DT_FLOAT, ``string`` for DT_STRING."""
    if enum == types_pb2.DT_STRING:
        return "string"
    return dtype_of(enum).name if enum in _BY_ENUM else types_pb2.DataType.Name(enum).removeprefix("DT_").lower()


def to_array(proto: tensor_pb2.TensorProto) -> Array:
    """Return the tensor as an array, read-only where it shares the proto's memory; strings are objects of type bytes.

    Raises ValueError for a shape, length or dtype that does not hold together, before memory is taken for it.
    """
    kind = _kind(proto.dtype)
    shape, count = _shape(proto, kind.dtype.itemsize)
    if content := proto.tensor_content:  # each look at it copies it
        return _from_content(content, kind, shape, count)
    return _from_values(_values(proto, kind), kind, shape, count)


def to_proto(array: Array, *, typed: bool = False) -> tensor_pb2.TensorProto:
    """Return the array as a TensorProto: raw in ``tensor_content``, or value by value in its field when ``typed``.

    Strings always go value by value; str is encoded as UTF-8. Raises ValueError for a dtype that TensorFlow lacks.
    """
    proto = tensor_pb2.TensorProto()
    fill(proto, array, typed=typed)
    return proto


def fill(proto: tensor_pb2.TensorProto, array: Array, *, typed: bool = False) -> None:
    """Write the array into an empty TensorProto, such as one of a request's inputs, as `to_proto` does."""
    proto.dtype = enum = enum_of(array.dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if enum == types_pb2.DT_STRING:
        proto.string_val.extend(_bytes(value) for value in array.ravel().tolist())
    elif typed and array.dtype in _PACKED:
        _extend_packed(proto, _PACKED[array.dtype], array.tobytes())
    elif typed:
        getattr(proto, _BY_ENUM[enum].field).extend(_field_values(array))
    else:
        proto.tensor_content = array.tobytes()


def _kind(enum: int) -> _Kind:
    if enum not in _BY_ENUM:
        name = types_pb2.DataType.Name(enum) if enum in types_pb2.DataType.values() else str(enum)
        raise ValueError(f"tensor dtype {name} is not supported")
    return _BY_ENUM[enum]


def _shape(proto: tensor_pb2.TensorProto, itemsize: int) -> tuple[tuple[int, ...], int]:
    if proto.tensor_shape.unknown_rank:
        raise ValueError("tensor has a shape of unknown rank")
    shape = tuple([dim.size for dim in proto.tensor_shape.dim])
    if min(shape, default=0) < 0:
        raise ValueError(f"tensor shape {list(shape)} has a negative dimension")
    if len(shape) > 32:
        raise ValueError(f"tensor has {len(shape)} dimensions, more than 32")
    count = math.prod(shape)
    if count * itemsize > MAX_BYTES:
        raise ValueError(f"tensor shape {list(shape)} announces more than {MAX_BYTES} bytes")
    return shape, count


def _from_content(content: bytes, kind: _Kind, shape: tuple[int, ...], count: int) -> Array:
    if kind.dtype == np.object_:
        raise ValueError("string tensors must use string_val, not tensor_content")
    if len(content) != count * kind.dtype.itemsize:
        raise ValueError(
            f"tensor_content has {len(content)} bytes, but shape {list(shape)} of {kind.dtype.name} "
            f"needs {count * kind.dtype.itemsize}"
        )
    return np.frombuffer(content, kind.dtype).reshape(shape)


def _values(proto: tensor_pb2.TensorProto, kind: _Kind) -> Array:
    field = getattr(proto, kind.field)
    if kind.dtype == np.object_:
        values = np.empty(len(field), np.object_)
        values[:] = list(field)
        return values
    if kind.field == "half_val":
        return np.asarray(field, np.uint16).view(kind.dtype)
    if kind.dtype.kind == "c":
        parts = np.asarray(field, np.float32 if kind.dtype == np.complex64 else np.float64)
        return parts[: len(parts) // 2 * 2].view(kind.dtype)
    return np.asarray(field).astype(kind.dtype) if len(field) else np.empty(0, kind.dtype)


def _from_values(values: Array, kind: _Kind, shape: tuple[int, ...], count: int) -> Array:
    if len(values) > count:
        raise ValueError(f"{kind.field} has {len(values)} values, but shape {list(shape)} holds only {count}")
    if len(values) == count:
        return values.reshape(shape)
    if count > _MOST_REPEATED:
        raise ValueError(f"the shape repeats a few values to {count} elements, more than {_MOST_REPEATED}")
    if not len(values):
        return np.full(shape, b"" if kind.dtype == np.object_ else 0, kind.dtype)
    filled = np.full(count, values[-1], kind.dtype)
    filled[: len(values)] = values
    return filled.reshape(shape)


def _extend_packed(proto: tensor_pb2.TensorProto, number: int, content: bytes) -> None:
    """Append values to a packed field as they stand on the wire; one Python float for each takes 15 times as long.

    The encoding is protobuf's: the field's number with wire type 2, the length as a varint, the bytes.
    """
    header = bytearray([number << 3 | 2])
    left = len(content)
    while left > 0x7F:
        header.append(left & 0x7F | 0x80)
        left >>= 7
    header.append(left)
    proto.MergeFromString(bytes(header) + content)


def _field_values(array: Array) -> list[Any]:
    if array.dtype.itemsize == 2 and enum_of(array.dtype) in (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16):
        array = array.view(np.uint16)
    values: list[Any] = array.ravel().tolist()
    return values


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
