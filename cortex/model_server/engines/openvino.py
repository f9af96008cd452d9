"""OpenVINO on the CPU, straight from a SavedModel directory, or from an IR, ONNX or TF Lite file.

It computes in 32 bits inside: an int64 of 2**31 comes back negative, a double loses half its digits. So a signature
that takes or returns such a type (or strings) is refused, not answered wrong; only an IR, made for OpenVINO, is taken
as it is.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Self

import numpy as np
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
)
from cortex.model_server.engines.openvino_exact import keep_exact
from cortex.model_server.engines.openvino_form import Form
from cortex.model_server.engines.openvino_forms import Forms, Signature
from cortex.model_server.engines.openvino_graph import Graph, convert, first_signature, one_line, signatures_of
from cortex.model_server.model_file import ONNX, TFLITE, Model
from cortex.model_server.saved_model import SAVED_MODEL, Signatures, runnable
from cortex.model_server.status import Code, StatusError

_log = logging.getLogger(__name__)

_REFERENCES = {SAVED_MODEL: "tensorflow", ONNX: "onnxruntime", TFLITE: "tflite"}
"""The engine that runs what OpenVINO does not, by the format of the model."""


def _make_tables() -> None:
    """Let OpenVINO make its tables of numpy's types, before any thread can ask for them.

    Its bindings make each at first use, inside a C++ guard, and run Python meanwhile. A thread that gives up the
    interpreter there, and another that comes to the guard with it, wait for each other for ever; no thread of the
    process runs Python again then, not even the one that is told of SIGTERM.
    """
    array = ov.Tensor(np.zeros(1, np.float32), shared_memory=True).data
    ov.Type(array.dtype).to_dtype()


_make_tables()  # an import is done once, by one thread


class OpenVINO:
    """Run each signature in compiled forms; those beyond the first compile when they are first asked for."""

    def __init__(self, model: Model, core: ov.Core, signatures: Signatures, options: EngineOptions) -> None:
        self.signatures = signatures
        self._model = model
        self._core = core
        self._options = options
        self._compiled: dict[str, Signature] = {}
        self._refused: dict[str, str] = {}
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
        """Return the named outputs; a run that outlives the deadline is cancelled inside OpenVINO where it can be."""
        try:
            return self._get(signature).run(inputs, outputs, deadline)
        except Unsupported as reason:
            other = _REFERENCES.get(self._model.format)
            hint = f"; --engine={other} runs it" if other else ""
            raise StatusError(Code.FAILED_PRECONDITION, f"{reason}{hint}") from reason

    def describe(self) -> Description:
        """Return what OpenVINO itself says it runs."""
        alone = self._compiled[first_signature(self.signatures)].usual.alone
        kind = alone.model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return Description("openvino", {"f32": FP32}.get(kind, kind), alone.threads, streams=alone.threads)

    def close(self) -> None:
        """Drop the compiled models; OpenVINO frees their memory with the last reference."""
        for compiled in self._compiled.values():
            compiled.close()
        self._compiled.clear()

    def _prove(self, signatures: Iterable[str]) -> None:
        for name in signatures:
            try:
                convert(self._core, self._model, self.signatures, name)
            except Unsupported as reason:
                if self._options.every_signature:
                    raise
                _log.warning("%s: %s", self._model.directory, reason)
                self._refused[name] = str(reason)

    def _get(self, name: str) -> Signature:
        if signature := self._compiled.get(name):
            return signature
        if name in self._refused:  # trying again would cost each request the whole conversion
            raise Unsupported(self._refused[name])
        with self._compiling:
            if name not in self._compiled:
                self._compiled[name] = self._compile(name)
            return self._compiled[name]

    def _compile(self, name: str) -> Signature:
        graph = convert(self._core, self._model, self.signatures, name)
        if self._options.precision == BF16:
            keep_exact(self._core, graph.model)
        return Signature(graph, partial(self._forms, name))

    def _forms(self, name: str, graph: Graph) -> Forms:
        alone = self._form(graph, name, {"PERFORMANCE_HINT": "LATENCY"})
        return Forms(graph, alone, self._together(graph, name) if alone.threads > 1 else None)

    def _together(self, graph: Graph, name: str) -> Callable[[], Form]:
        """Return what compiles the form for several requests; the graph it keeps shares its weights with the first."""
        return lambda: self._form(graph, name, {"NUM_STREAMS": self._options.cores})

    def _form(self, graph: Graph, signature: str, choice: Mapping[str, str | int]) -> Form:
        config = {
            **choice,
            "INFERENCE_PRECISION_HINT": "bf16" if self._options.precision == BF16 else "f32",
            "INFERENCE_NUM_THREADS": self._options.cores,
        }

        def compile_model() -> ov.CompiledModel:
            try:
                return self._core.compile_model(graph.model, "CPU", config)
            except RuntimeError as error:
                raise Unsupported(f"OpenVINO cannot compile signature {signature!r}: {one_line(error)}") from error

        return Form(compile_model, is_static=not graph.model.is_dynamic())
