"""Check the shape of one API (keys, types, bounds), and say in Cortex's words what is wrong with it."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cortex.spec import keys
from cortex.spec.problem import Problem, Steps, overlap
from cortex.spec.scalars import RULE, YAML
from cortex.spec.wording import NOT_EMPTY, NOT_NULL, choice, invalid_type, number, quote
from cortex.spec.written import LIST, MAP, WrittenAPI

_REFUSED_KINDS = ("BatchAPI", "TaskAPI", "AsyncAPI", "TrafficSplitter")
_NOT_STEPS = (LIST, MAP, "[key]")
_STAND_INS: dict[Steps, Any] = {
    ("name",): "unnamed",
    ("predictor",): {},
    ("predictor", "type"): "python",
    ("predictor", "path"): "-",
}
"""What to think of where a key that must be there is missing or wrong; no rule that reads the key is then applied."""


@dataclass(frozen=True)
class Shape:
    """What was found: every problem, and the API as it would be without what is wrong (None when nothing is left)."""

    problems: tuple[Problem, ...]
    api: WrittenAPI | None

    def touches(self, reads: Iterable[Steps]) -> bool:
        """Say whether something is wrong with one of the values at ``reads``."""
        wrong = {steps for problem in self.problems for steps in (problem.at, keys.meant(problem.at))}
        return any(overlap(steps, each) for steps in reads for each in wrong)


def check(data: Any) -> Shape:
    """Check one item of a yaml."""
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind in _REFUSED_KINDS:
        refusal = f"{kind} is not supported: every API here is a RealtimeAPI, which answers requests at once; remove it"
        return Shape((Problem(("kind",), refusal),), None)
    parsed = _parse(data)
    return Shape((), parsed) if isinstance(parsed, WrittenAPI) else Shape(parsed, _mended(data, parsed))


def _parse(data: Any) -> WrittenAPI | tuple[Problem, ...]:
    try:
        return WrittenAPI.model_validate(data, context=YAML)
    except ValidationError as error:
        found = [(details["type"] == "missing", _problem(details)) for details in error.errors(include_url=False)]
    # what is missing only since its key is misspelt, or that of another version, is told once
    meant = {keys.meant(problem.at) for _, problem in found if problem.key}
    return tuple(problem for missing, problem in found if not (missing and problem.at in meant))


def _problem(details: ErrorDetails) -> Problem:
    steps = tuple(step for step in details["loc"] if step not in _NOT_STEPS)
    if details["type"] == "extra_forbidden":
        parent, key = steps[:-1], str(steps[-1])
        return Problem(parent, f"key {quote(key)} is not supported{keys.hint(parent, key)}", key=key)
    if details["type"] != "missing" and details["input"] is None:
        return Problem(steps, NOT_NULL)
    return Problem(steps, _WORDING.get(details["type"], _verbatim)(details, steps))


def _verbatim(details: ErrorDetails, _: Steps) -> str:
    return details["msg"]


def _missing(_: ErrorDetails, steps: Steps) -> str:
    options = keys.options(steps)
    return f"must be defined, and set to {choice(options)}" if options else "must be defined"


def _literal(details: ErrorDetails, steps: Steps) -> str:
    value = details["input"]
    if not isinstance(value, str):
        return invalid_type(value, "string")
    return f"invalid value (got {quote(value)}, must be {choice(keys.options(steps))})"


def _type(expected: str) -> "_Words":
    return lambda details, _: invalid_type(details["input"], expected)


def _bound(name: str, words: str) -> "_Words":
    return lambda details, _: f"{quote(details['input'])} must be {words} {number(details['ctx'][name])}"


_Words = Callable[[ErrorDetails, Steps], str]
_WORDING: dict[str, _Words] = {
    RULE: _verbatim,
    "missing": _missing,
    "literal_error": _literal,
    "string_too_short": lambda *_: NOT_EMPTY,
    "finite_number": lambda details, _: f"{quote(details['input'])} must be a finite number",
    "string_type": _type("string"),
    "int_type": _type("integer"),
    "float_type": _type("float"),
    "list_type": _type("list"),
    "dict_type": _type("map"),
    "model_type": _type("map"),
    "union_tag_not_found": _type("list or map"),
    "greater_than": _bound("gt", "greater than"),
    "greater_than_equal": _bound("ge", "greater than or equal to"),
    "less_than": _bound("lt", "less than"),
    "less_than_equal": _bound("le", "less than or equal to"),
}
"""The types of pydantic's errors, in Cortex's words."""


def _mended(data: Any, problems: tuple[Problem, ...]) -> WrittenAPI | None:
    """Take out what is wrong until the rest has the right shape, so that the rest can be checked too."""
    data = copy.deepcopy(data)
    parsed: WrittenAPI | tuple[Problem, ...] = problems
    while isinstance(data, dict) and isinstance(parsed, tuple):
        wrong = {problem.at for problem in parsed}
        there = {steps for steps in wrong if steps in _STAND_INS or _is_there(data, steps)}
        # When something is only missing, the map that lacks it goes. The last and the innermost go first, so that the
        # way to the others stays the same.
        for steps in sorted(there or {steps[:-1] for steps in wrong}, reverse=True):
            _take_out(data, steps)
        parsed = _parse(data)
    return parsed if isinstance(parsed, WrittenAPI) else None


def _is_there(data: Any, steps: Steps) -> bool:
    parent = _parent(data, steps)
    return not isinstance(parent, dict) or steps[-1] in parent


def _take_out(data: Any, steps: Steps) -> None:
    parent = _parent(data, steps)
    if steps in _STAND_INS:
        parent[steps[-1]] = copy.deepcopy(_STAND_INS[steps])
    else:
        del parent[steps[-1]]


def _parent(data: Any, steps: Steps) -> Any:
    """Return the map or list that holds, or lacks, the value at ``steps``."""
    return reduce(lambda parent, step: parent[step], steps[:-1], data)
