"""ONNX Runtime, the reference for ONNX models, on the CPU and on NVIDIA GPUs.

Its graph is one signature, ``serving_default``, whose aliases are the names of the graph's inputs and outputs. A GPU is
used where the artifact was made for one. Where it cannot be used, the model runs on the CPU, and says so in the log and
in its description: a GPU that is silently not used is an expensive surprise.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from cortex import onnx_file
from cortex.model_server.engines import onnxruntime_providers as providers
from cortex.model_server.engines import onnxruntime_recipe as recipes
from cortex.model_server.engines.base import (
    FP32,
    Array,
    Arrays,
    Description,
    EngineOptions,
    Unsupported,
    UnsupportedPrecision,
    fitted,
    one_line,
    remaining,
)
from cortex.model_server.engines.onnxruntime_binding import AT_ONCE, Binding, pinned_memory
from cortex.model_server.engines.pool import Pool
from cortex.model_server.engines.ports import Port, signature
from cortex.model_server.model_file import ONNX, Model, ModelFile
from cortex.model_server.saved_model import DEFAULT_SIGNATURE, Signatures
from cortex.model_server.status import invalid

_log = logging.getLogger(__name__)

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_TYPES: dict[str, Any] = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "string": np.object_,
    "bool": np.bool_,
    **{name: name for name in _INTEGERS},
}
"""The element types that ONNX Runtime exchanges with numpy."""

_REFUSALS = (native.InvalidArgument, native.RuntimeException, native.Fail, native.NotImplemented)


@dataclass(frozen=True)
class OnDevice(Description):
    """A description that also says on what: the GPU and its provider, or the CPU and why not a GPU."""

    device: str = "cpu"


class ONNXRuntime:
    """Run a graph in one session, which any number of threads may use."""

    def __init__(
        self,
        session: Any,
        signatures: Signatures,
        description: Description,
        bindings: Pool[Binding] | None,
        why_not_empty: str,
    ) -> None:
        self.signatures = signatures
        self._why_not_empty = why_not_empty
        self._session = session
        self._description = description
        self._bindings = bindings
        self._ranks = {
            alias: None if info.tensor_shape.unknown_rank else len(info.tensor_shape.dim)
            for alias, info in signatures[DEFAULT_SIGNATURE].inputs.items()
        }

    @classmethod
    def open(cls, model: Model, options: EngineOptions) -> Self:
        """Read and optimize the graph. Raises Unsupported with ONNX Runtime's own words."""
        if not isinstance(model, ModelFile) or model.format != ONNX:
            raise Unsupported(f"ONNX Runtime does not read {model.format} models")
        if options.precision != FP32:
            raise UnsupportedPrecision("ONNX Runtime computes in the precision that the model was exported in")
        recipe = recipes.read(model.directory)
        choice = providers.choose(model, recipe, options)
        session = _session(model, options, choice)
        nodes = [*session.get_inputs(), *session.get_outputs()]
        graph = signature(
            [_port(each) for each in session.get_inputs()], [_port(each) for each in session.get_outputs()]
        )
        used = session.get_providers()[0]
        is_bound = used != providers.ON_CPU and not any(node.type == "tensor(string)" for node in nodes)
        return cls(
            session,
            {DEFAULT_SIGNATURE: graph},
            OnDevice(
                "onnxruntime", providers.precision(recipe, used), options.cores, device=_device(model, choice, used)
            ),
            Pool(lambda: Binding(session, pinned_memory(used)), AT_ONCE) if is_bound else None,
            onnx_file.why_not_empty(model.path),
        )

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str], deadline: float | None = None
    ) -> Arrays:
        """Return the named outputs. The deadline is looked at before the run, which is not interrupted."""
        remaining(deadline)
        feeds = {alias: _fed(alias, fitted(array, self._ranks[alias])) for alias, array in inputs.items()}
        if self._why_not_empty and not all(array.size for array in feeds.values()):
            raise invalid(self._why_not_empty)
        try:
            values = self._values(feeds, list(outputs), deadline)
        except _REFUSALS as error:
            raise invalid(one_line(error)) from error
        return {alias: _array(value) for alias, value in zip(outputs, values, strict=True)}

    def describe(self) -> Description:
        """Return what the session runs on, and the threads of its CPU part."""
        return self._description

    def close(self) -> None:
        """Let go of the session and its arena."""
        self._session = self._bindings = None

    def _values(self, feeds: Arrays, outputs: list[str], deadline: float | None) -> list[Array]:
        if self._bindings is None:
            values: list[Array] = self._session.run(outputs, feeds)
            return values
        with self._bindings.item(deadline) as binding:
            return binding.run(feeds, outputs)


def _session(model: ModelFile, options: EngineOptions, choice: providers.Choice) -> Any:
    made = ort.SessionOptions()
    made.intra_op_num_threads = options.cores
    made.log_severity_level = 3  # its warnings are about the graph's style
    try:
        return ort.InferenceSession(str(model.path), made, providers=list(choice.providers))
    except Exception as error:  # every cause has a class of its own there
        raise Unsupported(f"ONNX Runtime cannot load {model.path.name}: {one_line(error)}") from error


def _device(model: ModelFile, choice: providers.Choice, used: str) -> str:
    """Return what the session runs on, and warn when that is not what was asked for."""
    wanted = choice.providers[0][0]
    missing = choice.missing or (used != wanted and f"ONNX Runtime could not load {wanted}, see its own message")
    where = "cpu" if used == providers.ON_CPU or choice.gpu is None else f"{choice.gpu.name} provider={used}"
    if not missing:
        return where
    _log.warning("%s was made for a GPU, and runs on %s: %s", model.directory, where, missing)
    return f"{where} (fell back: {missing})"


def _port(node: Any) -> Port:
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _TYPES:
        raise Unsupported(f"ONNX Runtime gives numpy no {node.type}, which {node.name!r} is")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return Port(node.name, node.name, np.dtype(_TYPES[kind]), shape or None)  # a scalar, or anything: it does not say


def _fed(alias: str, array: Array) -> Array:
    """Return an input as ONNX Runtime takes it: strings are str there, and bytes would become their Python literal."""
    if array.dtype != np.object_:
        return array
    try:
        return _mapped(array, lambda value: value.decode() if isinstance(value, bytes) else value)
    except UnicodeDecodeError as error:
        raise invalid(f"input {alias!r} holds a string that is not UTF-8, which ONNX Runtime needs: {error}") from error


def _array(value: Array) -> Array:
    """Return an output as TensorFlow has it: strings are bytes."""
    if value.dtype != np.object_:
        return value
    return _mapped(value, lambda each: each.encode() if isinstance(each, str) else each)


def _mapped(array: Array, change: Callable[[Any], Any]) -> Array:
    changed = np.empty(array.size, np.object_)
    changed[:] = [change(value) for value in array.ravel()]
    return changed.reshape(array.shape)
