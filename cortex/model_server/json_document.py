"""The JSON object that a REST request is, and what every kind of request reads from it."""

import base64
import binascii
import json
import re
from typing import Any

from cortex.model_server.json_error import debug_string
from cortex.model_server.status import invalid

Document = dict[str, Any]

_BARE_INFINITY = re.compile(r'"(?:[^"\\]|\\.)*"|\bInf\b')
_DECODER = json.JSONDecoder()


def parse(body: bytes, most_values: int | None = None) -> Document:
    """Parse the first JSON value of the body; what follows it is ignored, as TF Serving does.

    ``most_values`` bounds the lists and objects in it: an empty one is two bytes in the body and more than fifty in
    memory. Raises INVALID_ARGUMENT for anything but an object.
    """
    if most_values is not None and body.count(b"[") + body.count(b"{") > most_values:
        raise invalid(f"JSON Parse error: The document has more than {most_values} lists and objects")
    try:
        text = body.decode("utf-8-sig").lstrip(" \t\r\n")
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from error
    if not text:
        raise invalid("JSON Parse error: The document is empty")
    document = _load(text)
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {debug_string(document)} Is not object")
    return document


def signature_name(document: Document) -> str:
    """Return the signature that the request names, or nothing."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {debug_string(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return utf8(name).decode("utf-8", "replace")


def is_base64(value: Any) -> bool:
    """Say whether a value is a ``{"b64": "..."}`` string."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def unescaped(text: str) -> bytes:
    """Decode base64 as Abseil does: whitespace is skipped and padding may be missing."""
    packed = "".join(text.split())
    try:
        return base64.b64decode(packed.rstrip("=") + "=" * (-len(packed.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def utf8(text: str) -> bytes:
    """Return a JSON string's bytes; half of a surrogate pair, which JSON can write, stays as it is."""
    return text.encode("utf-8", "surrogatepass")


def _load(text: str) -> Any:
    try:
        return _DECODER.raw_decode(text)[0]
    except json.JSONDecodeError as error:
        if text.startswith("Inf", error.pos) or text.startswith("-Inf", error.pos):
            return _load(_BARE_INFINITY.sub(lambda word: "Infinity" if word[0] == "Inf" else word[0], text))
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except RecursionError as error:
        raise invalid("JSON Parse error: The document is nested too deeply") from error
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
