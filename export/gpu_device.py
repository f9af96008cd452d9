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
from cortex.model_server.engines.base import Description, EngineOptions, Unsupported
from cortex.model_server.engines.onnxruntime import ONNXRuntime
from cortex.model_server.engines.onnxruntime_gpu import GPU, NoGPU
from cortex.model_server.engines.onnxruntime_recipe import TENSORRT, read
from cortex.model_server.model_file import ONNX, ModelFile
from cortex.model_server.status import StatusError
from export import answers
from export.answers import Answer, Recorded
from export.model_card import Agreement, Tolerance
from export.signature import IMAGE_SIZE, INPUT, OUTPUT, SIGNATURE

logging.getLogger("cortex.model_server").addHandler(logging.NullHandler())  # what engines warn of is in the card


@dataclass(frozen=True)
class HeldOut:
    """Samples that chose no scales, with the answers of the graph in fp32, and what they are."""

    samples: Recorded
    name: str


@dataclass(frozen=True)
class Questions:
    """What an artifact must answer within its tolerance, and for one in int8 what its agreement is measured over.

    The requests that were recorded may have been among the samples that chose the scales of int8.
    """

    recorded: Recorded
    held_out: HeldOut | None = None


@dataclass(frozen=True)
class Built:
    """What the artifact ran on, as the engine describes it, how well it agreed there, and its engines.

    ``note`` says why there are none; else ``gpu`` is what they are for, and ``directory`` where they are.
    """

    ran: Description
    agreement: Agreement
    note: str
    gpu: GPU | None = None
    directory: str = ""

    @property
    def device(self) -> str:
        return getattr(self.ran, "device", "cpu")

    def document(self) -> dict[str, Any]:
        """Return what a model card says about the engines."""
        if self.gpu is None:
            return {"built": False, "reason": self.note}
        return {"built": True, "directory": self.directory, "gpu": asdict(self.gpu)}


@contextmanager
def on_cpu(graph: Path) -> Iterator[Answer]:
    """Yield a graph's answers, computed by ONNX Runtime on the CPU; it must have no recipe beside it yet."""
    with _opened(graph) as engine:
        yield _answer(engine)


def build(graph: Path, batches: tuple[int, int], questions: Questions, allowed: Tolerance) -> Built:
    """Open the artifact as a server will, which builds its engines into it, and ask the questions.

    On a machine without a usable GPU it runs on the CPU. Raises CortexError for answers out of tolerance, or none.
    """
    model = ModelFile(graph.parent, ONNX, graph)
    gpu, missing = _prepared(model)
    with _opened(graph) as engine:
        answer = _answer(engine)
        measured = answers.measure(questions.recorded, answer, allowed, "the SavedModel, in fp32")
        agreement = _agreement(questions.held_out, answer) or measured.agreement
        if gpu is not None:
            for batch in batches:
                answer(np.zeros((batch, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))
        ran = engine.describe()
    built = _outcome(model, gpu, ran, agreement, missing)
    if measured.outside:
        raise CortexError(f"the artifact is out of tolerance on {built.device}: {measured.outside}")
    return built


@contextmanager
def _opened(graph: Path) -> Iterator[ONNXRuntime]:
    try:
        engine = ONNXRuntime.open(ModelFile(graph.parent, ONNX, graph), EngineOptions())
    except Unsupported as error:
        raise CortexError(str(error)) from error
    try:
        yield engine
    except StatusError as error:
        raise CortexError(f"ONNX Runtime cannot compute the graph: {error.message}") from error
    finally:
        engine.close()


def _agreement(held_out: HeldOut | None, answer: Answer) -> Agreement | None:
    if held_out is None:
        return None
    of = "the graph in fp32, on the CPU"
    measured = answers.measure(held_out.samples, answer, Tolerance(0.0, np.inf), of, held_out.name)
    if measured.outside:  # no difference is, but one that is no number
        raise CortexError(f"the artifact does not answer {held_out.name} with numbers: --precision fp16 may do")
    return measured.agreement


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


def _outcome(model: ModelFile, gpu: GPU | None, ran: Description, agreement: Agreement, missing: str) -> Built:
    if gpu is None:
        return Built(ran, agreement, f"engines were not built: {missing}")
    directory = onnxruntime_providers.engines(model, gpu)
    if not any(directory.glob("*.engine")):
        return Built(ran, agreement, "engines were not built: TensorRT took no part of the graph")
    return Built(ran, agreement, "engines were built", gpu, directory.relative_to(model.directory).as_posix())


def _answer(engine: ONNXRuntime) -> Answer:
    return lambda images: engine.run(SIGNATURE, {INPUT: images}, [OUTPUT])[OUTPUT]
