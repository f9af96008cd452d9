"""Tensors, statuses and metadata as TF Serving's JSON, to the last space.

Numbers are printed as its ``WriteDecimal`` prints them: six significant digits when they read back as the same value,
else enough digits to do so (9 for float, 17 for double), and a whole number ends in ``.0``.
"""

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message

from cortex.model_server.call import dtype_string
from cortex.model_server.engines.base import Array
from cortex.model_server.status import invalid
from cortex.protos import classification_pb2, get_model_metadata_pb2, regression_pb2
from cortex.tensors import enum_of

_INDENT = "    "
_ESCAPES = {code: f"\\u{code:04X}" for code in range(32)} | {
    ord(plain): "\\" + letter for plain, letter in zip('"\\\b\f\n\r\t', '"\\bfnrt', strict=True)
}

Write = Callable[[Any, int], str]
"""Prints one value that stands inside so many lists and objects."""


def predictions(outputs: Mapping[str, Array]) -> str:
    """Return the answer to a row request: one element per row. Raises StatusError when outputs have no common rows."""
    size = _batch_size(outputs)
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        write = _writer(name, array)
        rows = ", ".join(_single_line(row, 2, write) for row in array.tolist())
        return f'{{\n{_INDENT}"predictions": [{rows}\n{_INDENT}]\n}}'
    writers = {name: _writer(name, array) for name, array in outputs.items()}
    columns = {name: array.tolist() for name, array in outputs.items()}
    objects = (_object({name: columns[name][row] for name in sorted(columns)}, writers) for row in range(size))
    return f'{{\n{_INDENT}"predictions": [\n{_INDENT * 2}' + f",\n{_INDENT * 2}".join(objects) + f"\n{_INDENT}]\n}}"


def outputs(arrays: Mapping[str, Array]) -> str:
    """Return the answer to a columnar request. Raises StatusError for a type that JSON cannot hold."""
    if len(arrays) == 1:
        ((name, array),) = arrays.items()
        return f'{{\n{_INDENT}"outputs": {_indented(array.tolist(), 1, _writer(name, array))}\n}}'
    members = (
        f"{_quoted(name)}: {_indented(arrays[name].tolist(), 2, _writer(name, arrays[name]))}"
        for name in sorted(arrays)
    )
    return f'{{\n{_INDENT}"outputs": {{\n{_INDENT * 2}' + f",\n{_INDENT * 2}".join(members) + f"\n{_INDENT}}}\n}}"


def classes(result: classification_pb2.ClassificationResult) -> str:
    """Return the answer to a classify request: for each Example a list of label and score. Raises when it is empty."""
    if not result.classifications:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    rows = ", ".join(
        "[" + ", ".join(f"[{_quoted(each.label)}, {_float(each.score)}]" for each in row.classes) + "]"
        for row in result.classifications
    )
    return f'{{\n{_INDENT}"results": [{rows}\n{_INDENT}]\n}}'


def values(result: regression_pb2.RegressionResult) -> str:
    """Return the answer to a regress request: for each Example its value. Raises StatusError when it is empty."""
    if not result.regressions:
        raise invalid("Cannot convert empty RegressionResults to JSON")
    return f'{{\n{_INDENT}"results": [{", ".join(_float(each.value) for each in result.regressions)}]\n}}'


def error(message: str) -> str:
    """Return the body of a failure."""
    return f'{{\n{_INDENT}"error": {_quoted(message)}\n}}'


def message(proto: Message) -> str:
    """Return a message with every field printed, as protobuf's C++ printer lays it out."""
    text: str = json_format.MessageToJson(
        proto, indent=1, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return text + "\n"


def metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> str:
    """Return GetModelMetadata's answer, with the signatures unpacked."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    spec, unpacked = message(response.model_spec), message(signatures)
    return f'{{\n"model_spec":{spec},\n"metadata": {{"signature_def": {unpacked}}}\n}}\n'


def decimal(value: float, digits: int = 17, same: Callable[[str], bool] | None = None) -> str:
    """Return one number as TF Serving prints it; ``same`` says whether a text reads back as the value."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = f"{value:g}"
    if not (same(text) if same else float(text) == value):
        text = f"{value:.{digits}g}"
    return text if "." in text or "e" in text else text + ".0"


def _float(value: float, level: int = 0) -> str:
    return decimal(value, 9, lambda text: float(np.float32(text)) == value)


def _double(value: float, level: int) -> str:
    return decimal(value)


def _boolean(value: bool, level: int) -> str:
    return "true" if value else "false"


def _integer(value: int, level: int) -> str:
    return str(value)


def _text(value: Any, level: int) -> str:
    return _quoted(value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value)


def _quoted(text: str) -> str:
    """Return a string as RapidJSON prints it: control characters in upper-case hexadecimal, and no other escapes."""
    return '"' + text.translate(_ESCAPES) + '"'


def _bytes(value: Any, level: int) -> str:
    raw = value if isinstance(value, bytes) else str(value).encode()
    text = base64.b64encode(raw).decode()
    return f'{{\n{_INDENT * (level + 1)}"b64": "{text}"\n{_INDENT * level}}}'


def _writer(name: str, array: Array) -> Write:
    """Return what prints one element; strings of an output named ``*_bytes`` are base64."""
    kind = array.dtype
    if kind == np.object_ or kind.kind in "SU":
        return _bytes if name.endswith("_bytes") else _text
    if kind in (np.float32, np.float64):
        return _float if kind == np.float32 else _double
    if kind == np.bool_:
        return _boolean
    if kind.kind in "iu" and kind != np.uint16:
        return _integer
    raise invalid(f"Failed to write JSON value for tensor type: {dtype_string(enum_of(kind))}")


def _batch_size(arrays: Mapping[str, Array]) -> int:
    size = 0
    for name, array in sorted(arrays.items()):
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if array.shape[0] < 1:
            raise invalid(f"Tensor name: {name} has invalid batch size: {array.shape[0]}")
        if size and array.shape[0] != size:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} expecting: {size}")
        size = array.shape[0]
    return size


def _object(values: Mapping[str, Any], writers: Mapping[str, Write]) -> str:
    inner = _INDENT * 3
    members = (f"{_quoted(name)}: {_single_line(value, 3, writers[name])}" for name, value in values.items())
    return f"{{\n{inner}" + f",\n{inner}".join(members) + f"\n{_INDENT * 2}}}"


def _single_line(value: Any, level: int, write: Write) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_single_line(each, level + 1, write) for each in value) + "]"
    return write(value, level)


def _indented(value: Any, level: int, write: Write) -> str:
    if not isinstance(value, list):
        return write(value, level)
    if not value:
        return "[]"
    inner = "\n" + _INDENT * (level + 1)
    elements = f",{inner}".join(_indented(each, level + 1, write) for each in value)
    return f"[{inner}{elements}\n{_INDENT * level}]"
