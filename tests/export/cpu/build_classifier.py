"""Train a small classifier, and write it as a SavedModel, with pictures to calibrate it on and TensorFlow's answers.

Runs in a process of its own. The classes have real decision boundaries: in which of six directions do the stripes of a
picture run? Angle, width, color, contrast and noise vary from picture to picture, so some lie near a boundary, and
agreement between precisions means something.

Written: ``classifier/1`` (uint8 [n, 224, 224, 3] -> float32 [n, 6], and a second signature), ``pictures/*.png``
(256 x 256, of which the middle counts), and ``test.npz``: ``images`` that were never trained on, their ``labels`` and
what TensorFlow answers.
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

SIDE, CLASSES, FACTOR = 32, 6, 7


def stripes(count: int, seed: int) -> tuple[Any, Any]:
    """Return pictures, uint8 [count, 32, 32, 3], and the class of each."""
    random = np.random.default_rng(seed)
    labels = random.integers(CLASSES, size=count)
    angle = np.pi / CLASSES * (labels + random.uniform(-0.5, 0.5, count))
    width, phase = random.uniform(0.5, 1.2, count), random.uniform(0, 2 * np.pi, count)
    along = np.cos(angle)[:, None, None] * np.arange(SIDE) + np.sin(angle)[:, None, None] * np.arange(SIDE)[:, None]
    wave = np.sin(along * width[:, None, None] + phase[:, None, None])[..., None]
    color, contrast = random.uniform(60, 190, (count, 1, 1, 3)), random.uniform(12, 50, (count, 1, 1, 3))
    noise = random.normal(0, 35, (count, SIDE, SIDE, 3))
    return np.clip(color + contrast * wave + noise, 0, 255).astype(np.uint8), labels


def trained() -> keras.Model:
    keras.utils.set_random_seed(5)
    tf.config.experimental.enable_op_determinism()  # the same weights in every run
    layers = keras.layers
    network = keras.Sequential([layers.Input((SIDE, SIDE, 3)), layers.Rescaling(1 / 127.5, offset=-1)])
    for filters in (16, 32, 48):
        network.add(layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False))
        network.add(layers.BatchNormalization(momentum=0.8))
        network.add(layers.ReLU())
    network.add(layers.Flatten())
    network.add(layers.Dense(CLASSES, activation="softmax"))
    network.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    network.fit(*stripes(4000, seed=1), batch_size=64, epochs=4, verbose=0)
    return network


def large(images: Any) -> Any:
    """Return the images with 224 x 224 pixels."""
    return images.repeat(FACTOR, axis=1).repeat(FACTOR, axis=2)


def main(root: Path) -> None:
    network = trained()

    def serve(images: Any) -> dict[str, Any]:
        small = tf.nn.avg_pool2d(tf.cast(images, tf.float32), FACTOR, FACTOR, "VALID")
        return {"output": network(small, training=False)}

    archive = keras.export.ExportArchive()
    spec = tf.TensorSpec([None, SIDE * FACTOR, SIDE * FACTOR, 3], tf.uint8, name="input")
    archive.add_endpoint("serving_default", tf.function(serve, input_signature=[spec], autograph=False))
    archive.add_endpoint("other", tf.function(lambda images: serve(images)["output"], input_signature=[spec]))
    archive.write_out(str(root / "classifier" / "1"), verbose=False)

    (root / "pictures").mkdir()
    for number, image in enumerate(large(stripes(200, seed=2)[0])):
        framed = np.pad(image, ((16, 16), (16, 16), (0, 0)))
        Image.fromarray(framed).save(root / "pictures" / f"{number}.png", compress_level=1)
    images, labels = stripes(600, seed=3)
    answers = np.concatenate([serve(tf.constant(large(part)))["output"].numpy() for part in np.split(images, 6)])
    np.savez(root / "test.npz", images=images, labels=labels, answers=answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
