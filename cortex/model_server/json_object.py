"""JSON objects, in which a name may stand more than once."""

from collections.abc import Iterable
from typing import Any


class Repeated(dict[str, Any]):
    """An object of which some name stands more than once: it maps a name to its first value, as RapidJSON finds it."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(reversed(pairs))
        self.pairs = pairs
        """Every name and value, in order."""


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these names and values."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeated(pairs)


def pairs(value: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """Return every name and value of an object, in order."""
    return value.pairs if isinstance(value, Repeated) else value.items()


def is_base64(value: Any) -> bool:
    """Say whether a value is a ``{"b64": "..."}`` string, which has no second member."""
    return type(value) is dict and len(value) == 1 and isinstance(value.get("b64"), str)
