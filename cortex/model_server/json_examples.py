"""TF Serving's JSON of a classify or regress request, to its Input of tf.Examples."""

from collections.abc import Callable
from typing import Any

from cortex.model_server import json_document
from cortex.model_server.json_document import Document
from cortex.model_server.json_error import check_lossless, debug_string, type_name
from cortex.model_server.json_numbers import INTEGERS, is_decimal
from cortex.model_server.json_object import is_base64, pairs
from cortex.model_server.status import StatusError, invalid
from cortex.protos import example_pb2, input_pb2, types_pb2

_CONTEXT, _EXAMPLES = "context", "examples"


def decode(document: Document) -> input_pb2.Input:
    """Return the Examples of a request, and their common context if it has one. Raises INVALID_ARGUMENT."""
    message = input_pb2.Input()
    examples = message.example_list.examples
    if _CONTEXT in document:
        examples = message.example_list_with_context.examples
        message.example_list_with_context.context.CopyFrom(_example(document[_CONTEXT]))
    for value in _listed(document):
        examples.append(_example(value))
    return message


def _listed(document: Document) -> list[Any]:
    if _EXAMPLES not in document:
        raise _malformed(document, f"When method is classify, key '{_EXAMPLES}' is expected and was not found")
    listed = document[_EXAMPLES]
    if not isinstance(listed, list):
        raise _malformed(document, f"Expecting '{_EXAMPLES}' value to be an list/array")
    if not listed:
        raise _malformed(document, f"'{_EXAMPLES}' value is an empty array")
    return listed


def _malformed(document: Document, text: str) -> StatusError:
    return invalid(f"JSON Value: {debug_string(document)} {text}")


def _example(value: Any) -> example_pb2.Example:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_name(value)}")
    example = example_pb2.Example()
    for name, content in pairs(value):  # the last of a name counts
        feature = example.features.feature[json_document.utf8(name).decode("utf-8", "replace")]
        feature.Clear()
        for element in content if isinstance(content, list) else [content]:
            kind, read = _KINDS.get(_type(element), (None, None))
            if kind is None or read is None:
                raise _unexpected(name, element)
            plain = read(name, element)
            if feature.WhichOneof("kind") not in (None, kind):
                expected = feature.WhichOneof("kind").removesuffix("_list")
                raise invalid(f"Unexpected element type in feature: {name} expecting type: {expected}")
            getattr(feature, kind).value.append(plain)
    return example


def _type(value: Any) -> type:
    """Return what kind of value it is to RapidJSON."""
    return float if type(value) is int and is_decimal(value) else type(value)


def _integer(name: str, value: int) -> int:
    if value not in INTEGERS[types_pb2.DT_INT64]:
        raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    return int(value)


def _decimal(name: str, value: float) -> float:
    check_lossless(value, types_pb2.DT_FLOAT)
    return value


def _string(name: str, value: str) -> bytes:
    return json_document.utf8(value)


def _bytes(name: str, value: dict[str, Any]) -> bytes:
    if not is_base64(value):
        raise _unexpected(name, value)
    return json_document.unescaped(value["b64"])


def _unexpected(name: str, value: Any) -> StatusError:
    return invalid(f"Feature: {name} has element with unexpected JSON type: {type_name(value)}")


_KINDS: dict[type, tuple[str, Callable[[str, Any], Any]]] = {
    bool: ("int64_list", _integer),
    int: ("int64_list", _integer),
    float: ("float_list", _decimal),
    str: ("bytes_list", _string),
    dict: ("bytes_list", _bytes),
}
"""The list of a Feature that holds values of a type, and what reads one."""
