"""One yaml file: its APIs, and where everything stands in it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cortex.errors import UserError
from cortex.spec import rules, shape, unique
from cortex.spec.document import Document
from cortex.spec.problem import Problem, Steps, dotted, steps_of
from cortex.spec.values import APISpec
from cortex.spec.written import complete, written_steps

_LIST_OF_MAPS = "cortex YAML configuration files must contain a list of maps (see docs/cortex.yaml)"
_NO_API = "at least one API must be configured (see docs/cortex.yaml)"
_LONGEST_LABEL = 100


@dataclass(frozen=True)
class Config:
    """A file in which nothing is wrong: its APIs, in its order."""

    path: Path
    apis: tuple[APISpec, ...]
    _document: Document

    def where(self, api: str, path: str = "") -> str:
        """Return ``FILE:LINE: API: PATH``, with which a message about one value of an API begins.

        ``path`` leads to a field of `APISpec`, such as ``predictor.models[0].path``; the answer has the key that the
        user wrote for it. The line is that of the nearest thing that is in the file.
        """
        index = [spec.name for spec in self.apis].index(api)
        predictor = self._document.data[index]["predictor"]
        return _where(self._document, (index, *written_steps(steps_of(path), predictor)))


def read(config: Path) -> Config:
    """Read one yaml file. UserError has a line for everything that is wrong with it, in the order of the file."""
    document = Document.read(config)
    if document.data is None or document.data == []:
        raise UserError(f"{config}:1: {_NO_API}")
    if not isinstance(document.data, list):
        raise UserError(f"{config}:1: {_LIST_OF_MAPS}")
    shapes = {index: shape.check(item) for index, item in enumerate(document.data)}
    found = (*_inside(shapes, config.parent), *unique.broken(document, shapes))
    refused = {problem.at for problem in document.problems if problem.line is None}
    problems = [*document.problems, *(problem for problem in found if problem.at not in refused)]
    if problems:
        raise UserError(_report(document, problems))
    return Config(config, tuple(complete(found.api) for found in shapes.values() if found.api), document)


def _inside(shapes: dict[int, shape.Shape], directory: Path) -> Iterator[Problem]:
    """Yield what is wrong inside each API."""
    for index, found in shapes.items():
        for problem in (*found.problems, *rules.broken(found, directory)):
            yield problem.inside(index)


def _report(document: Document, problems: Iterable[Problem]) -> str:
    lines = [(problem.line or document.line(problem.at), problem) for problem in problems]
    lines.sort(key=lambda pair: pair[0])
    return "\n".join(f"{_where(document, problem.steps, line)}: {problem.message}" for line, problem in lines)


def _where(document: Document, steps: Steps, line: int | None = None) -> str:
    """Return ``FILE:LINE: API: PATH`` for the way from the list of APIs to a value."""
    parts = [f"{document.file}:{line or document.line(steps)}"]
    if steps:
        parts.append(_label(document, steps[0]))
    if steps[1:]:
        parts.append(dotted(steps[1:]))
    return ": ".join(parts)


def _label(document: Document, index: object) -> str:
    """Return the name of an API, or its place in the list when its name is missing or is no name at all."""
    item = document.data[index]
    name = item.get("name") if isinstance(item, dict) else None
    if isinstance(name, str) and name.strip() and name.isprintable() and len(name) <= _LONGEST_LABEL:
        return name
    return f"api at index {index}"
