"""The JSON object that a REST request is, and what every kind of request reads from it.

It is read as RapidJSON reads it for TF Serving: bytes of a string need not be UTF-8 and stay what they are (here as
Python's surrogate escapes), halves of surrogate pairs are refused, and a name may stand in an object more than once.
"""

import base64
import binascii
import json
import re
from typing import Any

from cortex.model_server import json_syntax
from cortex.model_server.json_error import debug_string
from cortex.model_server.json_object import members
from cortex.model_server.status import StatusError, invalid

Document = dict[str, Any]

_BARE_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\bInf\b|-NaN\b')
_WORD = re.compile(r"-?Inf\b|-NaN\b")
_WORDS = {"Inf": "Infinity", "-NaN": "NaN"}
"""What RapidJSON takes and Python does not, to what both do."""
_SPACE = " \t\r\n"
_TOO_LARGE = "Number too big to be stored in double."
_BOM = b"\xef\xbb\xbf"
_DECODER = json.JSONDecoder(object_pairs_hook=members)


def parse(body: bytes, most_values: int | None = None) -> Document:
    """Parse the first JSON value of the body; what follows it is ignored, as TF Serving does.

    ``most_values`` bounds the lists and objects in it: an empty one is two bytes in the body and more than fifty in
    memory. Raises INVALID_ARGUMENT for anything but an object.
    """
    if most_values is not None and body.count(b"[") + body.count(b"{") > most_values:
        raise invalid(f"JSON Parse error: The document has more than {most_values} lists and objects")
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    json_syntax.check_surrogates(body)
    document = _load(body.removeprefix(_BOM).decode("utf-8", "surrogateescape"), len(_BOM) * body.startswith(_BOM))
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


def unescaped(text: str) -> bytes:
    """Decode base64 as Abseil does: whitespace is skipped and padding may be missing."""
    packed = "".join(text.split())
    try:
        return base64.b64decode(packed.rstrip("=") + "=" * (-len(packed.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def utf8(text: str) -> bytes:
    """Return the bytes of a JSON string as they were sent."""
    return text.encode("utf-8", "surrogateescape")


def _load(text: str, skipped: int) -> Any:
    """Return the first value of the text, before which so many bytes were skipped."""
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        if _WORD.match(text, error.pos):
            return _load(_BARE_WORD.sub(lambda word: _WORDS.get(word[0], word[0]), text), skipped)
        _check_numbers(text, error.pos, skipped)
        raise _broken(text, skipped, *json_syntax.explain(text, error)) from error
    except RecursionError as error:
        raise invalid("JSON Parse error: The document is nested too deeply") from error
    except ValueError as error:  # Python converts no integer of more than some thousand digits
        raise _broken(text, skipped, _TOO_LARGE, json_syntax.large_number(text, len(text)) or start) from error
    _check_numbers(text, end, skipped)
    return value


def _check_numbers(text: str, end: int, skipped: int) -> None:
    """Raise INVALID_ARGUMENT for a number too large for a double; Python makes an infinity or an integer of it."""
    if json_syntax.has_large_number(text, end) and (place := json_syntax.large_number(text, end)) is not None:
        raise _broken(text, skipped, _TOO_LARGE, place)


def _broken(text: str, skipped: int, reason: str, position: int) -> StatusError:
    return invalid(f"JSON Parse error: {reason} at offset: {skipped + len(utf8(text[:position]))}")
