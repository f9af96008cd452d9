"""OpenVINO on the CPU, straight from a SavedModel directory, or from an IR, ONNX or TF Lite file.

It computes in 32 bits inside: an int64 of 2**31 comes back negative, a double loses half its digits. So a signature
that takes or returns such a type (or strings) is refused, not answered wrong; only an IR, made for OpenVINO, is taken
as it is.
"""

import logging
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import openvino as ov

from cortex.model_server.engines.base import (
    BF16,
    FP32,
    Array,
    Arrays,
    Description,
    EngineOptions,
    Unsupported,
    UnsupportedPrecision,
    fitted,
    remaining,
    timed_out,
    writable,
)
from cortex.model_server.engines.openvino_graph import Graph, convert, first_signature, one_line, signatures_of
from cortex.model_server.engines.pool import Pool
from cortex.model_server.model_file import Model
from cortex.model_server.saved_model import Signatures, runnable
from cortex.model_server.status import Code, StatusError, invalid

_log = logging.getLogger(__name__)

_REQUESTS = 4
"""Infer requests of one signature: one computes, the next ones are filled and emptied meanwhile."""


class OpenVINO:
    """Run each signature as one compiled model; those beyond the first compile when they are first asked for."""

    def __init__(self, model: Model, core: ov.Core, signatures: Signatures, options: EngineOptions) -> None:
        self.signatures = signatures
        self._model = model
        self._core = core
        self._options = options
        self._compiled: dict[str, _Compiled] = {}
        self._compiling = threading.Lock()

    @classmethod
    def open(cls, model: Model, options: EngineOptions) -> Self:
        """Compile ``serving_default``, or the first signature; convert the others once, to know that they can run."""
        core = ov.Core()
        if options.precision == BF16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UnsupportedPrecision("this CPU does not compute in bf16")
        signatures = signatures_of(core, model)
        engine = cls(model, core, signatures, options)
        first = first_signature(signatures)
        engine._compiled[first] = engine._compile(first)
        engine._prove(name for name in runnable(signatures) if name != first)
        return engine

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str], deadline: float | None = None
    ) -> Arrays:
        """Return the named outputs; a run that outlives the deadline is cancelled inside OpenVINO."""
        return self._get(signature).run(inputs, outputs, deadline)

    def describe(self) -> Description:
        """Return what OpenVINO itself says it runs."""
        compiled = self._compiled[first_signature(self.signatures)].model
        kind = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        precision = {"f32": FP32}.get(kind, kind)
        return Description("openvino", precision, int(compiled.get_property("INFERENCE_NUM_THREADS")))

    def close(self) -> None:
        """Drop the compiled models; OpenVINO frees their memory with the last reference."""
        self._compiled.clear()

    def _prove(self, signatures: Iterable[str]) -> None:
        for name in signatures:
            try:
                convert(self._core, self._model, self.signatures, name)
            except Unsupported as reason:
                if self._options.every_signature:
                    raise
                _log.warning("%s: %s", self._model.directory, reason)

    def _get(self, signature: str) -> "_Compiled":
        compiled = self._compiled.get(signature)
        if compiled is not None:
            return compiled
        with self._compiling:
            if signature not in self._compiled:
                try:
                    self._compiled[signature] = self._compile(signature)
                except Unsupported as reason:
                    raise StatusError(Code.FAILED_PRECONDITION, f"{reason}; --engine=tensorflow runs it") from reason
            return self._compiled[signature]

    def _compile(self, signature: str) -> "_Compiled":
        graph = convert(self._core, self._model, self.signatures, signature)
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if self._options.precision == BF16 else "f32",
        }
        if self._options.threads:
            config["INFERENCE_NUM_THREADS"] = self._options.threads
        try:
            return _Compiled(graph, self._core.compile_model(graph.model, "CPU", config))
        except RuntimeError as error:
            raise Unsupported(f"OpenVINO cannot compile signature {signature!r}: {one_line(error)}") from error


class _Compiled:
    """One signature, and the infer requests that several threads share."""

    def __init__(self, graph: Graph, model: Any) -> None:
        self.model = model
        self._inputs = graph.inputs
        self._outputs = graph.outputs
        self._shapes = {alias: graph.model.inputs[index].partial_shape for alias, index in graph.inputs.items()}
        self._requests = Pool[Any](model.create_infer_request, _REQUESTS)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str], deadline: float | None) -> Arrays:
        arrays = {alias: self._fitted(alias, array) for alias, array in inputs.items()}
        with self._requests.item(deadline) as request:
            try:
                for alias, array in arrays.items():
                    request.set_input_tensor(self._inputs[alias], ov.Tensor(array, shared_memory=True))
                _infer(request, deadline)
                return {alias: request.get_output_tensor(self._outputs[alias]).data.copy() for alias in outputs}
            except RuntimeError as error:
                raise invalid(one_line(error)) from error

    def _fitted(self, alias: str, array: Array) -> Array:
        shape = self._shapes[alias]
        fit = fitted(array, len(shape) if shape.rank.is_static else None)
        if not shape.compatible(ov.PartialShape(list(fit.shape))):
            raise invalid(
                f"input {alias!r} has shape {list(array.shape)}, but the signature declares {_declared(shape)}"
            )
        return writable(fit)


def _infer(request: Any, deadline: float | None) -> None:
    left = remaining(deadline)
    request.start_async()
    if left is None or request.wait_for(math.ceil(left * 1000)):
        request.wait()
        return
    request.cancel()
    try:
        request.wait()
    except RuntimeError:
        raise timed_out() from None  # OpenVINO says "was canceled" here


def _declared(shape: Any) -> str:
    return str(shape).replace("?", "-1")
