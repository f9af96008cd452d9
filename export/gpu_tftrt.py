"""The GPU artifact of TensorFlow 2.17 and older: a SavedModel in which TF-TRT put TensorRT's engines, in fp16.

It is what TF Serving's GPU builds run. Its engines are built here, for the batch sizes of the order, and saved with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from cortex.errors import CortexError, UserError
from cortex.model_server.engines.onnxruntime_recipe import FP16
from export import answers, model_card, recorded_requests
from export import source as sources
from export.answers import Measured, Recorded
from export.gpu_order import Order, tolerance
from export.progress import Step, reason
from export.signature import IMAGE_SIZE, SIGNATURE, loaded_function
from export.source import Source
from export.staging import new_version

LAST = (2, 17)
"""The last TensorFlow with TF-TRT; 2.18 dropped it."""


def export(order: Order, step: Step) -> Path:
    """Write the artifact and return its version directory.

    Raises UserError where TensorFlow is missing or too new, has no GPU, or the options ask for more than TF-TRT does
    here; CortexError when the artifact does not give the recorded answers.
    """
    order.check()
    _check(order)
    source = sources.find_images(order.source, order.version)
    recorded = answers.read(source.directory)
    output = source.beside("gpu", order.output)
    with new_version(output, source.version, force=order.force) as directory:
        step("converting with TF-TRT and building engines, which takes minutes")
        _convert(source.directory, directory, order)
        step("comparing the answers with the recorded ones")
        measured = _compared(directory, recorded)
        model_card.copy_extra(source.directory, directory)
        recorded_requests.copy(source.directory, directory)
        model_card.write(directory, _card(source, recorded, measured))
        step(f"moving it to {output / str(source.version)}")
    return output / str(source.version)


def _check(order: Order) -> None:
    try:
        found = version("tensorflow")
    except PackageNotFoundError:
        raise UserError("TensorFlow is not installed: pip install -r requirements-tensorrt.txt") from None
    numbers = found.split(".")
    if (int(numbers[0]), int(numbers[1])) > LAST:
        raise UserError(
            f"TensorFlow {found} has no TensorRT: 2.17 was the last that had. Leave --engine tensorflow out, or pip "
            "install -r requirements-tensorrt.txt into an environment of its own"
        )
    if order.precision != FP16:
        raise UserError(f"--engine tensorflow makes fp16, not {order.precision}")


def _convert(source: Path, target: Path, order: Order) -> None:
    import tensorflow as tf

    try:
        converter = tf.experimental.tensorrt.Converter(
            input_saved_model_dir=str(source),
            input_saved_model_signature_key=SIGNATURE,
            use_dynamic_shape=True,
            dynamic_shape_profile_strategy="Range+Optimal",
            precision_mode="FP16",
            maximum_cached_engines=4,
        )
        converter.convert()
        converter.build(input_fn=lambda: _batches(order))
        converter.save(str(target))
    except Exception as error:  # TF-TRT raises what its C++ parts do
        raise UserError(f"TF-TRT cannot convert {source} here: {reason(error)}") from error


def _batches(order: Order) -> Iterator[tuple[Any]]:
    import tensorflow as tf

    for batch in (1, *order.batches):
        yield (tf.constant(np.zeros((batch, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)),)


def _compared(directory: Path, recorded: Recorded) -> Measured:
    answer, allowed = loaded_function(directory), tolerance(FP16, recorded)
    measured = answers.measure(recorded, answer, allowed, "the SavedModel, in fp32")
    if measured.outside:
        raise CortexError(f"the artifact is out of tolerance: {measured.outside}")
    return measured


def _card(source: Source, recorded: Recorded, measured: Measured) -> dict[str, Any]:
    allowed, tools = tolerance(FP16, recorded), {"tensorflow": version("tensorflow")}
    return model_card.derived(source.card, source.made_from(), "gpu", FP16, allowed, tools) | {
        "agreement": measured.agreement.document(),
        "engines": {"built": True, "by": "TF-TRT"},
    }
