"""What no two APIs of a file may share."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass

from cortex.spec.document import Document
from cortex.spec.problem import Problem, Steps
from cortex.spec.shape import Shape
from cortex.spec.wording import quote
from cortex.spec.written import WrittenAPI

_APIs = Mapping[int, WrittenAPI]


def _names(apis: _APIs) -> dict[int, str]:
    return {index: api.name for index, api in apis.items()}


def _endpoints(apis: _APIs) -> dict[int, str]:
    """Return the endpoints, without those that two APIs share because they share a name."""
    first = {api.name: index for index, api in reversed(tuple(apis.items()))}
    return {index: api.endpoint for index, api in apis.items() if api.networking.endpoint or first[api.name] == index}


def _ports(apis: _APIs) -> dict[int, int]:
    ports = {index: api.networking.local_port for index, api in apis.items()}
    return {index: port for index, port in ports.items() if port is not None}


@dataclass(frozen=True)
class _Unique:
    """A value that is each API's own; ``values`` finds it by reading what is at ``reads``."""

    steps: Steps
    values: Callable[[_APIs], Mapping[int, Hashable]]
    reads: tuple[Steps, ...]


_UNIQUE = (
    _Unique(("name",), _names, (("name",),)),
    _Unique(("networking", "endpoint"), _endpoints, (("name",), ("networking", "endpoint"))),
    _Unique(("networking", "local_port"), _ports, (("networking", "local_port"),)),
)


def broken(document: Document, shapes: Mapping[int, Shape]) -> Iterator[Problem]:
    """Yield each value that an earlier API of the file has already; the ways begin at the list of APIs."""
    for unique in _UNIQUE:
        first: dict[Hashable, int] = {}
        sound = {i: shape.api for i, shape in shapes.items() if shape.api and not shape.touches(unique.reads)}
        for index, value in unique.values(sound).items():
            if first.setdefault(value, index) != index:
                *way, key = unique.steps
                line = document.line((first[value], *unique.steps))
                taken = f"must be unique across apis (defined in {document.file}:{line})"
                yield Problem((index, *way), f"{key} {quote(value)} {taken}", key=key)
