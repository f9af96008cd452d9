"""Train a classifier of eight colors, and write it to a directory in every form that the launcher takes.

Run as a process, because it imports TensorFlow: ``saved/1`` (uint8, named ``input`` and ``output``), ``unsigned/1``
(the same without a signature), ``frozen.pb`` (float32, named ``pictures`` and ``predict``), ``int8.pb``,
``two_ends.pb``, ``unfrozen.pb``.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

COLORS = np.array(list(itertools.product((40, 220), repeat=3)), np.float32)


def trained() -> tuple[np.ndarray, np.ndarray]:
    """Return weights and bias of a softmax regression on the colors, by gradient descent."""
    weights, bias, inputs = np.zeros((3, 8)), np.zeros(8), COLORS / 255.0 - 0.5
    for _ in range(300):
        scores = np.exp(inputs @ weights + bias)
        error = scores / scores.sum(1, keepdims=True) - np.eye(8)
        weights, bias = weights - 0.5 * inputs.T @ error, bias - 0.5 * error.sum(0)
    return weights.astype(np.float32), bias.astype(np.float32)


class Classifier(tf.Module):
    def __init__(self, weights: np.ndarray, bias: np.ndarray) -> None:
        self.weights = tf.Variable(weights)
        self.bias = tf.Variable(bias)

    @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.uint8, name="input")])
    def serve(self, input: tf.Tensor) -> dict[str, tf.Tensor]:
        means = tf.reduce_mean(tf.cast(input, tf.float32), [1, 2])
        return {"output": tf.nn.softmax(tf.matmul(means / 255.0 - 0.5, self.weights) + self.bias)}


def frozen(weights: np.ndarray, bias: np.ndarray, *, extra: str = "") -> bytes:
    with tf.Graph().as_default() as graph:
        pictures = tf.compat.v1.placeholder(tf.float32, [None, 224, 224, 3], name="pictures")
        logits = tf.matmul(tf.reduce_mean(pictures, [1, 2]) / 255.0 - 0.5, tf.constant(weights)) + bias
        if extra == "end":
            tf.identity(logits, name="first")
            tf.identity(logits, name="second")
        elif extra == "variable":
            tf.compat.v1.get_variable("left", [1])
        elif extra == "quantised":
            logits = tf.quantization.fake_quant_with_min_max_args(logits, -16.0, 16.0)
        if extra != "end":
            tf.nn.softmax(logits, name="predict")
        return bytes(graph.as_graph_def().SerializeToString())


def main(directory: Path) -> None:
    weights, bias = trained()
    model = Classifier(weights, bias)
    tf.saved_model.save(model, str(directory / "saved" / "1"), signatures=model.serve)
    tf.saved_model.save(model, str(directory / "unsigned" / "1"), signatures={})
    (directory / "frozen.pb").write_bytes(frozen(weights, bias))
    (directory / "two_ends.pb").write_bytes(frozen(weights, bias, extra="end"))
    (directory / "int8.pb").write_bytes(frozen(weights, bias, extra="quantised"))
    (directory / "unfrozen.pb").write_bytes(frozen(weights, bias, extra="variable"))
    np.savez(directory / "weights.npz", weights=weights, bias=bias)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
