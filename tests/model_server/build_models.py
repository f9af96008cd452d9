"""Write the SavedModels of these tests below the directory given. Runs in a process of its own."""

import os
import sys
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


class TwoInputs(tf.Module):
    """Two named inputs, whose order is not alphabetical, three outputs, and a second signature."""

    def __init__(self) -> None:
        self.weights = tf.Variable(np.arange(12, dtype=np.float32).reshape(4, 3), name="weights")

    @tf.function(
        input_signature=[tf.TensorSpec([None, 4], tf.float32, name="zeta"), tf.TensorSpec([None, 3], name="alpha")]
    )
    def main(self, zeta: Any, alpha: Any) -> dict[str, Any]:
        product = zeta @ self.weights
        return {"sum": product + alpha, "difference": product - alpha, "class": tf.argmax(product, 1, tf.int32)}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="q")])
    def doubled(self, q: Any) -> dict[str, Any]:
        return {"doubled": q @ self.weights * 2.0}


class Mixed(tf.Module):
    """What OpenVINO refuses: int64 and string inputs and outputs, and a lookup table with an asset."""

    def __init__(self, vocabulary: Path) -> None:
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(initializer, -1)

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name="word"), tf.TensorSpec([None], tf.int64, name="number")]
    )
    def main(self, word: Any, number: Any) -> dict[str, Any]:
        return {
            "id": self.table.lookup(word),
            "next": number + 1,
            "shout_bytes": tf.strings.upper(word),
            "text": tf.strings.join([word, "!"]),
            "half": tf.cast(number, tf.float32) / 2.0,
        }


class Types(tf.Module):
    """Every dtype of a signature that JSON and OpenVINO both know, and two that JSON does not."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], kind, name=name)
            for name, kind in (("f", tf.float32), ("i", tf.int32), ("u", tf.uint8), ("b", tf.bool), ("h", tf.float16))
        ]
    )
    def main(self, f: Any, i: Any, u: Any, b: Any, h: Any) -> dict[str, Any]:
        return {"f": f + 1, "i": i + 1, "u": u + 1, "b": tf.logical_not(b), "h": h + 1}


class Softmax(tf.Module):
    """A classifier of a thousand near-equal classes, in a few layers, to measure drift with."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        self.layers = [
            tf.Variable(random.normal(0, 0.1, (128, 128)).astype(np.float32), name=f"layer_{number}")
            for number in range(4)
        ]
        self.head = tf.Variable(random.normal(0, 0.1, (128, 1000)).astype(np.float32), name="head")

    @tf.function(input_signature=[tf.TensorSpec([None, 128], tf.float32, name="input")])
    def main(self, input: Any) -> dict[str, Any]:
        for layer in self.layers:
            input = tf.nn.relu(input @ layer)
        return {"output": tf.nn.softmax(input @ self.head)}


class Slow(tf.Module):
    """Multiplies for as long as the number of its rows asks for."""

    def __init__(self) -> None:
        self.weights = tf.Variable(np.eye(800, dtype=np.float32), name="weights")

    @tf.function(input_signature=[tf.TensorSpec([None, 800], tf.float32, name="x")])
    def main(self, x: Any) -> dict[str, Any]:
        for _ in range(40):
            x = x @ self.weights
        return {"y": x}


def save(model: tf.Module, directory: Path, **others: Any) -> None:
    tf.saved_model.save(model, str(directory), signatures={"serving_default": model.main, **others})


def half_plus(directory: Path, addend: float) -> None:
    """A model of TensorFlow 1, like the one of TF Serving's tests: y = x / 2 + addend, on x of shape [-1, 1]."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 1], name="x")
        half = v1.get_variable("half", initializer=0.5, use_resource=False)
        y = tf.add(half * x, addend, name="y")
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.signature_def_utils.predict_signature_def({"x": x}, {"y": y})
        builder = v1.saved_model.builder.SavedModelBuilder(str(directory))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()


def main(root: Path) -> None:
    two = TwoInputs()
    save(two, root / "two_inputs" / "1", doubled=two.doubled)
    vocabulary = root / "vocabulary.txt"
    vocabulary.write_text("cat\ndog\n")
    save(Mixed(vocabulary), root / "mixed" / "1")
    vocabulary.unlink()  # the model has its own copy
    save(Types(), root / "types" / "1")
    save(Softmax(), root / "softmax" / "1")
    save(Slow(), root / "slow" / "1")
    half_plus(root / "half_plus" / "1", 2.0)
    half_plus(root / "half_plus" / "2", 3.0)


main(Path(sys.argv[1]))
