"""Say in TF Serving's words why a JSON value is not a tensor. Used only once it is known that it is not."""

import json
from typing import Any

from cortex.model_server.call import dtype_string
from cortex.model_server.json_numbers import FLOATS, INTEGERS, is_lossy
from cortex.model_server.json_object import is_base64
from cortex.model_server.json_writer import decimal
from cortex.model_server.status import Code, StatusError, invalid
from cortex.protos import types_pb2

_LONGEST = 256
_ENCODER = json.JSONEncoder(indent=4, ensure_ascii=False)


def debug_string(value: Any) -> str:
    """Return a JSON value as TF Serving quotes it in a message: pretty-printed, at most 256 bytes."""
    if isinstance(value, float):
        return decimal(value)
    pieces: list[str] = []
    size = 0
    try:
        for piece in _ENCODER.iterencode(value):  # a piece at a time: the value may be as large as a request
            pieces.append(piece[:_LONGEST])
            size += len(piece)
            if size >= _LONGEST:
                break
    except RecursionError:
        return "[...]"
    return "".join(pieces).encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")


def explain(value: Any, dtype: int) -> tuple[int, tuple[int, ...]]:
    """Return the number of leaves and the shape of a well-formed value; raise the StatusError of a malformed one."""
    shape = _shape(value)
    return _check(value, 0, shape, dtype), shape


def _shape(value: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _check(value: Any, level: int, shape: tuple[int, ...], dtype: int) -> int:
    if not isinstance(value, list):
        _check_leaf(value, level, shape, dtype)
        return 1
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    return sum(_check(each, level + 1, shape, dtype) for each in value)


def _check_leaf(value: Any, level: int, shape: tuple[int, ...], dtype: int) -> None:
    if level != len(shape):
        raise invalid(
            f"JSON Value: {debug_string(value)} found at incorrect level: {level + 1} in the JSON DOM. "
            f"Expected at level: {len(shape)}"
        )
    if isinstance(value, dict):
        _check_object(value, dtype)
    elif dtype in FLOATS:
        _check_decimal(value, dtype)
    elif dtype in INTEGERS:
        if type(value) is not int or value not in INTEGERS[dtype]:
            raise _type_error(value, dtype)
    elif dtype not in (types_pb2.DT_STRING, types_pb2.DT_BOOL):
        raise StatusError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {debug_string(value)} to type: {dtype_string(dtype)}"
        )
    elif not isinstance(value, str if dtype == types_pb2.DT_STRING else bool):
        raise _type_error(value, dtype)


def _check_object(value: dict[str, Any], dtype: int) -> None:
    if dtype != types_pb2.DT_STRING:
        raise _type_error(value, dtype)
    if not is_base64(value):
        raise invalid(f"JSON Value: {debug_string(value)} not formatted correctly for base64 data")


def _check_decimal(value: Any, dtype: int) -> None:
    if type(value) not in (int, float):
        raise _type_error(value, dtype)
    check_lossless(value, dtype)


def check_lossless(value: float, dtype: int) -> None:
    """Raise INVALID_ARGUMENT for a number that the floating dtype cannot hold."""
    if is_lossy(value, dtype):
        target = FLOATS[dtype].name
        raise invalid(f"Cannot convert JSON value: {debug_string(value)} to {target} without loss of precision.")


def _type_error(value: Any, dtype: int) -> StatusError:
    return invalid(
        f"JSON Value: {debug_string(value)} Type: {type_name(value)} is not of expected type: {dtype_string(dtype)}"
    )


def type_name(value: Any) -> str:
    """Return RapidJSON's name of a value's type."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names = {dict: "Object", list: "Array", str: "String"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "Number")
