"""ONNX Runtime, the reference for ONNX models.

Its graph is one signature, ``serving_default``, whose aliases are the names of the graph's inputs and outputs.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

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
from cortex.model_server.engines.ports import Port, signature
from cortex.model_server.model_file import ONNX, Model, ModelFile
from cortex.model_server.saved_model import DEFAULT_SIGNATURE, Signatures
from cortex.model_server.status import invalid

_PROVIDERS = {"cpu": ("CPUExecutionProvider",)}
"""Execution providers by device, the preferred one first."""

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


class ONNXRuntime:
    """Run a graph in one session, which any number of threads may use."""

    def __init__(self, session: Any, signatures: Signatures, options: EngineOptions) -> None:
        self.signatures = signatures
        self._session = session
        self._options = options
        self._ranks = {
            alias: None if info.tensor_shape.unknown_rank else len(info.tensor_shape.dim)
            for alias, info in signatures[DEFAULT_SIGNATURE].inputs.items()
        }

    @classmethod
    def open(cls, model: Model, options: EngineOptions) -> Self:
        """Read and optimize the graph. Raises Unsupported with ONNX Runtime's own words."""
        if not isinstance(model, ModelFile) or model.format != ONNX:
            raise Unsupported(f"ONNX Runtime does not read a {model.format}")
        if options.precision != FP32:
            raise UnsupportedPrecision("ONNX Runtime computes in the precision that the model was exported in")
        try:
            session = ort.InferenceSession(
                str(model.path), _session_options(options), providers=_providers(options.device)
            )
        except Exception as error:  # every cause has a class of its own there
            raise Unsupported(f"ONNX Runtime cannot load {model.path.name}: {one_line(error)}") from error
        graph = signature(
            [_port(each) for each in session.get_inputs()], [_port(each) for each in session.get_outputs()]
        )
        return cls(session, {DEFAULT_SIGNATURE: graph}, options)

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str], deadline: float | None = None
    ) -> Arrays:
        """Return the named outputs. The deadline is looked at before the run, which is not interrupted."""
        remaining(deadline)
        feeds = {alias: _fed(alias, fitted(array, self._ranks[alias])) for alias, array in inputs.items()}
        try:
            values = self._session.run(list(outputs), feeds)
        except _REFUSALS as error:
            raise invalid(one_line(error)) from error
        return {alias: _array(value) for alias, value in zip(outputs, values, strict=True)}

    def describe(self) -> Description:
        """Return the threads that the session was made with."""
        return Description("onnxruntime", FP32, self._options.threads or os.cpu_count() or 1)

    def close(self) -> None:
        """Let go of the session and its arena."""
        self._session = None


def _session_options(options: EngineOptions) -> Any:
    made = ort.SessionOptions()
    made.intra_op_num_threads = options.threads
    made.log_severity_level = 3  # its warnings are about the graph's style
    return made


def _providers(device: str) -> list[str]:
    wanted = _PROVIDERS.get(device, ())
    here = [each for each in wanted if each in ort.get_available_providers()]
    if not here:
        raise Unsupported(f"ONNX Runtime has no provider for {device} here")
    return here


def _port(node: Any) -> Port:
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _TYPES:
        raise Unsupported(f"ONNX Runtime gives numpy no {node.type}, which {node.name!r} is")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return Port(node.name, node.name, np.dtype(_TYPES[kind]), shape)


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
