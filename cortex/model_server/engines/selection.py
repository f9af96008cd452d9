"""Which engine runs a model: a name, or ``auto``, to the attempts that are made in order."""

import importlib
from dataclasses import dataclass, replace

from cortex.model_server.engines.base import BF16, FP32, Engine, EngineOptions, Unsupported
from cortex.model_server.saved_model import SavedModel

AUTO = "auto"
ENGINES = {
    "openvino": "cortex.model_server.engines.openvino:OpenVINO",
    "tensorflow": "cortex.model_server.engines.tensorflow:TensorFlow",
}
PRECISIONS = (AUTO, FP32, BF16)


@dataclass(frozen=True)
class Attempt:
    """One way to run a model: an engine by name, and everything it is told."""

    engine: str
    options: EngineOptions

    def open(self, model: SavedModel) -> Engine:
        """Import the engine and load the model. Raises Unsupported when the wheel is missing or the model refused."""
        return _engine(self.engine).open(model, self.options)

    def __str__(self) -> str:
        return f"{self.engine} {self.options.precision}"


def attempts(engine: str, precision: str, options: EngineOptions) -> tuple[Attempt, ...]:
    """Return what to try, best first. ``auto`` is OpenVINO, then TensorFlow, the reference that runs every SavedModel.

    With precision ``auto`` OpenVINO is tried in bf16 where the CPU computes in it, then in fp32; TensorFlow in fp32.
    """
    if engine != AUTO:
        return tuple(Attempt(engine, replace(options, precision=kind)) for kind in _precisions(engine, precision))
    strict = replace(options, every_signature=True)
    return (*attempts("openvino", precision, strict), *attempts("tensorflow", precision, options))


def _precisions(engine: str, precision: str) -> tuple[str, ...]:
    if precision != AUTO:
        return (precision,)
    return (BF16, FP32) if engine == "openvino" else (FP32,)


def _engine(name: str) -> type[Engine]:
    module, _, attribute = ENGINES[name].partition(":")
    try:
        engine: type[Engine] = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise Unsupported(f"engine {name} is not installed ({error}): pip install {name}") from error
    return engine
