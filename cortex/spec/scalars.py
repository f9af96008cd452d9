"""The types of single values in the yaml, with Cortex's rules and messages.

A value is validated twice in its life: once as the user's yaml (with the context `YAML`), and once as our own JSON
when a worker reads its spec. Only the first is strict about how a value is written: what may be left out may not be
null, and a duration is text.
"""

import operator
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from cortex.duration import parse_duration
from cortex.quantity import parse_quantity
from cortex.spec.wording import NOT_NULL, bare, invalid_type, quote

YAML = "yaml"
"""The validation context of what a user wrote."""
RULE = "rule"
"""The type of the pydantic errors whose message is ready for a person."""
SINGLE_MODEL = "_cortex_default"
"""The name of the one model of an API that gives `predictor.model_path`."""

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MODEL_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_ENDPOINT = re.compile(r"[a-zA-Z0-9_\-./]*")
_PERCENTAGE = re.compile(r"(100|[1-9]?[0-9])%")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
"""[registry[:port]/]path[:tag][@digest], as Docker's reference grammar has it."""
_LONGEST_NAME = 42
_LONGEST_ENDPOINT = 1000


def _refusal(message: str) -> PydanticCustomError:
    return PydanticCustomError(RULE, "{message}", {"message": message})


def _check(holds: object, message: str) -> None:
    if not holds:
        raise _refusal(message)


def _not_null(value: object, info: ValidationInfo) -> object:
    _check(value is not None or info.context != YAML, NOT_NULL)
    return value


_T = TypeVar("_T")
_N = TypeVar("_N", float, Decimal)
Omittable = Annotated[_T | None, BeforeValidator(_not_null)]
"""A value that may be left out of the yaml; writing it as null is an error."""

Text = Annotated[str, Field(min_length=1)]


def _api_name(text: str) -> str:
    _check(
        _NAME.fullmatch(text),
        f"{quote(text)} must contain only lower case letters, numbers, and dashes, start with a letter, "
        "and cannot end with a dash",
    )
    _check(len(text) <= _LONGEST_NAME, f"{quote(text)} must be no more than {_LONGEST_NAME} characters")
    return text


APIName = Annotated[Text, AfterValidator(_api_name)]


def _model_name(text: str) -> str:
    _check(_MODEL_NAME.fullmatch(text), f"{quote(text)} must contain only letters, numbers, underscores, and dashes")
    _check(text != SINGLE_MODEL, f"{quote(text)} is a reserved name")
    return text


ModelName = Annotated[Text, AfterValidator(_model_name)]


def _endpoint(text: str) -> str:
    _check(
        _ENDPOINT.fullmatch(text),
        f"{quote(text)} must consist of lower case alphanumeric characters, '/', '-', '_', or '.'",
    )
    _check("//" not in text, f"{quote(text)} cannot contain adjacent slashes")
    _check(text != "/", f"{quote(text)} is not allowed (a path must be specified)")
    _check(len(text) <= _LONGEST_ENDPOINT, f"{quote(text)} must be no more than {_LONGEST_ENDPOINT} characters")
    return f"/{text.strip('/')}"


Endpoint = Annotated[Text, AfterValidator(_endpoint)]


def _image(text: str) -> str:
    _check(_IMAGE.fullmatch(text), f"{quote(text)} is not a valid docker image path")
    return text


Image = Annotated[Text, AfterValidator(_image)]


def _python_path(text: str) -> str:
    _check(not PurePosixPath(text).is_absolute(), f"{quote(text)} must be a relative path")
    _check(PurePosixPath(text).parts, f"{quote(text)} is not allowed (remove the key to import from the project)")
    return f"{text.rstrip('/')}/"


PythonPath = Annotated[Text, AfterValidator(_python_path)]


def _variable(name: str) -> str:
    _check(name and "=" not in name, f"{quote(name)} is not a valid name for an environment variable")
    _check(not name.startswith("CORTEX_"), "environment variables starting with CORTEX_ are reserved")
    return name


def _map_of_strings(value: object) -> object:
    _check(isinstance(value, dict), NOT_NULL if value is None else invalid_type(value, "map of strings to strings"))
    return value


Variables = Annotated[dict[Annotated[str, AfterValidator(_variable)], str], BeforeValidator(_map_of_strings)]
"""Environment variables."""


def _null_is_empty(value: object) -> object:
    return {} if value is None else value


FreeMap = Annotated[dict[str, Any], BeforeValidator(_null_is_empty)]
"""A map of whatever the user likes."""


def _share(value: str | int) -> str | int:
    if isinstance(value, int):
        _check(value >= 0, f"{value} must be greater than or equal to 0")
    else:
        _check(_PERCENTAGE.fullmatch(value), f"{quote(value)} must be an integer, or a percentage from 0% to 100%")
    return value


def _of_type(expected: str, *types: type) -> BeforeValidator:
    """Refuse a value of another type; as for pydantic's strict types, a boolean is no number."""

    def check(value: object) -> object:
        _check(type(value) in types, NOT_NULL if value is None else invalid_type(value, expected))
        return value

    return BeforeValidator(check)


Share = Annotated[str | int, AfterValidator(_share), _of_type("string or integer", str, int)]
"""A number of replicas, or a percentage of them."""


def _parsed(parse: Callable[[str], _N], text: str) -> _N:
    try:
        return parse(text)
    except ValueError as error:
        raise _refusal(f"{bare(text)}: {error}") from None


def _at_least(minimum: str) -> AfterValidator:
    """Require a quantity, and one that is not below ``minimum``."""

    def check(text: str) -> str:
        enough = _parsed(parse_quantity, text) >= parse_quantity(minimum)
        _check(enough, f"{quote(text)} must be greater than or equal to {quote(minimum)}")
        return text

    return AfterValidator(check)


_Number = Annotated[str, BeforeValidator(str), _of_type("string, integer, or float", str, int, float)]
Cores = Annotated[_Number, _at_least("20m")]
Bytes = Annotated[_Number, _at_least("1")]
Memory = Annotated[str, _at_least("20Mi")]
"""Bytes, as text only: in `mem: 4` the unit was forgotten."""

_BOUNDS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "ge": (operator.ge, "must be greater than or equal to"),
    "gt": (operator.gt, "must be greater than"),
    "multiple_of": (lambda duration, step: duration % step == 0, "is not a multiple of"),
}


def seconds(**bounds: str) -> BeforeValidator:
    """Accept a Go duration as a number of seconds; ``bounds`` (``ge``, ``gt``, ``multiple_of``) are durations too."""

    def check(value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            _check(info.context != YAML, NOT_NULL if value is None else invalid_type(value, "string"))
            return value
        duration = _parsed(parse_duration, value)
        for bound, limit in bounds.items():
            holds, words = _BOUNDS[bound]
            _check(holds(duration, parse_duration(limit)), f"{quote(value)} {words} {quote(limit)}")
        return duration

    return BeforeValidator(check)
