"""What right answers are, so that a fast wrong server is caught.

An answer is right when it holds all that is expected: keys of objects may be more, lists are as long, texts equal, and
numbers agree within a tolerance.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cortex.errors import UserError
from cortex.loadtest.payloads import Payload

TOLERANCE = 0.01
"""By how much of its value a number may be off."""
UNREADABLE = (ValueError, RecursionError, OverflowError)
"""What JSON raises that is none, is nested too deeply, or holds a number too large to compare."""
_TINY = 1e-6  # what a number may be off however small it is


@dataclass(frozen=True)
class Expected:
    """A JSON value."""

    value: Any
    tolerance: float = TOLERANCE

    def accepts(self, answer: bytes) -> bool:
        try:
            return agree(json.loads(answer), self.value, self.tolerance)
        except UNREADABLE:
            return False


def agree(got: Any, want: Any, tolerance: float) -> bool:
    """Compare two values of JSON."""
    if isinstance(want, Mapping):
        return isinstance(got, Mapping) and all(key in got and agree(got[key], want[key], tolerance) for key in want)
    if isinstance(want, list):
        same = isinstance(got, list) and len(got) == len(want)
        return same and all(agree(*pair, tolerance) for pair in zip(got, want, strict=True))
    if isinstance(want, bool) or isinstance(got, bool) or not isinstance(want, int | float):
        return type(got) is type(want) and bool(got == want)
    room = max(tolerance * abs(want), _TINY)
    return isinstance(got, int | float) and math.isclose(got, want, rel_tol=0, abs_tol=room)


def expecting(payloads: Sequence[Payload], path: Path, tolerance: float = TOLERANCE) -> list[Payload]:
    """Return payloads that expect what a JSON file says.

    With one payload the file holds its answer. With several it is an object of answers by payload name. Raises
    UserError for a file that cannot be read or that misses one.
    """
    try:
        answers = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a JSON file with the expected answer") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if len(payloads) == 1:
        return [replace(payloads[0], expected=Expected(answers, tolerance))]
    missing = [each.name for each in payloads if not isinstance(answers, dict) or each.name not in answers]
    if missing:
        raise UserError(
            f"{path}: no answer for {missing[0]}; with several requests it is an object of answers by file name"
        )
    return [replace(each, expected=Expected(answers[each.name], tolerance)) for each in payloads]
