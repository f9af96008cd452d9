"""An artifact for NVIDIA GPUs: the SavedModel, its graph as ONNX for ONNX Runtime, and TensorRT's engines, built.

The SavedModel stays beside the graph, so the artifact takes the place of the plain one everywhere: what reads ONNX runs
the graph, and TensorFlow (TF Serving too) the SavedModel. Both answer to the same recorded requests.
"""

from __future__ import annotations

import json
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cortex.errors import CortexError
from cortex.model_server.engines.onnxruntime_recipe import CUDA, FILE, INT8, TENSORRT, Profile, Recipe
from export import answers, calibration, gpu_device, model_card, onnx_graph, recorded_requests
from export import source as sources
from export.answers import Recorded
from export.calibration import Calibration
from export.gpu_device import Built, HeldOut, Questions
from export.gpu_order import Order, tolerance
from export.model_card import Tolerance
from export.progress import Step
from export.signature import IMAGE_SIZE, INPUT
from export.source import Source
from export.staging import new_version

GRAPH = "model.onnx"
FROM_SAVED_MODEL = 1e-4
"""The largest difference of a probability between the graph in float32 and the SavedModel."""

_PROVIDERS = {TENSORRT: (TENSORRT, CUDA), CUDA: (CUDA,), "cpu": ()}
_TOOLS = ("tf2onnx", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt", "numpy")


def export(order: Order, step: Step) -> Path:
    """Write the artifact and return its version directory; without a GPU, engines are not built, and the card says so.

    Raises UserError for a source, an output or options that cannot be used, CortexError when the graph, or the device,
    does not give the recorded answers.
    """
    order.check()
    source = sources.find_images(order.source, order.version)
    recorded = answers.read(source.directory)
    output = source.beside("gpu", order.output)
    with new_version(output, source.version, force=order.force) as directory:
        shown = _gathered(order, source, step)
        step(f"copying {source.directory}")
        shutil.copytree(source.directory, directory, dirs_exist_ok=True)
        recorded_requests.copy(source.directory, directory)  # without those that the graph has no signature for
        step("converting it to ONNX")
        onnx_graph.convert(source.directory, directory / GRAPH)
        step("comparing the answers of the graph with the recorded ones")
        converted = _compared(directory, recorded)
        held_out = None if shown is None else _quantize(directory / GRAPH, shown, step)
        built = _on_device(directory, order, Questions(recorded, held_out), step)
        facts = {} if shown is None else {"calibration": shown.document()}
        allowed = tolerance(order.precision, recorded)
        model_card.write(directory, _card(source, order.precision, allowed, converted, built) | facts)
        step(f"moving it to {output / str(source.version)}")
    return output / str(source.version)


def recipe(order: Order) -> Recipe:
    """Return how ONNX Runtime is to run the artifact."""
    best, most = order.batches
    sides = (IMAGE_SIZE, IMAGE_SIZE, 3)
    profile = Profile(*((batch, *sides) for batch in (1, best, most)))
    return Recipe(_PROVIDERS[order.provider], order.precision, {INPUT: profile})


def _compared(directory: Path, recorded: Recorded) -> answers.Measured:
    with gpu_device.on_cpu(directory / GRAPH) as answer:
        measured = answers.measure(recorded, answer, Tolerance(0.0, FROM_SAVED_MODEL), "the SavedModel, in fp32")
    if measured.outside:
        raise CortexError(f"the ONNX graph does not answer as the SavedModel does: {measured.outside}")
    return measured


def _gathered(order: Order, source: Source, step: Step) -> Calibration | None:
    """Read the samples for int8, before anything that takes long."""
    if order.precision != INT8:
        return None
    return calibration.gather(str(order.calibration), source.signature, order.subset_size, step)


def _quantize(graph: Path, shown: Calibration, step: Step) -> HeldOut:
    """Quantize the graph; return the samples that were held out from that, with its answers before."""
    from export import onnx_int8

    with gpu_device.on_cpu(graph) as answer:
        before = answers.answered(shown.held_out, answer)
    step(f"quantizing by {len(shown.samples)} samples")
    onnx_int8.quantize(graph, shown.samples)
    return HeldOut(before, shown.measured_over)


def _on_device(directory: Path, order: Order, questions: Questions, step: Step) -> Built:
    """Write the recipe, then build the engines and compare the answers, on the GPU if there is one."""
    (directory / FILE).write_text(json.dumps(recipe(order).document(), indent=2) + "\n", encoding="utf-8")
    step("trying the artifact on this machine; with a GPU, TensorRT builds its engines now, which takes minutes")
    allowed = tolerance(order.precision, questions.recorded)
    built = gpu_device.build(directory / GRAPH, order.batches, questions, allowed)
    step(f"it ran on {built.device}: {built.note}")
    return built


def _card(
    source: Source, precision: str, allowed: Tolerance, converted: answers.Measured, built: Built
) -> dict[str, Any]:
    return model_card.derived(source.card, source.made_from(), "gpu", precision, allowed, _tools()) | {
        "agreement": built.agreement.document() | {"computed_in": built.ran.precision, "device": built.device},
        "conversion": converted.agreement.document(),
        "engines": built.document(),
    }


def _tools() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
