"""Which engine runs a model: a name, or ``auto``, to the attempts that are made in order."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cortex.model_server.engines.base import BF16, FP32, Engine, EngineOptions, Unsupported
from cortex.model_server.model_file import FORMATS, IR, ONNX, TFLITE, Model
from cortex.model_server.saved_model import SAVED_MODEL

AUTO = "auto"
ENGINES = {
    "openvino": "cortex.model_server.engines.openvino:OpenVINO",
    "tensorflow": "cortex.model_server.engines.tensorflow:TensorFlow",
    "onnxruntime": "cortex.model_server.engines.onnxruntime:ONNXRuntime",
    "tflite": "cortex.model_server.engines.tflite:TFLite",
}
PRECISIONS = (AUTO, FP32, BF16)

_READS = {"openvino": FORMATS, "tensorflow": (SAVED_MODEL,), "onnxruntime": (ONNX,), "tflite": (TFLITE,)}
_AUTO = {
    SAVED_MODEL: ("openvino", "tensorflow"),
    IR: ("openvino",),
    ONNX: ("openvino", "onnxruntime"),
    TFLITE: ("openvino", "tflite"),
}
"""What ``auto`` tries for a format: OpenVINO, the fastest on CPUs, then the reference of the format, which runs all."""

_WHEELS = {"tflite": "ai-edge-litert"}


@dataclass(frozen=True)
class Attempt:
    """One way to run a model: an engine by name, and everything it is told."""

    engine: str
    model: Model
    options: EngineOptions

    def open(self) -> Engine:
        """Import the engine and load the model. Raises Unsupported when the wheel is missing or the model refused."""
        return _engine(self.engine).open(self.model, self.options)

    def __str__(self) -> str:
        return f"{self.engine} {self.options.precision}"


def formats(engine: str) -> tuple[str, ...]:
    """Return the formats that an engine reads, or those that any does for ``auto``."""
    return _READS.get(engine, FORMATS)


def attempts(engine: str, precision: str, options: EngineOptions, models: Sequence[Model]) -> tuple[Attempt, ...]:
    """Return what to try, best first: every engine for the first model, then for the next.

    With precision ``auto`` OpenVINO is tried in bf16 where the CPU computes in it, then in fp32; the others in fp32.
    Under ``auto``, an engine refuses a model of which it cannot run every signature, unless it is the last one.
    """
    return tuple(
        Attempt(name, model, replace(options, precision=kind, every_signature=engine == AUTO and name != names[-1]))
        for model in models
        for names in [_AUTO[model.format] if engine == AUTO else (engine,)]
        for name in names
        for kind in _precisions(name, precision)
    )


def _precisions(engine: str, precision: str) -> tuple[str, ...]:
    if precision != AUTO:
        return (precision,)
    return (BF16, FP32) if engine == "openvino" else (FP32,)


def _engine(name: str) -> type[Engine]:
    module, _, attribute = ENGINES[name].partition(":")
    try:
        engine: type[Engine] = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        wheel = _WHEELS.get(name, name)
        image = f"for an image, docker build --build-arg ENGINES={wheel}"
        raise Unsupported(f"engine {name} is not installed ({error}): pip install {wheel}; {image}") from error
    return engine
