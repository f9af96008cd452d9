"""ONNXClient runs models by ONNX Runtime, and finds them on disk."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cortex import threads
from cortex.errors import NotStarted, UserError
from cortex.model_client import ONNXClient
from cortex.spec import SINGLE_MODEL, Model


def save(path, *inputs):
    """Write a model that adds up its inputs: each is (name, type, shape)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    node = helper.make_node("Sum", [name for name, _, _ in inputs], ["y"])
    output = helper.make_tensor_value_info("y", inputs[0][1], None)
    graph = helper.make_graph([node], "sum", values, [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def save_recurrent(path):
    """Write a model of one layer with gates, over sequences of any length."""
    constants = [("w", (1, 9, 4)), ("r", (1, 9, 3))]
    graph = helper.make_graph(
        [helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=3)],
        "recurrent",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["t", "n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["t", 1, "n", 3])],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in constants],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def load(path, name=SINGLE_MODEL):
    return ONNXClient.load((Model(name=name, path=str(path)),), lambda line: None)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "model.onnx"
    save(path, ("x", TensorProto.FLOAT, ["batch", 2]))
    return load(path)


def test_one_input_may_be_bare(one):
    """A model with one input takes the bare value or a mapping, casts it, and reshapes it to its own shape."""
    for value in ([[1, 2]], [1, 2], np.array([1, 2], np.uint8), {"x": [1, 2]}):
        (answer,) = one.predict(value)
        assert answer.tolist() == [[1.0, 2.0]]
        assert answer.dtype == np.float32


def test_two_inputs(tmp_path):
    """A model with several inputs takes a mapping with all of them."""
    save(tmp_path / "m.onnx", ("a", TensorProto.FLOAT, [2]), ("b", TensorProto.FLOAT, [2]))
    client = load(tmp_path)
    assert client.predict({"a": [1, 2], "b": [10, 20]})[0].tolist() == [11.0, 22.0]
    with pytest.raises(UserError, match="missing key 'b' for model"):
        client.predict({"a": [1, 2]})
    with pytest.raises(UserError, match="expected model_input to be a dictionary with keys"):
        client.predict([1, 2])


@pytest.mark.parametrize("value", [["a", "b"], np.array(["a", "b"]), [1, 2, 3], [[1], [2, 3]]])
def test_what_does_not_convert_is_refused(one, value):
    """The message names the input and the model."""
    with pytest.raises(UserError, match=f"key 'x' for model '{SINGLE_MODEL}': failed to convert to numpy array"):
        one.predict(value)


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 2, 4)])
def test_an_empty_sequence_does_not_end_the_process(tmp_path, shape):
    """ONNX Runtime would abort over it; what is not empty is answered, before and after."""
    save_recurrent(tmp_path / "m.onnx")
    client, full = load(tmp_path), np.ones((2, 3, 4))
    assert client.predict(full)[0].shape == (2, 1, 3, 3)
    with pytest.raises(UserError, match=f"model '{SINGLE_MODEL}': an input is empty, over which ONNX Runtime ends"):
        client.predict(np.zeros(shape))
    assert client.predict(full)[0].shape == (2, 1, 3, 3)


def test_nothing_is_a_sum_of_nothing(one):
    """An input may be empty where nothing ends over it."""
    assert one.predict(np.zeros((0, 2)))[0].shape == (0, 2)


def test_a_type_that_numpy_lacks_is_refused(tmp_path):
    """A model that takes bfloat16 says so to whoever asks it."""
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    given, made = (
        helper.make_tensor_value_info(name, kind, [2])
        for name, kind in (("x", TensorProto.BFLOAT16), ("y", TensorProto.FLOAT))
    )
    graph = helper.make_graph([cast], "cast", [given], [made])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(UserError, match=r"key 'x' for model .*: numpy has no arrays of tensor\(bfloat16\)"):
        load(tmp_path).predict([1, 2])


def test_threads_are_those_of_this_process(one):
    """ONNX Runtime by itself takes one for each core of the machine, however few of them a container may use."""
    session = one.get_model()["session"]
    assert session.get_session_options().intra_op_num_threads == threads.available()


def test_versions(tmp_path):
    """Numeric directories are versions; the highest is the latest."""
    save(tmp_path / "2" / "m.onnx", ("x", TensorProto.FLOAT, [1]))
    save(tmp_path / "10" / "m.onnx", ("x", TensorProto.FLOAT, [2]))
    client = load(tmp_path, "m")
    assert client.predict([1, 2], "m")[0].tolist() == [1.0, 2.0]
    assert client.predict([1], "m", "2")[0].tolist() == [1.0]
    assert set(client.metadata) == {"m-2", "m-10"}
    assert client.input_signatures == {"m": {"x": {"shape": [2], "type": "float32"}}}


def test_a_model_is_shown_as_in_cortex_0_22(tmp_path):
    """`get_model` gives the session and what it takes, by name and version, for a predictor that asks for shapes."""
    save(tmp_path / "2" / "m.onnx", ("x", TensorProto.FLOAT, [1]))
    save(tmp_path / "10" / "m.onnx", ("x", TensorProto.FLOAT, ["batch", 2]))
    model = load(tmp_path).get_model()
    assert model["input_signatures"] == {"x": {"shape": ["batch", 2], "type": "float32"}}
    assert [each.name for each in model["signatures"]] == ["x"]
    assert model["session"].run([], {"x": np.ones((1, 2), np.float32)})[0].tolist() == [[1.0, 1.0]]
    named = load(tmp_path, "m")
    assert named.get_model("m", "2")["input_signatures"]["x"]["shape"] == [1]
    with pytest.raises(UserError, match="model 'm' has no version '3'"):
        named.get_model("m", "3")


def test_bad_models(tmp_path):
    """A missing model, a directory without exactly one model, and a broken file are refused by name."""
    with pytest.raises(UserError, match="nowhere: the model does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected exactly one file ending in \.onnx, found 0"):
        load(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(NotStarted, match=r"m\.onnx: ONNX Runtime cannot load the model"):
        load(tmp_path)


def test_a_missing_wheel_is_one_sentence(tmp_path):
    """Without onnxruntime the error is the command that installs it."""
    (tmp_path / "m.onnx").touch()
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from cortex.model_client import ONNXClient; from cortex.spec import Model\n"
        f"ONNXClient.load((Model(path={str(tmp_path)!r}),), print)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stderr.splitlines()[-1] == (
        "cortex.errors.UserError: ONNX predictors need ONNX Runtime: pip install onnxruntime"
    )
