"""What is in the artifact: the contract's signature, Keras' preprocessing and classes, and answers that prove it."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortex.errors import UserError
from cortex.protos import prediction_log_pb2, saved_model_pb2, types_pb2
from export import keras_backend, model_card, recorded_requests, savedmodel, weights
from export.signature import CLASS_INDEX, INPUT, OUTPUT, SIGNATURE, preprocess

# Keras copies its variables with numpy.array, and TensorFlow's do not support that in the way that numpy 2 asks for
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

Serve = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def keras() -> Any:
    keras_backend.prepare()
    import keras

    return keras


@pytest.fixture(scope="module")
def tf(keras: Any) -> Any:
    import tensorflow

    return tensorflow


@pytest.fixture(scope="module")
def network(keras: Any) -> Any:
    """The network that the shared artifact was made from."""
    return weights.network(weights.parse("random", seed=0))


@pytest.fixture(scope="module")
def serve(tf: Any, artifact: Path) -> Serve:
    """The artifact's signature in TensorFlow."""
    function = tf.saved_model.load(str(artifact)).signatures[SIGNATURE]
    return lambda images: function(**{INPUT: tf.constant(images)})[OUTPUT].numpy()


@pytest.fixture(scope="module")
def logs(tf: Any, artifact: Path) -> list[prediction_log_pb2.PredictionLog]:
    records = tf.data.TFRecordDataset(str(artifact / "assets.extra" / "tf_serving_warmup_requests"))
    return [prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in records]


@pytest.fixture(scope="module")
def card(artifact: Path) -> dict[str, Any]:
    return json.loads((artifact / "assets.extra" / "model_card.json").read_text())


def _every_color() -> np.ndarray:
    """Images in which every value of every channel occurs, and no two channels are alike."""
    ramp = np.arange(224 * 224, dtype=np.uint32).reshape(1, 224, 224)
    return np.stack([ramp % 256, ramp // 7 % 256, ramp // 224 + 16], axis=-1).astype(np.uint8)


def test_preprocessing_is_keras_to_the_last_bit(keras: Any, tf: Any) -> None:
    """The graph computes the very floats of preprocess_input, of its numpy and of its tensor variant."""
    images = _every_color()
    ours = tf.function(preprocess)(tf.constant(images)).numpy()
    keras_preprocess = keras.applications.resnet50.preprocess_input
    np.testing.assert_array_equal(ours, keras_preprocess(images.astype(np.float32)))
    np.testing.assert_array_equal(ours, keras_preprocess(tf.constant(images, tf.float32)).numpy())
    assert ours.dtype == np.float32


def test_rgb_is_not_bgr(keras: Any, network: Any, serve: Serve) -> None:
    """The artifact answers to RGB as Keras does, and otherwise to the same image in BGR."""
    (cat,) = recorded_requests.requests()[0]
    rgb, bgr = serve(np.stack([cat, cat[..., ::-1]]))
    prepared = keras.applications.resnet50.preprocess_input(cat[np.newaxis].astype(np.float32))
    np.testing.assert_allclose(rgb, network(prepared, training=False).numpy()[0], rtol=1e-4, atol=1e-6)
    assert np.abs(rgb - bgr).max() > 0.01


def test_signature_on_disk(artifact: Path) -> None:
    """saved_model.pb says input and output, by those names, with the contract's dtypes and shapes."""
    saved = saved_model_pb2.SavedModel.FromString((artifact / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    signature = graph.signature_def[SIGNATURE]
    facts = {
        name: (types_pb2.DataType.Name(info.dtype), [dim.size for dim in info.tensor_shape.dim])
        for name, info in (*signature.inputs.items(), *signature.outputs.items())
    }
    assert facts == {"input": ("DT_UINT8", [-1, 224, 224, 3]), "output": ("DT_FLOAT", [-1, 1000])}
    assert signature.method_name == "tensorflow/serving/predict"


def test_recorded_requests_are_few_and_different(logs: list[prediction_log_pb2.PredictionLog]) -> None:
    """Four requests of one image, each with finite answers that are probabilities and differ from the others'."""
    assert [len(recorded_requests.images_of(log)) for log in logs] == [1, 1, 1, 1]
    for log in logs:
        spec = log.predict_log.request.model_spec
        assert (spec.name, spec.signature_name) == ("resnet50", SIGNATURE)
        assert log.predict_log.response.model_spec.version.value == 1
    answers = np.concatenate([recorded_requests.answers_of(log) for log in logs])
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)
    assert (answers > 0).all()
    assert len({row.tobytes() for row in answers}) == 4


def test_recorded_answers_repeat(
    serve: Serve, logs: list[prediction_log_pb2.PredictionLog], card: dict[str, Any]
) -> None:
    """Asked again, the artifact answers as recorded, within the card's tolerance."""
    for log in logs:
        answers = serve(recorded_requests.images_of(log))
        np.testing.assert_allclose(answers, recorded_requests.answers_of(log), **card["tolerance"])


def test_openvino_answers_as_recorded(
    artifact: Path, logs: list[prediction_log_pb2.PredictionLog], card: dict[str, Any]
) -> None:
    """OpenVINO reads the directory as it is, keeps the names, and answers within the card's tolerance in float32."""
    import openvino

    model = openvino.Core().compile_model(artifact, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert [port.any_name for port in (*model.inputs, *model.outputs)] == [INPUT, OUTPUT]
    for log in logs:
        answers = model({INPUT: recorded_requests.images_of(log)})[OUTPUT]
        np.testing.assert_allclose(answers, recorded_requests.answers_of(log), **card["tolerance"])


def test_card_says_where_the_model_comes_from(network: Any, card: dict[str, Any]) -> None:
    """The card names the weights by kind, seed and digest, the tools, the tolerance and the measured agreement."""
    assert card["weights"]["kind"] == "random"
    assert card["weights"]["seed"] == 0
    assert card["weights"]["sha256"] == weights.digest(network)
    assert card["precision"] == "fp32"
    assert card["tolerance"] == {"rtol": model_card.FP32_TOLERANCE.rtol, "atol": model_card.FP32_TOLERANCE.atol}
    assert card["agreement"]["same_first_class"] == card["agreement"]["images"] == 4
    assert card["agreement"]["max_difference"] < 1e-4
    assert card["signature"]["inputs"]["input"]["dtype"] == "uint8"
    assert {"python", "tensorflow", "keras"} <= set(card["tools"])
    assert card["created"].endswith("+00:00")


def test_labels_travel_with_the_artifact(artifact: Path, card: dict[str, Any]) -> None:
    """The file that the card names is in the artifact and is the class index."""
    assert (artifact / card["labels"]).read_bytes() == CLASS_INDEX.read_bytes()


def test_another_seed_is_another_network(keras: Any, network: Any) -> None:
    """The seed decides the weights: the artifact's came from another process, and seed 1 gives others."""
    other = weights.network(weights.parse("random", seed=1))
    assert weights.digest(other) != weights.digest(network)


def test_label_k_is_class_k(keras: Any, network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose ranking of the classes is known, exported from a file, answers in that ranking, by index.

    Its classifier ignores the image: class k gets the logit ``logits[k]``. Keras' own decoder agrees on the names.
    """
    from keras.src.applications import imagenet_utils

    logits = np.linspace(0, 10, 1000, dtype=np.float32)[np.random.default_rng(7).permutation(1000)]
    path = tmp_path / "known.weights.h5"
    _with_classifier(network, np.zeros((2048, 1000), np.float32), logits, lambda: network.save_weights(path))
    order = savedmodel.Order(weights.parse(str(path), seed=0), tmp_path / "known", 7, force=False)
    directory = savedmodel.export(order, lambda step: None)

    answers = _openvino(directory)(recorded_requests.requests()[0])
    np.testing.assert_array_equal(answers[0].argsort(), logits.argsort())
    index = json.loads(CLASS_INDEX.read_text())
    assert "c2c37ea517e94d9795004a39431a14cb" in inspect.getsource(imagenet_utils)
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", index)
    decoded = keras.applications.resnet50.decode_predictions(answers, top=5)[0]
    assert [list(row[:2]) for row in decoded] == [index[str(k)] for k in logits.argsort()[:-6:-1]]
    facts = json.loads((directory / model_card.FILE).read_text())["weights"]
    assert (facts["kind"], facts["path"]) == ("file", str(path))


@pytest.mark.parametrize("name", ["same.keras", "same.h5"])
def test_files_give_the_same_network(network: Any, tmp_path: Path, name: str) -> None:
    """A .keras and a .h5 file of a whole network give its weights, with the same digest."""
    network.save(tmp_path / name)
    assert weights.digest(weights.network(weights.parse(str(tmp_path / name), 0))) == weights.digest(network)


def test_answers_that_are_no_numbers_are_refused(network: Any, tmp_path: Path) -> None:
    """Weights that make the network answer NaN are the user's to mend, and nothing is written."""
    path = tmp_path / "broken.weights.h5"
    kernel = np.full((2048, 1000), np.nan, np.float32)
    _with_classifier(network, kernel, np.zeros(1000, np.float32), lambda: network.save_weights(path))
    order = savedmodel.Order(weights.parse(str(path), 0), tmp_path / "out", 1, force=False)
    with pytest.raises(UserError, match="does not answer with finite numbers"):
        savedmodel.export(order, lambda step: None)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def wrong_files(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weight files that are no ResNet-50's, or no files of weights at all."""
    folder = tmp_path_factory.mktemp("wrong")
    layers = keras.layers
    small = keras.Sequential([layers.Input((8,)), layers.Dense(4), layers.Dense(3)])
    for name in ("small.keras", "small.h5"):
        small.save(folder / name)
    small.save_weights(folder / "small.weights.h5")
    for name in ("junk.h5", "junk.keras", "junk.weights.h5"):
        (folder / name).write_bytes(b"not weights" * 100)
    (folder / "empty.h5").touch()
    return folder


@pytest.fixture(scope="module")
def blank(keras: Any) -> Any:
    """A ResNet-50 that wrong files are loaded into, made once: making one takes a second."""
    return keras.applications.ResNet50(weights=None)


@pytest.mark.parametrize(
    "name",
    ["small.keras", "small.h5", "small.weights.h5", "junk.keras", "junk.h5", "junk.weights.h5", "empty.h5"],
)
def test_wrong_files_are_one_line(
    keras: Any, blank: Any, wrong_files: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another network, or of none, is one line that names it and says what it should be."""
    monkeypatch.setattr(keras.applications, "ResNet50", lambda weights: blank)
    with pytest.raises(UserError, match=f"{name}: not the weights of a ResNet-50 with 1,000 classes") as refused:
        weights.network(weights.parse(str(wrong_files / name), 0))
    assert "\n" not in str(refused.value)


def _with_classifier(network: Any, kernel: np.ndarray, bias: np.ndarray, act: Callable[[], None]) -> None:
    """Act while the network's last layer has these weights, and give it its own back."""
    layer = network.get_layer("predictions")
    before = layer.get_weights()
    layer.set_weights([kernel, bias])
    try:
        act()
    finally:
        layer.set_weights(before)


def _openvino(directory: Path) -> Serve:
    import openvino

    model = openvino.Core().compile_model(directory, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: model({INPUT: images})[OUTPUT]
