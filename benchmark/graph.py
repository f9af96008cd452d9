"""What ``--in-graph`` names, opened in the engine that ``--framework`` names: one classifier of pictures."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np

from benchmark import frozen_graph
from benchmark.configuration import Configuration
from benchmark.settings import Settings
from cortex.errors import UserError
from cortex.model_server import base_paths, model_file, saved_model
from cortex.model_server.engines.base import BF16, FP32, Array, Description, Engine, EngineOptions, Unsupported
from cortex.model_server.engines.selection import Attempt, formats
from cortex.model_server.model_file import IR, ONNX, Model, ModelFile
from cortex.model_server.saved_model import DEFAULT_SIGNATURE
from cortex.model_server.status import StatusError
from cortex.tensors import dtype_of

_TAGS = frozenset({"serve"})
_FILES = {".onnx": ONNX, ".xml": IR}
INT8 = "int8"


class Classifier:
    """One signature with one input and one output. Use it as a context manager: it holds the engine."""

    def __init__(self, asked: Configuration, settings: Settings) -> None:
        self._asked = asked
        self._settings = settings
        self._held = ExitStack()
        self._engine: Engine
        self._signature = DEFAULT_SIGNATURE
        self._input = ""
        self._output = ""

    def __enter__(self) -> Self:
        """Load the model. Raises UserError that says why it cannot be, or what is missing."""
        with self._held as held:
            self._load(held)
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of the input, -1 for what is free; None where the model does not say."""
        shape = self._info.tensor_shape
        return None if shape.unknown_rank else tuple(int(dim.size) for dim in shape.dim)

    @property
    def dtype(self) -> np.dtype[Any]:
        return dtype_of(self._info.dtype)

    def describe(self) -> Description:
        """Return what the engine says it runs."""
        return self._engine.describe()

    def scores(self, batch: Array) -> Array:
        """Return what the model answers to a batch: one row for each picture. Raises UserError with its refusal."""
        try:
            return self._engine.run(self._signature, {self._input: batch}, (self._output,))[self._output]
        except StatusError as error:
            raise UserError(f"--in-graph {self._asked.in_graph}: {error.message}") from error

    @property
    def _info(self) -> Any:
        return self._engine.signatures[self._signature].inputs[self._input]

    def _load(self, held: ExitStack) -> None:
        asked = self._asked
        try:
            model = _model(asked, held)
            _check_quantised(asked, model)
            self._engine = Attempt(asked.framework, model, _options(asked, self._settings)).open()
        except Unsupported as error:
            raise UserError(f"--framework {asked.framework}: {error}") from error
        except StatusError as error:
            raise UserError(f"--in-graph {asked.in_graph}: {error.message}") from error
        except OSError as error:
            raise UserError(f"--in-graph {error.filename or asked.in_graph}: {error.strerror}") from error
        held.callback(self._engine.close)
        names = sorted(saved_model.runnable(self._engine.signatures))
        if not names:
            raise UserError(f"--in-graph {asked.in_graph}: the model has no signature")
        self._signature = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else names[0]
        signature = self._engine.signatures[self._signature]
        is_frozen = _is_frozen(asked.in_graph)  # then there is one of each already, under names of ours
        self._input = _chosen(signature.inputs, None if is_frozen else asked.input_node, "input", asked)
        self._output = _chosen(signature.outputs, None if is_frozen else asked.output_node, "output", asked)


def _options(asked: Configuration, settings: Settings) -> EngineOptions:
    precision = FP32 if asked.precision == INT8 else asked.precision  # what is not quantised in it stays float32
    return EngineOptions(precision, threads=settings.intra_threads, inter_op_threads=settings.inter_threads)


def _model(asked: Configuration, held: ExitStack) -> Model:
    """Return the model at the path: a directory, a directory of version directories, or a file."""
    path, reads = asked.in_graph, formats(asked.framework)
    if path.is_dir():
        return model_file.find(_version(path), _TAGS, reads)[0]
    if path.name in ("saved_model.pb", "saved_model.pbtxt"):
        return model_file.find(path.parent, _TAGS, reads)[0]
    if path.suffix in _FILES:
        return ModelFile(path.parent, _FILES[path.suffix], path)
    if not _is_frozen(path):
        raise UserError(f"--in-graph {path}: expected a SavedModel directory, or a .pb, .onnx or .xml file")
    if saved_model.SAVED_MODEL not in reads:
        raise UserError(f"--framework {asked.framework}: does not read a frozen graph; {path} has to be an .onnx file")
    directory = Path(held.enter_context(TemporaryDirectory(prefix="benchmark-graph-")))
    frozen_graph.convert(path, asked.input_node, asked.output_node, directory)
    return saved_model.read(directory, _TAGS)


def _is_frozen(path: Path) -> bool:
    return path.is_file() and path.suffix == ".pb" and path.name != "saved_model.pb"


def _version(path: Path) -> Path:
    """Return the newest of a model's version directories, or the path where it has none."""
    versions = base_paths.find(path)
    return versions[max(versions)] if versions else path


def _chosen(tensors: Mapping[str, Any], name: str | None, kind: str, asked: Configuration) -> str:
    """Return the alias of the input or output: the one that was named, by alias or tensor, or the only one."""
    if name is not None:
        for alias, info in tensors.items():
            if name in (alias, info.name, info.name.removesuffix(":0")):
                return alias
    elif len(tensors) == 1:
        return next(iter(tensors))
    names = ", ".join(sorted(tensors))
    problem = f"the model has no {kind} {name!r}" if name else f"the model has several {kind}s"
    raise UserError(f"--{kind}-node: {problem}; {asked.in_graph} has {names}")


def _check_quantised(asked: Configuration, model: Model) -> None:
    """Hold the precision against the graph: int8 is a property of a model, not of a run."""
    is_int8 = _is_quantised(model)
    if is_int8 and asked.precision in (FP32, BF16):
        raise UserError(f"--precision {asked.precision}: {asked.in_graph} is quantised; say --precision int8")
    if not is_int8 and asked.precision == INT8:
        raise UserError(
            f"--precision int8: {asked.in_graph} is not quantised; "
            "python -m export cpu --precision int8 makes one that is"
        )


def _is_quantised(model: Model) -> bool:
    if isinstance(model, ModelFile):
        data = model.path.read_bytes()
        return b"FakeQuantize" in data or b"QuantizeLinear" in data
    graphs = [meta.graph_def for meta in saved_model.parse(model.directory).meta_graphs]
    functions = [each.node_def for graph in graphs for each in graph.library.function]
    nodes = [node for part in (*(graph.node for graph in graphs), *functions) for node in part]
    return any(node.op.startswith(("Quantize", "FakeQuant", "_Quantize")) for node in nodes)
