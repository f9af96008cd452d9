"""TF Serving's JSON of a predict request, to its PredictRequest.

The rules and texts are those of ``tensorflow_serving/util/json_tensor.cc``. A well-formed tensor is checked level by
level with set operations, a hundred times faster than value by value; only a malformed one is walked again, to say in
TF Serving's words what is wrong with it.
"""

import itertools
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np

from cortex import tensors
from cortex.model_server import json_document
from cortex.model_server.call import Inputs, InputsOf, dtype_string
from cortex.model_server.engines.base import Array
from cortex.model_server.json_document import Document
from cortex.model_server.json_error import debug_string, explain
from cortex.model_server.json_numbers import FLOATS, INTEGERS, is_lossy
from cortex.model_server.json_object import is_base64, pairs
from cortex.model_server.status import StatusError, invalid
from cortex.protos import model_pb2, predict_pb2, types_pb2

Shape = tuple[int, tuple[int, ...]]
"""The number of leaves of a JSON value, and its dimensions."""
Shapes = dict[str, Shape]


class Format(Enum):
    """How the tensors stand in the request, and so in the answer."""

    ROW = "instances"
    COLUMNAR = "inputs"


def decode(document: Document, spec: model_pb2.ModelSpec, inputs_of: InputsOf) -> predict_pb2.PredictRequest:
    """Return the request that a JSON object asks for. ``inputs_of`` gives the inputs of the signature named in it.

    Raises StatusError for everything that TF Serving refuses.
    """
    request = predict_pb2.PredictRequest()
    request.model_spec.CopyFrom(spec)
    request.model_spec.signature_name = json_document.signature_name(document)
    inputs = inputs_of(request.model_spec)
    form = format_of(document)
    try:
        arrays = (_rows if form is Format.ROW else _columns)(document[form.value], inputs)
    except RecursionError as error:
        raise invalid("JSON lists are nested too deeply; a tensor has at most 32 dimensions") from error
    for name, array in arrays.items():
        tensors.fill(request.inputs[name], array)
    return request


def format_of(document: Document) -> Format:
    """Return how the tensors stand in a JSON object. Raises StatusError."""
    rows, columns = "instances" in document, "inputs" in document
    if rows and columns:
        raise invalid(
            f"JSON Value: {debug_string(document)} Not formatted correctly expecting only"
            " one of 'inputs' or 'instances' keys to exist "
        )
    if not rows and not columns:
        raise invalid("Missing 'inputs' or 'instances' key")
    if columns:
        return Format.COLUMNAR
    if not isinstance(document["instances"], list):
        raise invalid(f"JSON Value: {debug_string(document)} Excepting 'instances' to be an list/array")
    if not document["instances"]:
        raise invalid(f"JSON Value: {debug_string(document)} No values in 'instances' array")
    return Format.ROW


def _rows(instances: list[Any], inputs: Inputs) -> dict[str, Array]:
    """Return each input with one row per element of ``instances``."""
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    if _is_object(instances[0]):
        return _named_rows(instances, inputs)
    name, info = min(inputs.items(), key=lambda item: item[0])  # of several, only base64 objects come here
    array = _dense(instances, info.dtype)
    if array is None:
        raise _plain_error(instances, info.dtype)
    return {name: array}


def _named_rows(rows: list[Any], inputs: Inputs) -> dict[str, Array]:
    """Return each input with one row per object. Of a name that stands in an object more than once all values count."""
    if not all(_is_object(row) and row.keys() == inputs.keys() for row in rows):
        raise _named_error(rows, inputs)
    values: dict[str, list[Any]] = {name: [] for name in inputs}
    for row in rows:
        for name, value in pairs(row):
            values[name].append(value)
    arrays = {name: _dense(values[name], info.dtype) for name, info in inputs.items()}
    if any(array is None for array in arrays.values()):
        raise _named_error(rows, inputs)
    # TF Serving puts all values of a name one after the other, and takes as many as there are rows
    return {name: array[: len(rows)] for name, array in arrays.items() if array is not None}


def _plain_error(values: list[Any], dtype: int) -> StatusError:
    """Return what TF Serving says of the first row that is wrong."""
    shapes: Shapes = {}
    for index, value in enumerate(values):
        if _is_object(value):
            return invalid(f"Expecting value/list but got object at item {index} of input list")
        if error := _value_error(value, dtype, "", shapes):
            return invalid(f"Failed to process element: {index} of 'instances' list. Error: {error}")
    return invalid("Failed to process 'instances' list")


def _named_error(rows: list[Any], inputs: Inputs) -> StatusError:
    """Return what TF Serving says of the first thing that is wrong, row by row and name by name."""
    shapes: Shapes = {}
    for index, row in enumerate(rows):
        if not _is_object(row):
            return invalid(f"Expecting object but got list at item {index} of input list")
        for name, value in pairs(row):
            if error := _input_error(name, value, inputs, shapes):
                return invalid(f"Failed to process element: {index} key: {name} of 'instances' list. Error: {error}")
        if row.keys() != inputs.keys():
            return invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: {debug_string(row)} "
                f"must only have keys: {','.join(sorted(inputs))}"
            )
    return invalid("Failed to process 'instances' list")


def _input_error(name: str, value: Any, inputs: Inputs, shapes: Shapes) -> StatusError | None:
    if name not in inputs:
        return invalid(f"JSON object: does not have named input: {name}")
    return _value_error(value, inputs[name].dtype, name, shapes)


def _value_error(value: Any, dtype: int, name: str, shapes: Shapes) -> StatusError | None:
    """Return what is wrong with a value, or what it does not share with the first value of its name."""
    try:
        shape = explain(value, dtype)
        _check_alike(shapes.setdefault(name, shape), shape)
    except StatusError as error:
        return error
    return None


def _check_alike(first: Shape, other: Shape) -> None:
    if first[0] != other[0]:
        raise invalid(f"Expecting tensor size: {first[0]} but got: {other[0]}")
    if first[1] != other[1]:
        raise invalid(f"Expecting shape {_shape_text(first[1])} but got: {_shape_text(other[1])}")


def _columns(value: Any, inputs: Inputs) -> dict[str, Array]:
    """Return each input as it stands, with no dimension shared."""
    if _is_object(value):
        for name in sorted(inputs):
            if name not in value:
                raise invalid(f"Missing named input: {name} in 'inputs' object.")
        return {name: _column(value[name], info.dtype) for name, info in inputs.items()}
    if len(inputs) > 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as multiple "
            "input tensors required as per tensorinfo_map"
        )
    ((name, info),) = inputs.items()
    return {name: _column(value, info.dtype)}


def _column(value: Any, dtype: int) -> Array:
    array = _dense(value, dtype)
    if array is None:
        explain(value, dtype)
        raise invalid(f"JSON Value: {debug_string(value)} is not a tensor of type: {dtype_string(dtype)}")
    return array


def _dense(value: Any, dtype: int) -> Array | None:
    """Return nested lists as an array, or None when they are ragged or hold a value of the wrong kind."""
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        size = len(level[0])
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            return None
        shape.append(size)
        level = list(itertools.chain.from_iterable(level))
    if len(shape) > 32:
        raise invalid(f"JSON lists are nested {len(shape)} deep; a tensor has at most 32 dimensions")
    leaves = _leaves(level, dtype)
    return None if leaves is None else leaves.reshape(shape)


def _leaves(values: Sequence[Any], dtype: int) -> Array | None:
    """Return the values as a flat array, or None when JSON does not give them: a wrong kind, range or dtype."""
    kinds = set(map(type, values))
    if dtype == types_pb2.DT_STRING:
        return _strings(values) if kinds <= {str, dict} else None
    if dtype == types_pb2.DT_BOOL:
        return np.array(values, np.bool_) if kinds <= {bool} else None
    if dtype in INTEGERS:
        return _integers(values, dtype) if kinds <= {int} else None
    return _decimals(values, kinds, dtype) if dtype in FLOATS and kinds <= {int, float} else None


def _integers(values: Sequence[int], dtype: int) -> Array | None:
    if values and not (min(values) in INTEGERS[dtype] and max(values) in INTEGERS[dtype]):
        return None
    return np.array(values, tensors.dtype_of(dtype))


def _decimals(values: Sequence[float], kinds: set[type], dtype: int) -> Array | None:
    if int in kinds:
        whole = [value for value in values if type(value) is int]
        largest = max(max(whole), -min(whole))
        if largest > FLOATS[dtype].whole and any(is_lossy(value, dtype) for value in whole):
            return None
    wide = np.array(values, np.float64)
    if dtype == types_pb2.DT_DOUBLE:
        return wide
    size = np.abs(wide)
    if np.any((size > np.finfo(np.float32).max) & np.isfinite(size)):
        return None
    return wide.astype(np.float32)


def _strings(values: Sequence[Any]) -> Array | None:
    array = np.empty(len(values), np.object_)
    for index, value in enumerate(values):
        if isinstance(value, str):
            array[index] = json_document.utf8(value)
        elif _is_object(value):
            return None
        else:
            array[index] = json_document.unescaped(value["b64"])
    return array


def _is_object(value: Any) -> bool:
    """Say whether a value is an object of named tensors, and not a ``{"b64": ...}`` string."""
    return isinstance(value, dict) and not is_base64(value)


def _shape_text(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
