"""Keras' ResNet-50 as a SavedModel: the artifact of the CPU target, and what every other target is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cortex.errors import CortexError, UserError
from cortex.protos import prediction_log_pb2
from export import keras_backend, model_card, recorded_requests
from export import weights as weights_of
from export.model_card import FP32_TOLERANCE, Agreement
from export.progress import Step
from export.recorded_requests import Answers
from export.signature import CLASS_INDEX, SIGNATURE, loaded_function, serving_function
from export.staging import new_version
from export.weights import Weights

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Order:
    """One export: into ``output/version``, which must not exist unless ``force`` is set."""

    weights: Weights
    output: Path
    version: int
    force: bool


def export(order: Order, step: Step) -> Path:
    """Write the SavedModel with its recorded requests and model card, and return its version directory.

    ``step`` is told what happens next. Nothing is seen under the final name before all of it is on disk. Raises
    UserError for weights that cannot be had or read and for an output that cannot be written, CortexError when the
    artifact does not answer as Keras does.
    """
    target = order.output / str(order.version)
    with new_version(order.output, order.version, force=order.force, instead="--version") as directory:
        step("starting TensorFlow")
        keras_backend.prepare()
        step(_getting(order.weights))
        network = weights_of.network(order.weights)
        expected = _keras_answers(network)
        with keras_backend.writing(target):
            step("writing the SavedModel")
            _write(network, directory)
            step("recording requests and the answers of the written model")
            logs = recorded_requests.record(
                loaded_function(directory), recorded_requests.model_name(order.output), order.version
            )
            agreement = _agreement(logs, expected)
            recorded_requests.write(directory, logs)
        card = model_card.card(order.weights, weights_of.digest(network), agreement)
        model_card.write(directory, card)
        (directory / card["labels"]).write_bytes(CLASS_INDEX.read_bytes())
        step(f"moving it to {target}")
    return target


def _getting(weights: Weights) -> str:
    if weights.kind == "random":
        return f"making ResNet-50 with random weights (seed {weights.seed}): its labels will mean nothing"
    return f"loading ResNet-50 with weights from {weights.path or 'ImageNet'}"


def _write(network: keras.Model, directory: Path) -> None:
    """Write through Keras' ExportArchive, which names the variables in a way that OpenVINO's reader can follow.

    It finds none in what a plain ``tf.saved_model.save`` of a module around the network writes. The archive tracks the
    variables of an endpoint by itself; telling it to ``track`` the network too would store each of them twice.
    """
    import keras

    archive = keras.export.ExportArchive()
    archive.add_endpoint(SIGNATURE, serving_function(network))
    archive.write_out(str(directory), verbose=False)


def _keras_answers(network: keras.Model) -> Answers:
    """Return what Keras' own preprocessing and the network answer to the recorded requests, all in one batch.

    Raises UserError for answers that are not numbers.
    """
    from keras.applications.resnet50 import preprocess_input

    images = np.concatenate(recorded_requests.requests())
    answers = np.asarray(network(preprocess_input(images.astype(np.float32)), training=False).numpy())
    if not np.isfinite(answers).all():
        raise UserError("a network with these weights does not answer with finite numbers")
    return answers


def _agreement(logs: list[prediction_log_pb2.PredictionLog], expected: Answers) -> Agreement:
    """Measure how far the recorded answers are from Keras' own; CortexError when two runs may not differ so much."""
    answers = np.concatenate([recorded_requests.answers_of(log) for log in logs])
    difference = float(np.abs(answers - expected).max())
    if not np.allclose(answers, expected, rtol=FP32_TOLERANCE.rtol, atol=FP32_TOLERANCE.atol):
        raise CortexError(f"the written model does not answer as Keras does: they differ by {difference}")
    same = int((answers.argmax(1) == expected.argmax(1)).sum())
    return Agreement("keras.applications", len(answers), difference, same)
