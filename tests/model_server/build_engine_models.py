"""Train a small classifier, and write it in every format that an engine reads, with a few models of special kinds.

Runs in a process of its own. The classes have real decision boundaries: is the bright patch of a picture up or down,
and is it red, green or blue? So that agreement between engines means something.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import onnx
import openvino as ov
import tensorflow as tf
from onnx import helper
from tensorflow.python.framework import convert_to_constants

SIZE, CLASSES = 12, 6


class Classifier(tf.Module):
    """Two convolutions and a dense layer, from uint8 pictures, whose channels it reverses as Keras' networks do, to
    probabilities."""

    def __init__(self) -> None:
        random = np.random.default_rng(3)

        def variable(*shape: int) -> tf.Variable:
            return tf.Variable(random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32))

        self.kernels = [variable(3, 3, 3, 8), variable(3, 3, 8, 16)]
        self.head = variable(3 * 3 * 16, CLASSES)
        self.bias = tf.Variable(np.zeros(CLASSES, np.float32))

    def logits(self, pictures: Any) -> Any:
        x = tf.cast(pictures[..., ::-1], tf.float32) / 127.5 - 1.0
        for kernel in self.kernels:
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, strides=2, padding="SAME"))
        return tf.reshape(x, [-1, 3 * 3 * 16]) @ self.head + self.bias

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.uint8, name="pictures")])
    def main(self, pictures: Any) -> dict[str, Any]:
        return {"probabilities": tf.nn.softmax(self.logits(pictures))}


def pictures(count: int, seed: int) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    labels = random.integers(CLASSES, size=count)
    drawn = random.integers(0, 120, (count, SIZE, SIZE, 3))
    for picture, label in zip(drawn, labels, strict=True):
        row, column = random.integers(0, 4) + (label // 3) * 5, random.integers(0, SIZE - 3)
        picture[row : row + 3, column : column + 3, label % 3] += random.integers(60, 135)
    return drawn.astype(np.uint8), labels


def train(model: Classifier) -> None:
    drawn, labels = pictures(1024, seed=1)
    optimizer = tf.keras.optimizers.Adam(0.005)

    @tf.function
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, model.logits(x)))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )

    for number in range(200):
        at = slice(number % 8 * 128, number % 8 * 128 + 128)
        step(drawn[at], labels[at])


def write(model: Classifier, root: Path) -> None:
    saved = root / "saved_model" / "1"
    tf.saved_model.save(model, str(saved), signatures={"serving_default": model.main})
    ov.save_model(ov.Core().read_model(saved), root / "ir" / "1" / "anything.xml", compress_to_fp16=False)
    save_onnx(root / "onnx", "anything", classifier_graph(model))
    stated = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    bare = tf.lite.TFLiteConverter.from_concrete_functions([frozen(model)], model)
    for name, converter in (("tflite", stated), ("tflite_bare", bare)):
        directory = root / name / "1"
        directory.mkdir(parents=True)
        (directory / "model.tflite").write_bytes(converter.convert())


def frozen(model: Classifier) -> Any:
    return convert_to_constants.convert_variables_to_constants_v2(model.main.get_concrete_function())


def classifier_graph(model: Classifier) -> onnx.GraphProto:
    """The classifier once more, written by hand: a second statement of what it computes."""
    constants: dict[str, Any] = {"scale": np.float32(127.5), "one": np.float32(1), "flat": np.array([-1, 144])}
    constants |= {f"kernel_{at}": kernel.numpy().transpose(3, 2, 0, 1) for at, kernel in enumerate(model.kernels)}
    constants["kernel_0"] = constants["kernel_0"][:, ::-1]  # instead of the channels
    constants |= {"head": model.head.numpy(), "bias": model.bias.numpy()}
    conv = {"strides": [2, 2], "auto_pad": "SAME_UPPER"}
    nodes = [
        helper.make_node("Cast", ["pictures"], ["x0"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Div", ["x0", "scale"], ["x1"]),
        helper.make_node("Sub", ["x1", "one"], ["x2"]),
        helper.make_node("Transpose", ["x2"], ["x3"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x3", "kernel_0"], ["x4"], **conv),
        helper.make_node("Relu", ["x4"], ["x5"]),
        helper.make_node("Conv", ["x5", "kernel_1"], ["x6"], **conv),
        helper.make_node("Relu", ["x6"], ["x7"]),
        helper.make_node("Transpose", ["x7"], ["x8"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["x8", "flat"], ["x9"]),
        helper.make_node("MatMul", ["x9", "head"], ["x10"]),
        helper.make_node("Add", ["x10", "bias"], ["x11"]),
        helper.make_node("Softmax", ["x11"], ["probabilities"], axis=-1),
    ]
    return graph(
        nodes,
        {"pictures": (onnx.TensorProto.UINT8, ["n", SIZE, SIZE, 3])},
        {"probabilities": (onnx.TensorProto.FLOAT, ["n", CLASSES])},
        constants,
    )


def graph(nodes: Any, inputs: Any, outputs: Any, constants: Any) -> onnx.GraphProto:
    sides = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in side.items()]
        for side in (inputs, outputs)
    ]
    held = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return helper.make_graph(nodes, "graph", *sides, held)


def save_onnx(base: Path, name: str, made: onnx.GraphProto) -> None:
    (base / "1").mkdir(parents=True)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if all(each.type.tensor_type.HasField("shape") for each in made.input):
        onnx.checker.check_model(model)
    onnx.save(model, base / "1" / f"{name}.onnx")


def half_plus_graph(addend: float) -> onnx.GraphProto:
    column = (onnx.TensorProto.FLOAT, ["n", 1])
    nodes = [helper.make_node("Mul", ["x", "half"], ["z"]), helper.make_node("Add", ["z", "addend"], ["y"])]
    return graph(nodes, {"x": column}, {"y": column}, {"half": np.float32(0.5), "addend": np.float32(addend)})


def strings_graph() -> onnx.GraphProto:
    """Strings and int64, which only the reference of the format runs."""
    text, number = (onnx.TensorProto.STRING, ["n"]), (onnx.TensorProto.INT64, ["n"])
    nodes = [
        helper.make_node("Identity", ["word"], ["same"]),
        helper.make_node("Add", ["number", "one"], ["next"]),
    ]
    return graph(nodes, {"word": text, "number": number}, {"same": text, "next": number}, {"one": np.int64(1)})


def ties_graph() -> onnx.GraphProto:
    """The places of the three largest numbers; ONNX says that of equal ones the first comes first."""
    row, places = (onnx.TensorProto.FLOAT, ["n", 8]), (onnx.TensorProto.INT32, ["n", 3])
    nodes = [
        helper.make_node("TopK", ["x", "three"], ["largest", "at"]),
        helper.make_node("Cast", ["at"], ["y"], to=onnx.TensorProto.INT32),
    ]
    return graph(nodes, {"x": row}, {"y": places}, {"three": np.array([3])})


def lengths_graph() -> onnx.GraphProto:
    """A recurrent layer over sequences of the lengths that a request says, as PyTorch writes packed ones."""
    random = np.random.default_rng(5)
    constants = {"w": random.normal(size=(1, 3, 4)), "r": random.normal(size=(1, 3, 3))}
    return graph(
        [helper.make_node("RNN", ["x", "w", "r", "", "lengths"], ["y"], hidden_size=3)],
        {"x": (onnx.TensorProto.FLOAT, ["t", "n", 4]), "lengths": (onnx.TensorProto.INT32, ["n"])},
        {"y": (onnx.TensorProto.FLOAT, ["t", 1, "n", 3])},
        {name: value.astype(np.float32) for name, value in constants.items()},
    )


def recurrent_graph() -> onnx.GraphProto:
    """A layer with gates, over a sequence of any length."""
    random = np.random.default_rng(6)
    constants = {"w": random.normal(size=(1, 9, 4)), "r": random.normal(size=(1, 9, 3))}
    return graph(
        [helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=3)],
        {"x": (onnx.TensorProto.FLOAT, ["t", "n", 4])},
        {"y": (onnx.TensorProto.FLOAT, ["t", 1, "n", 3])},
        {name: value.astype(np.float32) for name, value in constants.items()},
    )


def turns_graph() -> onnx.GraphProto:
    """A loop of as many turns as a request says, whose answers are put together."""
    sides = [
        [helper.make_tensor_value_info(*each) for each in side]
        for side in (
            [
                ("i", onnx.TensorProto.INT64, []),
                ("go", onnx.TensorProto.BOOL, []),
                ("z", onnx.TensorProto.FLOAT, ["n"]),
            ],
            [("on", onnx.TensorProto.BOOL, []), *[(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("twice", "each")]],
        )
    ]
    body = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("Add", ["z", "z"], ["twice"]),
        helper.make_node("Identity", ["twice"], ["each"]),
    ]
    nodes = [
        helper.make_node("Cast", ["turns"], ["count"], to=onnx.TensorProto.INT64),
        helper.make_node("Loop", ["count", "", "x"], ["last", "y"], body=helper.make_graph(body, "body", *sides)),
    ]
    row = (onnx.TensorProto.FLOAT, ["n"])
    return graph(
        nodes,
        {"x": row, "turns": (onnx.TensorProto.INT32, [])},
        {"last": row, "y": (onnx.TensorProto.FLOAT, ["t", "n"])},
        {},
    )


def sum_graph() -> onnx.GraphProto:
    """What there is of nothing, too: a sum of all rows."""
    sides = {"x": (onnx.TensorProto.FLOAT, ["n", 4])}, {"y": (onnx.TensorProto.FLOAT, [1, 1])}
    return graph([helper.make_node("ReduceSum", ["x"], ["y"])], *sides, {})


def any_rank_graph() -> onnx.GraphProto:
    """An input of any rank: its shape is left out, which ONNX Runtime takes, and ONNX' own checker does not."""
    anything = (onnx.TensorProto.FLOAT, None)
    return graph([helper.make_node("Mul", ["x", "x"], ["y"])], {"x": anything}, {"y": anything}, {})


class Strings(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
    def main(self, x: Any) -> dict[str, Any]:
        return {"y": tf.reshape(x, [-1, 1])}


class AnyRank(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
    def main(self, x: Any) -> dict[str, Any]:
        return {"y": x * x}


class Picked(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.int32, name="x")])
    def main(self, x: Any) -> dict[str, Any]:
        return {"y": tf.gather_nd(tf.constant([1.0, 2.0]), x)}


class HalfPlus(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def main(self, x: Any) -> dict[str, Any]:
        return {"y": x * 0.5 + 2.0}


class Turns(tf.Module):
    """Makes as many turns as it is asked for, and says so."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="x")])
    def main(self, x: Any) -> dict[str, Any]:
        made = tf.constant(0, tf.int64)
        while made < x:
            made += 1
        return {"y": made}


class Every(tf.Module):
    """One input of every dtype that a signature may have, returned as it came."""

    KINDS = (
        *(tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.complex64, tf.complex128, tf.bool, tf.string),
        *(tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64),
    )

    @tf.function(input_signature=[tf.TensorSpec(None, kind, name=f"t_{kind.name}") for kind in KINDS])
    def main(self, *tensors: Any) -> dict[str, Any]:
        return {f"r_{kind.name}": tf.identity(each) for kind, each in zip(self.KINDS, tensors, strict=True)}


class Hard(tf.Module):
    """Signatures that OpenVINO answers otherwise than TensorFlow, and some like them that it answers right."""

    ROWS = (tf.TensorSpec([None, 4], tf.float32, name="x"),)
    WHOLE = (tf.TensorSpec([None, 4], tf.int32, name="x"),)
    PLACES = (*ROWS, tf.TensorSpec([None, 2], tf.int32, name="at"))

    def __init__(self) -> None:
        self.count = tf.Variable(0.0)

    def count_up(self, x: Any) -> Any:
        return x + self.count.assign_add(1.0)

    def count_inside(self, x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > 0, lambda: x + self.count.assign_add(1.0), lambda: x)

    def grow(self, x: Any) -> Any:
        rows = tf.TensorArray(tf.float32, size=0, dynamic_size=True, element_shape=[4])
        for row in tf.range(tf.shape(x)[0]):
            rows = rows.write(row, x[row] * 2.0)
        return rows.stack()

    def read(self, x: Any) -> Any:
        return x + self.count

    def half_as_wide(self, x: Any) -> Any:
        return tf.reshape(x, [tf.shape(x)[0] * 2, tf.shape(x)[1] // 2])

    def scan(self, x: Any) -> Any:
        return tf.scan(lambda total, row: total + row, x)

    def turns(self, x: Any) -> Any:
        """As many turns as a request says, down to none."""
        rows, row = tf.TensorArray(tf.float32, size=tf.cast(x[0, 0], tf.int32)), 0
        while row < rows.size():
            rows, row = rows.write(row, x), row + 1
        return rows.stack()

    def last(self, x: Any) -> Any:
        return x[-1] * 2.0


HARD: dict[str, tuple[Any, Any]] = {
    "count_up": (Hard.count_up, Hard.ROWS),
    "count_inside": (Hard.count_inside, Hard.ROWS),
    "grow": (Hard.grow, Hard.ROWS),
    "unique": (lambda _, x: tf.unique(tf.reshape(x, [-1]))[0], Hard.ROWS),
    "mask": (lambda _, x: tf.boolean_mask(x, x[:, 0] > 0), Hard.ROWS),
    "gather": (lambda _, x, at: tf.gather_nd(x, at), Hard.PLACES),
    "scatter": (lambda _, x, at: tf.scatter_nd(at[:, :1], x, [8, 4]), Hard.PLACES),
    "divide": (lambda _, x: x // 7, Hard.WHOLE),
    "modulo": (lambda _, x: x % 60, Hard.WHOLE),
    "divide_inside": (lambda _, x: tf.cond(x[0, 0] > 0, lambda: x // 7, lambda: x), Hard.WHOLE),
    "modulo_of_rows": (lambda _, x: tf.map_fn(lambda row: row % 60, x), Hard.WHOLE),
    "gather_inside": (lambda _, x, at: tf.cond(x[0, 0] > 0, lambda: tf.gather_nd(x, at), lambda: x[0]), Hard.PLACES),
    "equal": (lambda _, x: tf.cast(tf.equal(x, x[:, ::-1]), tf.int32), Hard.WHOLE),
    "small": (lambda _, x: tf.matmul(*[tf.cast(x, tf.int8)] * 2, transpose_b=True, output_type=tf.int32), Hard.WHOLE),
    "double": (lambda _, x: tf.cast(tf.cast(x, tf.float64) + 1e9 - 1e9, tf.float32), Hard.ROWS),
    "turns": (Hard.turns, Hard.ROWS),
    "listed": (lambda _, x: tf.gather(tf.constant([5, 6, 7]), x[:, 0]), Hard.WHOLE),
    "each_its_own": (lambda _, x, at: tf.gather(x, at, batch_dims=1), Hard.PLACES),
    "stepped": (lambda _, x: x[:: x[0, 0]], Hard.WHOLE),
    "counted": (lambda _, x: tf.range(0, 10, x[0, 0]), Hard.WHOLE),
    "split": (lambda _, x: tf.split(x, [x[0, 0], tf.shape(x)[0] - x[0, 0]])[0], Hard.WHOLE),
    "placed": (lambda _, x: x[tf.cast(x[0, 0], tf.int32)], (tf.TensorSpec([3, 4], tf.float32, name="x"),)),
    "row": (lambda _, x: x[tf.cast(x[0, 0] * 0.0, tf.int32)], Hard.ROWS),
    "embedded": (lambda _, x: tf.gather(tf.constant([[5, 6], [7, 8]]), tf.cast(x > 0.0, tf.int32)), Hard.ROWS),
    "throws": (lambda _, x: tf.random.uniform(tf.shape(x)) * 0.0 + x, Hard.ROWS),
    "compare": (lambda _, x: {"y": x * tf.cast(x > 1.0, tf.float32)}, Hard.ROWS),
    "read": (Hard.read, Hard.ROWS),
    "half_as_wide": (Hard.half_as_wide, Hard.ROWS),
    "scan": (Hard.scan, Hard.ROWS),
    "last": (Hard.last, Hard.ROWS),
    "passed_on": (lambda _, x: {"y": tf.identity(x), "z": x * 2.0}, Hard.ROWS),
}


def write_hard(root: Path) -> None:
    for name, (function, given) in HARD.items():
        save_hard(root / name / "1", function, given)


def save_hard(directory: Path, function: Any, given: Any) -> None:
    module = Hard()

    @tf.function(input_signature=given)
    def called(*x: Any) -> dict[str, Any]:
        answer = function(module, *x)
        return answer if isinstance(answer, dict) else {"y": answer}

    tf.saved_model.save(module, str(directory), signatures={"serving_default": called})


def write_special(root: Path) -> None:
    save_onnx(root / "half_plus_onnx", "model", half_plus_graph(2.0))
    save_onnx(root / "strings_onnx", "model", strings_graph())
    for made in (ties_graph, lengths_graph, recurrent_graph, turns_graph, sum_graph, any_rank_graph):
        save_onnx(root / made.__name__.replace("_graph", "_onnx"), "model", made())
    modules = {"half_plus": HalfPlus(), "strings": Strings(), "any_rank": AnyRank(), "picked": Picked()}
    for name, module in modules.items():
        saved, lite = root / name / "1", root / f"{name}_tflite" / "1"
        tf.saved_model.save(module, str(saved), signatures={"serving_default": module.main})
        lite.mkdir(parents=True)
        (lite / "model.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert())
    every = Every()
    tf.saved_model.save(every, str(root / "every" / "1"), signatures={"serving_default": every.main})
    turns = Turns()
    tf.saved_model.save(turns, str(root / "turns" / "1"), signatures={"serving_default": turns.main})
    write_table(root / "table" / "1", root / "words.txt")
    write_hard(root / "hard")
    write_keras(root / "keras")
    write_half(root / "half_tflite" / "1")


def write_half(directory: Path) -> None:
    """A network of TF Lite whose weights are in half precision, with a branch that is added and one that is a gate."""
    layers = keras.layers
    given = keras.Input((16, 16, 8), name="given")
    x = layers.Conv2D(8, 1, activation="relu")(given)
    x = layers.Add()([x, layers.Conv2D(8, 1)(x)])
    gate = layers.Conv2D(8, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.Conv2D(8, 1, activation="hard_sigmoid")(gate)])
    model = keras.Model(given, x)
    random = np.random.default_rng(8)
    model.set_weights([random.normal(0, 0.3, weight.shape) for weight in model.weights])
    with tempfile.TemporaryDirectory() as saved:
        model.export(saved, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        converter.optimizations, converter.target_spec.supported_types = [tf.lite.Optimize.DEFAULT], [tf.float16]
        directory.mkdir(parents=True)
        (directory / "model.tflite").write_bytes(converter.convert())


def write_keras(root: Path) -> None:
    """A model of Keras 3 as people save it; it has as many layers as OpenVINO needs to miss its variables."""
    turn = keras.initializers.Orthogonal(seed=7)
    layers = [keras.layers.Dense(4, kernel_initializer=turn.clone(), name=f"turn_{at}") for at in range(50)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    tf.saved_model.save(model, str(root / "1"))
    given = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.savez(root / "asked.npz", given=given, answers=model(given).numpy())


def write_table(directory: Path, words: Path) -> None:
    """A SavedModel of TensorFlow 1: a table filled from an asset by the main op, and a variable beside it."""
    words.write_text("cat\ndog\n")
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        word = v1.placeholder(tf.string, [None], name="word")
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, tf.constant(str(words)))
        asset = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)[0]
        filled = tf.lookup.TextFileInitializer(
            asset, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        offset = v1.get_variable("offset", initializer=np.int64(100), use_resource=False)
        found = tf.add(tf.lookup.StaticHashTable(filled, -1).lookup(word), offset, name="id")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        signature = v1.saved_model.signature_def_utils.predict_signature_def({"word": word}, {"id": found})
        builder = v1.saved_model.builder.SavedModelBuilder(str(directory))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()
    words.unlink()  # the model has its own copy


def main(root: Path) -> None:
    model = Classifier()
    train(model)
    write(model, root)
    write_special(root)
    drawn, labels = pictures(256, seed=2)
    np.savez(root / "asked.npz", pictures=drawn, labels=labels, answers=model.main(drawn)["probabilities"].numpy())
