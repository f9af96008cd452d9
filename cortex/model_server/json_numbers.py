"""Which numbers of JSON a dtype holds, by TF Serving's rules."""

from dataclasses import dataclass

from cortex.protos import types_pb2

_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)

INTEGERS = {
    types_pb2.DT_INT32: range(-(2**31), 2**31),
    types_pb2.DT_INT16: range(-(2**15), 2**15),
    types_pb2.DT_INT8: range(-128, 128),
    types_pb2.DT_UINT8: range(256),
    types_pb2.DT_INT64: _INT64,
    types_pb2.DT_UINT32: range(2**32),
    types_pb2.DT_UINT64: _UINT64,
}
"""The values of each integer dtype. TF Serving parses the small ones as int32; here nothing wraps around."""


@dataclass(frozen=True)
class Floating:
    """A floating dtype: TF Serving's name of it, and the largest integer that it holds with all those below it."""

    name: str
    whole: int
    largest: float


FLOATS = {
    types_pb2.DT_FLOAT: Floating("float", 2**24 - 1, 3.4028234663852886e38),
    types_pb2.DT_DOUBLE: Floating("double", 2**53 - 1, 1.7976931348623157e308),
}


def is_decimal(value: float) -> bool:
    """Say whether a number is a decimal to RapidJSON: an integer beyond 64 bits is one."""
    return type(value) is not int or not (value in _INT64 or value in _UINT64)


def is_lossy(value: float, dtype: int) -> bool:
    """Say whether the floating dtype cannot hold a number; it need not hold all digits of a decimal."""
    floating = FLOATS[dtype]
    if is_decimal(value):
        return floating.largest < abs(value) < float("inf")
    return abs(value) > floating.whole
