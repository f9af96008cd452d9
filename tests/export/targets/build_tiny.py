"""Write a small SavedModel with the signature, the recorded requests and the card of a ResNet-50 artifact.

Runs in a process of its own. It tells colors and places apart, so a graph in which channels or pixels are swapped
answers otherwise.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from export import keras_backend, model_card, recorded_requests
from export.signature import loaded_function


def build(directory: Path) -> None:
    import tensorflow as tf

    random = np.random.default_rng(5)
    kernel = tf.Variable(random.normal(0, 0.02, (16, 16, 3, 12)).astype(np.float32))
    head = tf.Variable(random.normal(0, 0.05, (14 * 14 * 12, 1000)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.uint8, name="input")])
    def serve(images: Any) -> dict[str, Any]:
        pixels = tf.cast(images[..., ::-1], tf.float32) - tf.constant([103.939, 116.779, 123.68])
        features = tf.nn.relu(tf.nn.conv2d(pixels / 64.0, kernel, strides=16, padding="VALID"))
        return {"output": tf.nn.softmax(tf.reshape(features, [-1, 14 * 14 * 12]) @ head)}

    module = tf.Module()
    module.kernel, module.head, module.serve = kernel, head, serve
    tf.saved_model.save(module, str(directory), signatures={"serving_default": serve})
    logs = recorded_requests.record(loaded_function(directory), "tiny", int(directory.name))
    recorded_requests.write(directory, logs)
    labels = "assets.extra/imagenet_class_index.json"  # of its own: other classes in a file of the same name
    card = {"model": "tiny", "weights": {"kind": "random"}, "precision": "fp32", "tools": {"keras": "none"}}
    model_card.write(directory, card | {"labels": labels})
    (directory / labels).write_text('{"0": ["mine", "the first of mine"]}')


keras_backend.prepare()
build(Path(sys.argv[1]))
