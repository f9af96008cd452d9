"""The keys of the yaml, read off the classes that hold them: what may stand where."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from cortex.spec.problem import Step, Steps, dotted
from cortex.spec.wording import choice, quote
from cortex.spec.written import WrittenAPI

_SINCE = "since Cortex 0.18 it is {}"
_LATER = "of Cortex 0.25 and later; here it is {}"
_RENAMED: dict[Steps, tuple[str, Steps]] = {
    ("endpoint",): (_SINCE, ("networking", "endpoint")),
    ("local_port",): (_SINCE, ("networking", "local_port")),
    ("tracker",): (_SINCE, ("monitoring",)),
    ("predictor", "model"): (_SINCE, ("predictor", "model_path")),
    ("predictor", "models", "model"): (_SINCE, ("predictor", "models", "model_path")),
    ("autoscaling", "workers_per_replica"): (_SINCE, ("predictor", "processes_per_replica")),
    ("autoscaling", "threads_per_worker"): (_SINCE, ("predictor", "threads_per_process")),
    ("predictor", "models", "path"): (_LATER, ("predictor", "model_path")),
    ("predictor", "models", "paths", "path"): (_LATER, ("predictor", "models", "paths", "model_path")),
    ("predictor", "multi_model_reloading"): (_LATER, ("predictor", "models")),
    ("handler",): ("of Cortex 0.34 and later; here it is {}, with the class of its type", ("predictor",)),
    ("pod",): ("of Cortex 0.36 and later, whose APIs are containers; here one is a {}", ("predictor",)),
}
"""Keys of Cortex before 0.18 and after 0.23, and what they are here. The ways have no positions in lists."""


def below(steps: Steps) -> Mapping[str, FieldInfo]:
    """Return the keys that may stand in the map at ``steps`` of an API."""
    annotations: list[Any] = [WrittenAPI]
    for step in steps:
        annotations = [inner for annotation in annotations for inner in _inside(annotation, step)]
    return {key: info for annotation in annotations for cls in _classes(annotation) for key, info in _keys(cls).items()}


def options(steps: Steps) -> tuple[str, ...]:
    """Return the words that the key at ``steps`` may have, or nothing when it is not that kind of key."""
    info = below(steps[:-1]).get(str(steps[-1]))
    annotation = info.annotation if info else None
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def hint(steps: Steps, key: str) -> str:
    """Return how to go on from "key X is not supported", for a key of the map at ``steps``; nothing when unknown."""
    supported = below(steps)
    if key in supported:
        others = [name for name, info in supported.items() if info is supported[key] and name != key]
        return f" together with {choice(others)}, which is the same key"
    old = (*steps, key)
    if (new := meant(old)) == old:
        return ""
    text, _ = _RENAMED.get(_names_of(old), ("did you mean {}?", ()))
    return f" ({text.format(quote(new[-1] if new[:-1] == steps else dotted(new)))})"


def meant(steps: Steps) -> Steps:
    """Return the way to what the key at ``steps`` is here: one of another version of Cortex, or a misspelt one.

    Any other key is itself.
    """
    names = _names_of(steps)
    if names not in _RENAMED:
        close = difflib.get_close_matches(str(steps[-1]), below(steps[:-1]), n=1, cutoff=0.75)
        return (*steps[:-1], *(close or steps[-1:]))
    _, new = _RENAMED[names]
    return (*steps[:-1], new[-1]) if new[:-1] == names[:-1] else new


def _names_of(steps: Steps) -> Steps:
    return tuple(step for step in steps if isinstance(step, str))


def _keys(cls: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a class by every key that they have in the yaml."""
    return {key: info for name, info in cls.model_fields.items() for key in _names(name, info)}


def _names(name: str, info: FieldInfo) -> tuple[str, ...]:
    aliases = info.validation_alias
    return tuple(map(str, aliases.choices)) if isinstance(aliases, AliasChoices) else (name,)


def _inside(annotation: Any, step: Step) -> Iterator[Any]:
    """Yield the types of the value at ``step`` of a map or list."""
    if isinstance(step, int):
        yield from (get_args(form)[0] for form in _forms(annotation) if get_origin(form) is list)
    else:
        yield from (_keys(cls)[step].annotation for cls in _classes(annotation) if step in _keys(cls))


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    yield from (form for form in _forms(annotation) if isinstance(form, type) and issubclass(form, BaseModel))


def _forms(annotation: Any) -> Iterator[Any]:
    """Yield the types among which a value may choose."""
    if get_origin(annotation) is list or not get_args(annotation):
        yield annotation
    else:
        for argument in get_args(annotation):
            yield from _forms(argument)
