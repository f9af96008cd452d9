"""The one input and output contract of every ResNet-50 artifact, and its preprocessing.

A client sends ``input``: uint8 ``[n, 224, 224, 3]``, RGB. Color order, mean subtraction and casting happen inside the
graph. It gets ``output``: float32 ``[n, 1000]``, softmax, class k named by entry k of ``CLASS_INDEX``.
A photo becomes 224 x 224 as ResNet-50 was tested: short side to 256, then the center of it.
Nothing here imports TensorFlow before a graph is built or loaded, so an API worker may use it too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SIGNATURE = "serving_default"
INPUT = "input"
OUTPUT = "output"
IMAGE_SIZE = 224
SHORT_SIDE = 256
CLASSES = 1000
IMAGE = (IMAGE_SIZE, IMAGE_SIZE, 3)
MEANS_BGR = (103.939, 116.779, 123.68)  # of ImageNet's training images, as ResNet-50 was trained with them
CLASS_INDEX = Path(__file__).with_name("imagenet_class_index.json")


def preprocess(images: tf.Tensor) -> tf.Tensor:
    """Turn RGB uint8 into what ResNet-50 was trained on: BGR float32 around ImageNet's means.

    Equals ``keras.applications.resnet50.preprocess_input`` bit for bit.
    """
    import tensorflow as tf

    return tf.cast(images[..., ::-1], tf.float32) - tf.constant(MEANS_BGR, tf.float32)


def serving_function(network: keras.Model) -> Any:
    """Return the ``tf.function`` of the signature: preprocessing, then ``network`` in inference mode."""
    import tensorflow as tf

    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: network(preprocess(images), training=False)}

    spec = tf.TensorSpec([None, IMAGE_SIZE, IMAGE_SIZE, 3], tf.uint8, name=INPUT)
    return tf.function(serve, input_signature=[spec], autograph=False)


def loaded_function(directory: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return the signature of the SavedModel in ``directory``, as a function that numpy arrays go through."""
    import tensorflow as tf

    serve = tf.saved_model.load(str(directory)).signatures[SIGNATURE]
    return lambda images: np.asarray(serve(**{INPUT: tf.constant(images)})[OUTPUT].numpy())
