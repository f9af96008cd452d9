"""The signatures of a TF Lite file, read without TensorFlow.

The file is a FlatBuffer; the fields are numbered as in ``tensorflow/compiler/mlir/lite/schema/schema.fbs``. It comes
from outside: whatever does not hold together is refused before anything follows it.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cortex.model_server.engines.base import Unsupported
from cortex.model_server.saved_model import DEFAULT_SIGNATURE

_SUBGRAPHS, _SIGNATURES = 2, 7  # of Model
_TENSORS, _INPUTS, _OUTPUTS = 0, 1, 2  # of SubGraph
_TENSOR_NAME = 3  # of Tensor
_SIGNATURE_INPUTS, _SIGNATURE_OUTPUTS, _KEY, _SUBGRAPH = 0, 1, 2, 4  # of SignatureDef
_ALIAS, _TENSOR = 0, 1  # of TensorMap


@dataclass(frozen=True)
class Tensors:
    """One signature: the subgraph that it runs, and the name there of each input and output by its alias."""

    subgraph: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    is_stated: bool
    """Whether the file states this signature; else it is made up, with tensor names as aliases."""


def read(path: Path) -> dict[str, Tensors]:
    """Return the signatures by key. A file without any has ``serving_default``, whose aliases are tensor names.

    Raises Unsupported for a file that is not whole.
    """
    try:
        data = path.read_bytes()
        if data[4:8] != b"TFL3":
            raise Unsupported(f"{path.name} is not a TF Lite model")
        return _signatures(_Table(data, _unsigned(data, 0)))
    except (struct.error, IndexError, UnicodeDecodeError, OSError) as error:
        raise Unsupported(f"{path.name} is not a whole TF Lite model: {error}") from error


class _Table:
    """A table of the buffer: fields by number, absent ones at their default."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        self._fields = position - struct.unpack_from("<i", data, position)[0]
        if self._fields < 0:
            raise IndexError("a table without fields")

    def number(self, field: int) -> int:
        at = self._at(field)
        return _unsigned(self._data, at) if at else 0

    def text(self, field: int) -> str:
        start, size = self._vector(field, 1)
        return self._data[start : start + size].decode()

    def numbers(self, field: int) -> tuple[int, ...]:
        start, size = self._vector(field, 4)
        return struct.unpack_from(f"<{size}I", self._data, start)

    def tables(self, field: int) -> list["_Table"]:
        start, size = self._vector(field, 4)
        places = range(start, start + 4 * size, 4)
        return [_Table(self._data, place + _unsigned(self._data, place)) for place in places]

    def _at(self, field: int) -> int:
        (size,) = struct.unpack_from("<H", self._data, self._fields)
        if 4 + 2 * field >= size:
            return 0
        (offset,) = struct.unpack_from("<H", self._data, self._fields + 4 + 2 * field)
        return self._position + offset if offset else 0

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        at = self._at(field)
        if not at:
            return 0, 0
        start = at + _unsigned(self._data, at)
        size = _unsigned(self._data, start)
        if start + 4 + size * width > len(self._data):
            raise IndexError("a list beyond the end of the file")
        return start + 4, size


def _unsigned(data: bytes, position: int) -> int:
    number: int = struct.unpack_from("<I", data, position)[0]
    return number


def _signatures(model: _Table) -> dict[str, Tensors]:
    names = [[each.text(_TENSOR_NAME) for each in graph.tables(_TENSORS)] for graph in model.tables(_SUBGRAPHS)]
    stated = {each.text(_KEY): _stated(each, names[each.number(_SUBGRAPH)]) for each in model.tables(_SIGNATURES)}
    if stated:
        return stated
    graph = model.tables(_SUBGRAPHS)[0]
    inputs, outputs = ({names[0][at]: names[0][at] for at in graph.numbers(each)} for each in (_INPUTS, _OUTPUTS))
    return {DEFAULT_SIGNATURE: Tensors(0, inputs, outputs, is_stated=False)}


def _stated(signature: _Table, names: list[str]) -> Tensors:
    inputs, outputs = (
        {each.text(_ALIAS): names[each.number(_TENSOR)] for each in signature.tables(field)}
        for field in (_SIGNATURE_INPUTS, _SIGNATURE_OUTPUTS)
    )
    return Tensors(signature.number(_SUBGRAPH), inputs, outputs, is_stated=True)
