"""From yaml nodes to plain data, within bounds: maps with text keys, lists, text, numbers, booleans and null."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from cortex.spec.problem import Problem, Steps
from cortex.spec.wording import bare, quote

_MOST_VALUES = 10_000
_DEEPEST = 50
_LARGEST_INTEGER = 2**64
_CORE = "tag:yaml.org,2002:"
_MERGE = f"{_CORE}merge"
_SCALARS = {f"{_CORE}{kind}" for kind in ("int", "float", "bool", "null")}


class Loader(yaml.SafeLoader):
    """Tell numbers from text as Cortex's reader did: ``1e3`` is a number; a date, and ``10:30``, are text."""


_INTEGER = r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]*|[1-9][0-9_]*)$"
_FLOAT = (
    r"[-+]?(([0-9][0-9_]*\.[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))$"
    r"|\.(nan|NaN|NAN)$"
)
_OURS = ("int", "float", "timestamp", "value")
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_CORE) not in _OURS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(f"{_CORE}int", re.compile(_INTEGER), list("-+0123456789"))
Loader.add_implicit_resolver(f"{_CORE}float", re.compile(_FLOAT), list("-+0123456789."))


class Builder:
    """Build the data of one document; ``lines`` and ``problems`` grow on the way.

    Raises a MarkedYAMLError where nothing sensible can follow, and notes a `Problem` where the rest can still be read:
    a value that is refused is replaced by an empty text, a key by nothing.
    """

    def __init__(self, loader: Loader) -> None:
        self.lines: dict[Steps, int] = {}
        self.problems: list[Problem] = []
        self._loader = loader
        self._values = 0

    def value(self, node: yaml.Node, steps: Steps) -> Any:
        """Return the data of a node that stands at ``steps``."""
        self._values += 1
        if self._values > _MOST_VALUES:
            raise _fatal(f"more than {_MOST_VALUES} values (what an alias names counts each time)", node)
        if len(steps) > _DEEPEST:
            raise _fatal(f"nested more than {_DEEPEST} levels deep", node)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_CORE}map":
            return self._map(node, steps)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_CORE}seq":
            return self._list(node, steps)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, steps)
        raise _fatal(f"the tag {node.tag!r} is not supported", node)

    def _list(self, node: yaml.SequenceNode, steps: Steps) -> list[Any]:
        items = []
        for index, item in enumerate(node.value):
            self.lines[*steps, index] = item.start_mark.line + 1
            items.append(self.value(item, (*steps, index)))
        return items

    def _map(self, node: yaml.MappingNode, steps: Steps) -> dict[str, Any]:
        data = self._merged([value for key, value in node.value if key.tag == _MERGE], steps)
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            wrong = _wrong_key(key, lines)
            if wrong:
                self.problems.append(Problem(steps, wrong, line=line))
            elif key.tag != _MERGE:
                lines[key.value] = self.lines[*steps, key.value] = line
                data[key.value] = self.value(value, (*steps, key.value))
        return data

    def _merged(self, values: list[yaml.Node], steps: Steps) -> dict[str, Any]:
        """Return what the ``<<`` keys of a map bring in; of several maps the first one wins."""
        data: dict[str, Any] = {}
        for value in values:
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in reversed(sources):
                if not isinstance(source, yaml.MappingNode):
                    raise _fatal("only a map can be merged with <<", source)
                data.update(self.value(source, steps))
        return data

    def _scalar(self, node: yaml.ScalarNode, steps: Steps) -> Any:
        if node.tag == f"{_CORE}str":
            wrong = _wrong_text(node.value)
            if wrong:
                self.problems.append(Problem(steps, wrong))
            return "" if wrong else node.value
        if node.tag not in _SCALARS:
            raise _fatal(f"the tag {node.tag!r} is not supported", node)
        try:
            value = self._loader.construct_object(node)
        except (ValueError, KeyError):
            raise _fatal(f"{quote(node.value)} is no {node.tag.removeprefix(_CORE)}", node) from None
        if isinstance(value, int) and abs(value) >= _LARGEST_INTEGER:
            raise _fatal("an integer of more than 64 bits", node)
        return value


def _wrong_key(key: yaml.Node, lines: Mapping[str, int]) -> str | None:
    """Say what is wrong with a key of a map whose earlier keys stand on ``lines``."""
    if key.tag == _MERGE:
        return None
    if not isinstance(key, yaml.ScalarNode):
        return "a key must be text"
    if key.tag != f"{_CORE}str":
        return f"the key {bare(key.value)} must be text (put it in quotes)"
    if key.value in lines:
        return f"key {quote(key.value)} is already defined on line {lines[key.value]}"
    return _wrong_text(key.value)


def _wrong_text(text: str) -> str | None:
    if text.startswith("@"):
        return f'{quote(text)}: text cannot start with "@"'
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        return f"{quote(text)}: text cannot contain a null character or half a surrogate pair"
    return None


def _fatal(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
