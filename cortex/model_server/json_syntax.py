"""What is wrong with a text that is no JSON, in the words and at the offset of RapidJSON."""

import itertools
import json
import re

from cortex.model_server.status import invalid

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)

_REASONS = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Invalid control character at": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
}
_WORDS = ("null", "true", "false", "NaN", "Infinity", "-Infinity")


def check_surrogates(body: bytes) -> None:
    """Raise INVALID_ARGUMENT for half of a surrogate pair, written as an escape, anywhere in the body."""
    if not _SURROGATE.search(body):
        return
    for escape in _ESCAPE.finditer(body):
        if escape["half"]:
            text = f"The surrogate pair in string is invalid. at offset: {escape.start()}"
            raise invalid(f"JSON Parse error: {text}")


def explain(text: str, error: json.JSONDecodeError) -> tuple[str, int]:
    """Return the reason and the position that RapidJSON gives where Python's parser gave up."""
    reason, position = error.msg.removesuffix(": "), error.pos
    if reason == "Expecting ',' delimiter":
        return _unseparated(text, position)
    if reason == "Expecting value":
        return _no_value(text, position)
    if reason.startswith("Invalid \\uXXXX"):
        position -= 1  # the backslash
    elif reason.startswith("Unterminated"):
        position = len(text)
    return _REASONS.get(reason, reason), position


def _no_value(text: str, position: int) -> tuple[str, int]:
    if not text[position:].strip(" \t\r\n") and not text[:position].strip(" \t\r\n"):
        return "The document is empty.", len(text)
    rest = text[position : position + max(map(len, _WORDS))]
    return _REASONS["Expecting value"], position + max(_matched(rest, word) for word in _WORDS)


def _matched(text: str, word: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, word, strict=False)))


def _unseparated(text: str, position: int) -> tuple[str, int]:
    """Tell a number that is cut short from a list or an object that goes on without a comma."""
    if text[position - 1].isdigit() and text.startswith(".", position):
        return "Miss fraction part in number.", position + 1
    if text[position - 1].isdigit() and text[position : position + 1] in ("e", "E"):
        return "Miss exponent in number.", position + 1 + (text[position + 1 : position + 2] in ("+", "-"))
    depth = []
    for token in _BRACKET.finditer(text, 0, position):
        if token[0] in "[{":
            depth.append(token[0])
        elif token[0] in "]}":
            depth.pop()
    if depth[-1] == "{":
        return "Missing a comma or } after an object member.", position
    return "Missing a comma or ] after an array element.", position
