"""An ONNX artifact on the device at hand: its engines built, and the recorded requests answered there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cortex.errors import CortexError
from cortex.model_server.engines import onnxruntime_providers
from cortex.model_server.engines.base import EngineOptions
from cortex.model_server.engines.onnxruntime import ONNXRuntime
from cortex.model_server.engines.onnxruntime_gpu import GPU, NoGPU
from cortex.model_server.engines.onnxruntime_recipe import TENSORRT, read
from cortex.model_server.model_file import ONNX, ModelFile
from cortex.model_server.saved_model import DEFAULT_SIGNATURE
from export import answers
from export.answers import Answer, Measured, Recorded
from export.model_card import Tolerance
from export.signature import IMAGE_SIZE, INPUT, OUTPUT

logging.getLogger("cortex.model_server").addHandler(logging.NullHandler())  # what engines warn of is in the card


@dataclass(frozen=True)
class Built:
    """Where the artifact ran, how well it agreed there, and its engines: their directory, or why there are none."""

    device: str
    measured: Measured
    note: str
    gpu: GPU | None = None
    directory: str = ""

    def document(self) -> dict[str, Any]:
        """Return what a model card says about the engines."""
        if self.gpu is None:
            return {"built": False, "reason": self.note}
        return {"built": True, "directory": self.directory, "gpu": asdict(self.gpu)}


@contextmanager
def on_cpu(graph: Path) -> Iterator[Answer]:
    """Yield a graph's answers, computed by ONNX Runtime on the CPU; it must have no recipe beside it yet."""
    engine = ONNXRuntime.open(ModelFile(graph.parent, ONNX, graph), EngineOptions())
    try:
        yield _answer(engine)
    finally:
        engine.close()


def build(graph: Path, batches: tuple[int, int], recorded: Recorded, allowed: Tolerance) -> Built:
    """Open the artifact as a server will, which builds its engines into it, and replay the recorded requests.

    On a machine without a usable GPU it runs on the CPU. Raises CortexError for answers out of tolerance.
    """
    model = ModelFile(graph.parent, ONNX, graph)
    gpu, missing = _prepared(model)
    engine = ONNXRuntime.open(model, EngineOptions())
    try:
        answer = _answer(engine)
        device = getattr(engine.describe(), "device", "cpu")
        measured = answers.measure(recorded, answer, allowed, "the SavedModel, in fp32")
        if gpu is not None:
            for batch in batches:
                answer(np.zeros((batch, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))
    finally:
        engine.close()
    if measured.outside:
        raise CortexError(f"the artifact is out of tolerance on {device}: {measured.outside}")
    return _outcome(model, gpu, device, measured, missing)


def _prepared(model: ModelFile) -> tuple[GPU | None, str]:
    """Make the directory that the engines are to be built into, if TensorRT is to build some; else say why not."""
    recipe = read(model.directory)
    if recipe is None or TENSORRT not in recipe.providers:
        return None, "TensorRT was not asked for"
    try:
        gpu, _ = onnxruntime_providers.reach([TENSORRT])
    except NoGPU as reason:
        return None, str(reason)
    built = model.directory / onnxruntime_providers.BUILT
    (built / onnxruntime_providers.engines_name(model, gpu)).mkdir(parents=True)
    return gpu, ""


def _outcome(model: ModelFile, gpu: GPU | None, device: str, measured: Measured, missing: str) -> Built:
    if gpu is None:
        return Built(device, measured, f"engines were not built: {missing}")
    directory = onnxruntime_providers.engines(model, gpu)
    if not any(directory.glob("*.engine")):
        return Built(device, measured, "engines were not built: TensorRT took no part of the graph")
    return Built(device, measured, "engines were built", gpu, directory.relative_to(model.directory).as_posix())


def _answer(engine: ONNXRuntime) -> Answer:
    return lambda images: engine.run(DEFAULT_SIGNATURE, {INPUT: images}, [OUTPUT])[OUTPUT]
