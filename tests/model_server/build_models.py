"""Write the SavedModels of these tests below the directory given. Runs in a process of its own."""

import os
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


class Scorer(tf.Module):
    """What TensorFlow 2 makes of a classifier: the method name is predict's, and there are scores alone."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def main(self, inputs: Any) -> dict[str, Any]:
        return {"scores": parsed(inputs)["x"]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def value(self, inputs: Any) -> dict[str, Any]:
        return {"outputs": parsed(inputs)["x"][:, :1]}


def parsed(serialized: Any) -> dict[str, Any]:
    """Two numbers x, an addend c that a context may carry, and a word that labels the first class."""
    features = {
        "x": tf.io.FixedLenFeature([2], tf.float32),
        "c": tf.io.FixedLenFeature([], tf.int64, 0),
        "word": tf.io.FixedLenFeature([], tf.string, "none"),
    }
    return tf.io.parse_example(serialized, features)


def estimator(directory: Path) -> None:
    """A model of TensorFlow 1 with signatures to classify and to regress the same Examples."""
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        other = v1.placeholder(tf.string, [None], name="other_example")
        x, c, word = (parsed(serialized)[name] for name in ("x", "c", "word"))
        classes = tf.stack([word, tf.fill(tf.shape(word), "other")], 1)
        value = x[:, 0] / 2 + tf.cast(c, tf.float32)
        classify = v1.saved_model.classification_signature_def
        regress = v1.saved_model.regression_signature_def
        signatures = {
            "serving_default": classify(serialized, classes, x),
            "classes": classify(serialized, classes, None),
            "scores": classify(serialized, None, x),
            "flat": classify(serialized, None, value),
            "fewer": classify(serialized, None, x[1:]),
            "uneven": classify(serialized, classes, x[:, :1]),
            "regress": regress(serialized, value),
            "wide": regress(serialized, x),
            "elsewhere": regress(other, parsed(other)["x"][:, :1]),
            "predict": v1.saved_model.predict_signature_def({"examples": serialized}, {"value": value}),
        }
        builder = v1.saved_model.builder.SavedModelBuilder(str(directory))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


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
    scorer = Scorer()
    save(scorer, root / "scorer" / "1", value=scorer.value)
    estimator(root / "estimator" / "1")
    half_plus(root / "half_plus" / "1", 2.0)
    half_plus(root / "half_plus" / "2", 3.0)
