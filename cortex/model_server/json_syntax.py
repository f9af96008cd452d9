"""What is wrong with a text that is no JSON, in the words and at the offset of RapidJSON."""

import itertools
import json
import math
import re

from cortex.model_server.status import invalid

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_LARGE_EXPONENTS = tuple(re.compile(letter + r"\+?[0-9]{3,}(?![\w+/=\"])", re.ASCII) for letter in "eE")
"""No base64 string has one of these; a pattern that starts with a letter of its own is searched for very fast."""
_NUMBER = re.compile(
    r'"(?:[^"\\]|\\.)*"|-?(?P<whole>[0-9]+)(?:\.(?P<fraction>[0-9]+))?(?:[eE]\+?(?P<exponent>[0-9]+))?', re.DOTALL
)
_LARGEST_EXPONENT = 308
_STEP = 155
"""Any 309 digits in a row, the fewest of an integer that is too large, hold all places between two multiples of it."""
_SIGNIFICANT = 17
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)

_REASONS = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Illegal trailing comma before end of array": "Invalid value.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
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


def has_large_number(text: str, end: int) -> bool:
    """Say whether there may be a number before ``end`` that is too large for a double. Cheap, and seldom true."""
    if any(pattern.search(text, 0, end) for pattern in _LARGE_EXPONENTS):
        return True
    return any(text[at : at + _STEP].isdecimal() for at in range(0, end, _STEP))


def large_number(text: str, end: int) -> int | None:
    """Return where the first number before ``end`` stands that RapidJSON finds too large for a double.

    It goes by the exponent: digits that make the product a little larger than the largest double make an infinity.
    """
    for number in _NUMBER.finditer(text, 0, end):
        if number["whole"] and (_is_infinite(number["whole"]) or _exponent(number) > _largest_exponent(number)):
            return number.start()
    return None


def _is_infinite(whole: str) -> bool:
    return math.isinf(float(whole[: _LARGEST_EXPONENT + 2]))


def _exponent(number: re.Match[str]) -> int:
    return int((number["exponent"] or "").lstrip("0")[:_SIGNIFICANT] or 0)


def _largest_exponent(number: re.Match[str]) -> int:
    """Return 308, and the digits of the fraction that count: those up to the seventeenth after the first."""
    whole, fraction = number["whole"], number["fraction"] or ""
    zeros = len(fraction) - len(fraction.lstrip("0")) if whole == "0" else 0
    significant = 0 if whole == "0" else len(whole) - 1
    return _LARGEST_EXPONENT + zeros + min(len(fraction) - zeros, max(0, _SIGNIFICANT - significant))


def explain(text: str, error: json.JSONDecodeError) -> tuple[str, int]:
    """Return the reason and the position that RapidJSON gives where Python's parser gave up."""
    reason, position = error.msg.removesuffix(": "), error.pos
    if reason == "Expecting ',' delimiter":
        return _unseparated(text, position)
    if reason == "Expecting value":
        return _no_value(text, position)
    if reason.startswith("Illegal trailing comma"):  # Python 3.13 names the comma, RapidJSON the bracket behind it
        position = text.index("]" if reason.endswith("array") else "}", position)
    elif reason.startswith("Invalid \\uXXXX"):
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
