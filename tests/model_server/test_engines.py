"""What every engine owes: the same answers to the same requests, whatever the format of the model."""

import gc
import itertools
import struct
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cortex import tensors
from cortex.model_server import model_file, servable
from cortex.model_server.engines import tflite, tflite_file
from cortex.model_server.engines.base import Engine, EngineOptions, Unsupported
from cortex.model_server.engines.selection import AUTO, ENGINES, Attempt, attempts, formats
from cortex.model_server.servable import LoadOptions
from cortex.model_server.status import Code, StatusError

SERVE = frozenset({"serve"})
FP32, BF16 = 1e-5, 0.03
"""Largest difference of a probability: rounding in fp32; three steps of bf16 over three layers."""

RUNS = [
    ("saved_model", "tensorflow", "fp32", FP32),
    ("saved_model", "tensorflow", "bf16", BF16),
    ("saved_model", "openvino", "fp32", FP32),
    ("saved_model", "openvino", "bf16", BF16),
    ("ir", "openvino", "fp32", FP32),
    ("ir", "openvino", "bf16", BF16),
    ("onnx", "openvino", "fp32", FP32),
    ("onnx", "openvino", "bf16", BF16),
    ("onnx", "onnxruntime", "fp32", FP32),
    ("tflite", "openvino", "fp32", FP32),
    ("tflite", "openvino", "bf16", BF16),
    ("tflite", "tflite", "fp32", FP32),
    ("tflite_bare", "openvino", "fp32", FP32),
    ("tflite_bare", "tflite", "fp32", FP32),
]
REFERENCES = [
    ("half_plus", "tensorflow"),
    ("half_plus", "openvino"),
    ("half_plus_onnx", "openvino"),
    ("half_plus_onnx", "onnxruntime"),
    ("half_plus_tflite", "openvino"),
    ("half_plus_tflite", "tflite"),
]
Open = Callable[..., Engine]


@pytest.fixture(scope="module")
def asked(engine_models: Path) -> dict[str, Any]:
    """Pictures, their labels, and the answers of TensorFlow in eager mode when the model was made."""
    with np.load(engine_models / "asked.npz") as file:
        return dict(file)


@pytest.fixture
def engine(engine_models: Path) -> Iterator[Open]:
    opened: list[Engine] = []

    def open_engine(model: str, name: str, precision: str = "fp32") -> Engine:
        found = model_file.find(engine_models / model / "1", SERVE, formats(name))
        try:
            opened.append(attempts(name, precision, EngineOptions(), found)[0].open())
        except Unsupported as error:
            if "this CPU" in str(error):
                pytest.skip(str(error))
            raise
        return opened[-1]

    yield open_engine
    for each in opened:
        each.close()


def _ask(engine: Engine, pictures: Any) -> Any:
    signature = engine.signatures["serving_default"]
    ((alias, info),) = signature.inputs.items()
    (output,) = signature.outputs
    assert tensors.dtype_of(info.dtype) == np.uint8
    assert [dim.size for dim in info.tensor_shape.dim] == [-1, 12, 12, 3]
    return engine.run("serving_default", {alias: pictures}, [output])[output]


@pytest.mark.parametrize(("model", "name", "precision", "tolerance"), RUNS)
@pytest.mark.parametrize("batch", [1, 5, 256])
def test_engines_agree(
    engine: Open, asked: dict[str, Any], model: str, name: str, precision: str, tolerance: float, batch: int
) -> None:
    """Every engine gives TensorFlow's probabilities within the tolerance of its precision, and its labels."""
    got = _ask(engine(model, name, precision), asked["pictures"][:batch])
    want = asked["answers"][:batch]
    assert got.dtype == np.float32
    assert np.max(np.abs(got - want)) <= tolerance
    clear = np.sort(want, axis=1)[:, -1] - np.sort(want, axis=1)[:, -2] > 2 * tolerance
    assert (got.argmax(1) == want.argmax(1))[clear].all()


def test_the_comparison_means_something(asked: dict[str, Any], engine: Open) -> None:
    """The classifier has learned its classes, and one changed pixel column moves answers beyond every tolerance."""
    assert (asked["answers"].argmax(1) == asked["labels"]).mean() > 0.85
    changed = asked["pictures"].copy()
    changed[:, :, 5] = 255 - changed[:, :, 5]
    assert np.max(np.abs(_ask(engine("saved_model", "openvino"), changed) - asked["answers"])) > 2 * BF16


@pytest.mark.parametrize(("model", "name"), REFERENCES)
def test_a_rank_that_differs_by_ones_is_accepted(engine: Open, model: str, name: str) -> None:
    """An input declared [-1,1] takes a plain list, as TF Serving's does; and what no reshape mends is refused."""
    half = engine(model, name)
    for x in (np.array([1, 2, 3], np.float32), np.array([[1], [2], [3]], np.float32)):
        assert half.run("serving_default", {"x": x}, ["y"])["y"].ravel().tolist() == [2.5, 3.0, 3.5]
    if name != "tensorflow":  # its graph broadcasts any shape
        with pytest.raises(StatusError) as caught:
            half.run("serving_default", {"x": np.ones((2, 7), np.float32)}, ["y"])
        assert caught.value.code is Code.INVALID_ARGUMENT


def test_every_dtype_through_tensorflow(engine: Open) -> None:
    """Each dtype of a signature goes in and comes out as it was, as message and as array."""
    every = engine("every", "tensorflow")
    values = {"bool": np.array([True, False]), "string": np.array([b"\xff", b""], np.object_)}
    for alias, info in every.signatures["serving_default"].inputs.items():
        dtype = tensors.dtype_of(info.dtype)
        name = alias.removeprefix("t_")
        values.setdefault(name, np.array([1, 100], dtype))
    inputs = {f"t_{name}": tensors.to_array(tensors.to_proto(value, typed=True)) for name, value in values.items()}
    got = every.run("serving_default", inputs, [f"r_{name}" for name in values])
    assert len(got) == 16
    for name, value in values.items():
        array = got[f"r_{name}"]
        assert array.dtype == value.dtype
        assert tensors.to_array(tensors.to_proto(array)).tolist() == value.tolist()
    assert got["r_bfloat16"].dtype == ml_dtypes.bfloat16


def test_tensorflow_breaks_off_at_the_deadline(engine: Open) -> None:
    """A run that would go on for hours ends with TF Serving's status, and the next one is answered."""
    turns = engine("turns", "tensorflow")
    started = time.monotonic()
    with pytest.raises(StatusError) as caught:
        turns.run("serving_default", {"x": np.array(10**12)}, ["y"], started + 0.2)
    assert str(caught.value) == "DEADLINE_EXCEEDED: Timed out waiting for notification"
    assert time.monotonic() - started < 20
    assert turns.run("serving_default", {"x": np.array(3)}, ["y"], time.monotonic() + 30)["y"] == 3


def test_outputs_filtered_in_very_many_ways(engine: Open) -> None:
    """TensorFlow gives what is asked for, in its order, however many combinations of outputs clients think of."""
    every = engine("every", "tensorflow")
    inputs = {
        alias: np.zeros(2, tensors.dtype_of(info.dtype))
        for alias, info in every.signatures["serving_default"].inputs.items()
    }
    inputs["t_string"] = np.array([b"a", b"b"], np.object_)
    names = sorted(every.signatures["serving_default"].outputs)
    for first, second in itertools.permutations(names, 2):
        got = every.run("serving_default", inputs, [first, second])
        assert list(got) == [first, second]
        assert got[first].dtype == inputs[first.replace("r_", "t_", 1)].dtype


@pytest.mark.parametrize(("model", "name"), REFERENCES)
def test_a_closed_model_is_let_go_of_without_a_collection(engine_models: Path, model: str, name: str) -> None:
    """A server freezes what its start has loaded: a circle in it would keep the model for ever."""
    (found,) = model_file.find(engine_models / model / "1", SERVE, formats(name))
    gc.disable()
    try:
        opened = Attempt(name, found, EngineOptions()).open()
        opened.run("serving_default", {"x": np.ones((1, 1), np.float32)}, ["y"])
        held = [weakref.ref(opened)]
        if name == "tensorflow":
            held.append(weakref.ref(opened._session.graph))  # type: ignore[attr-defined]
        opened.close()
        del opened
        assert [each() for each in held] == [None] * len(held)
    finally:
        gc.enable()


def test_tables_and_assets_of_tensorflow_1(engine: Open) -> None:
    """The main op fills a table from the model's own asset, and variables are restored."""
    table = engine("table", "tensorflow")
    words = np.array([b"dog", b"cat", b"bird"], np.object_)
    assert table.run("serving_default", {"word": words}, ["id"])["id"].tolist() == [101, 100, 99]


@pytest.mark.parametrize("name", ["tensorflow", "openvino"])
def test_keras_saved_by_tensorflow(engine: Open, engine_models: Path, name: str) -> None:
    """What `tf.saved_model.save` makes of a Keras model answers as the model does: its variables are not missed."""
    model = engine("keras", name)
    (given,) = model.signatures["serving_default"].inputs
    (output,) = model.signatures["serving_default"].outputs
    with np.load(engine_models / "keras" / "asked.npz") as asked:
        answers = model.run("serving_default", {given: asked["given"]}, [output])[output]
        assert np.allclose(answers, asked["answers"], atol=1e-4)


def test_strings_and_int64_through_onnx_runtime(engine: Open) -> None:
    """Strings are bytes on both sides, and integers keep every digit."""
    strings = engine("strings_onnx", "onnxruntime")
    inputs = {"word": np.array([b"cat", "ä".encode()], np.object_), "number": np.array([2**40, -1])}
    got = strings.run("serving_default", inputs, ["same", "next"])
    assert got["same"].tolist() == [b"cat", "ä".encode()]
    assert got["next"].tolist() == [2**40 + 1, 0]
    with pytest.raises(StatusError, match="'word' holds a string that is not UTF-8"):
        strings.run("serving_default", inputs | {"word": np.array([b"\xff", b""], np.object_)}, ["same"])


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 2, 4)])
def test_an_empty_sequence_does_not_end_the_process(engine: Open, shape: tuple[int, ...]) -> None:
    """ONNX Runtime would abort over it; what is not empty is answered, before and after."""
    recurrent = engine("recurrent_onnx", "onnxruntime")
    full = {"x": np.ones((2, 3, 4), np.float32)}
    assert recurrent.run("serving_default", full, ["y"])["y"].shape == (2, 1, 3, 3)
    with pytest.raises(StatusError, match="an input is empty, over which ONNX Runtime ends the process") as refusal:
        recurrent.run("serving_default", {"x": np.zeros(shape, np.float32)}, ["y"])
    assert refusal.value.code == Code.INVALID_ARGUMENT
    assert recurrent.run("serving_default", full, ["y"])["y"].shape == (2, 1, 3, 3)


@pytest.mark.parametrize("name", ["onnxruntime", "tflite"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (2, 1), (3,)])
def test_any_rank_keeps_its_dimensions(engine: Open, name: str, shape: tuple[int, ...]) -> None:
    """An input whose shape the graph leaves open is taken as it is, also where it has one element."""
    anything = engine("any_rank_onnx" if name == "onnxruntime" else "any_rank_tflite", name)
    assert anything.signatures["serving_default"].inputs["x"].tensor_shape.unknown_rank
    assert anything.run("serving_default", {"x": np.full(shape, 3, np.float32)}, ["y"])["y"].shape == shape


def test_what_tf_lite_was_loaded_with_answers(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is not read again for the first request."""
    made = []

    class Interpreter(tflite.Interpreter):  # type: ignore[misc]  # it has no stubs
        def __init__(self, **how: Any) -> None:
            made.append(how)
            super().__init__(**how)

    monkeypatch.setattr(tflite, "Interpreter", Interpreter)
    half = engine("half_plus_tflite", "tflite")
    assert half.run("serving_default", {"x": np.ones((1, 1), np.float32)}, ["y"])["y"].item() == 2.5
    assert len(made) == 1


def test_an_error_of_tf_lite_tells_itself_alone(engine: Open) -> None:
    """The texts of all errors before pile up in an interpreter."""
    picked = engine("picked_tflite", "tflite")
    texts = set()
    for _ in range(3):
        with pytest.raises(StatusError, match="out of bounds") as caught:
            picked.run("serving_default", {"x": np.array([[5]], np.int32)}, ["y"])
        texts.add(caught.value.message)
    assert len(texts) == 1
    assert picked.run("serving_default", {"x": np.array([[1]], np.int32)}, ["y"])["y"].tolist() == [2.0]


@pytest.mark.parametrize(("model", "name"), REFERENCES)
def test_a_wrong_dtype_is_refused(engine: Open, model: str, name: str) -> None:
    """An engine that is handed another dtype says so; it neither crashes nor converts."""
    with pytest.raises(StatusError):
        engine(model, name).run("serving_default", {"x": np.array([[b"x"]], np.object_)}, ["y"])


@pytest.mark.parametrize(
    ("model", "want", "reason"),
    [
        ("onnx", "openvino", ""),
        ("ir", "openvino", ""),
        ("strings_onnx", "onnxruntime", "OpenVINO has no exact"),
        ("strings_tflite", "tflite", "OpenVINO gives numpy no dynamic, which 'x' is"),
        ("any_rank_tflite", "tflite", "any rank for a scalar"),
    ],
)
def test_auto_takes_what_is_there(
    engine_models: Path, model: str, want: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """auto goes by the format of the file, and the log says what runs, and why not what was tried before."""
    caplog.set_level("INFO")
    loaded = servable.load("m", 1, engine_models / model / "1", LoadOptions())
    assert loaded.description.engine == want
    assert f"runs with engine={want}" in caplog.text
    assert reason in caplog.text
    assert ("does not run" in caplog.text) == bool(reason)
    loaded.close()


@pytest.fixture
def several(engine_models: Path, tmp_path: Path) -> Path:
    """A version directory with a SavedModel, an ONNX file and a TF Lite file."""
    for source in ("half_plus", "half_plus_onnx", "half_plus_tflite"):
        for path in (engine_models / source / "1").iterdir():
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize(
    ("engine_name", "prefer_tflite", "want"),
    [
        (AUTO, False, ["openvino SavedModel", "tensorflow SavedModel", "openvino ONNX"]),
        (AUTO, True, ["openvino TF Lite", "tflite TF Lite", "openvino SavedModel"]),
        ("openvino", True, ["openvino TF Lite", "openvino SavedModel", "openvino ONNX"]),
        ("tflite", False, ["tflite TF Lite"]),
        ("onnxruntime", True, ["onnxruntime ONNX"]),
        ("tensorflow", True, ["tensorflow SavedModel"]),
    ],
)
def test_the_order_of_attempts(several: Path, engine_name: str, prefer_tflite: bool, want: list[str]) -> None:
    """The SavedModel first, unless --prefer_tflite_model; OpenVINO first, then the reference of the format."""
    found = model_file.find(several, SERVE, formats(engine_name), prefer_tflite=prefer_tflite)
    tried: list[Attempt] = list(attempts(engine_name, "fp32", EngineOptions(), found))
    assert [f"{each.engine} {each.model.format}" for each in tried][: len(want)] == want


def test_two_files_of_a_format_are_not_guessed_at(tmp_path: Path) -> None:
    """Of several files of one format, only model.SUFFIX can be meant."""
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(StatusError, match=r"several ONNX files \(a.onnx, b.onnx\): call the one to serve model.onnx"):
        model_file.find(tmp_path, SERVE)
    (tmp_path / "model.onnx").write_bytes(b"x")
    (found,) = model_file.find(tmp_path, SERVE)
    assert isinstance(found, model_file.ModelFile)
    assert found.path.name == "model.onnx"


@pytest.mark.parametrize(
    ("name", "file"),
    [("onnxruntime", "model.onnx"), ("tflite", "model.tflite"), ("openvino", "model.xml"), ("openvino", "model.onnx")],
)
@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\xff" * 4096])
def test_a_broken_file_is_one_sentence(tmp_path: Path, name: str, file: str, content: bytes) -> None:
    """A file that is no model fails the load with one line that names it."""
    (tmp_path / file).write_bytes(content)
    with pytest.raises(StatusError) as caught:
        servable.load("m", 1, tmp_path, LoadOptions(engine=name, precision="fp32"))
    assert file in caught.value.message
    assert "\n" not in caught.value.message


def test_a_damaged_tflite_file_is_refused_by_its_reader(engine_models: Path, tmp_path: Path) -> None:
    """Offsets that point anywhere are Unsupported, whatever bytes they are."""
    whole = (engine_models / "tflite" / "1" / "model.tflite").read_bytes()
    assert tflite_file.read(engine_models / "tflite" / "1" / "model.tflite")["serving_default"].is_stated
    path = tmp_path / "model.tflite"
    refused = 0
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        struct.pack_into("<I", damaged, int(random.integers(0, len(whole) - 4)) & ~3, int(random.integers(2**32)))
        path.write_bytes(damaged[: random.integers(8, len(whole))])
        try:
            tflite_file.read(path)
        except Unsupported:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("name", "wheel"), [("onnxruntime", "onnxruntime"), ("tflite", "ai-edge-litert"), ("openvino", "openvino")]
)
def test_a_missing_wheel_is_named(several: Path, monkeypatch: pytest.MonkeyPatch, name: str, wheel: str) -> None:
    """An engine that is not installed is one sentence, with the wheel that has it."""
    monkeypatch.setitem(ENGINES, name, "no_such_package.engine:Engine")
    message = rf"engine {name} is not installed .*: pip install {wheel}; .* ENGINES={wheel}$"
    with pytest.raises(StatusError, match=message):
        servable.load("m", 1, several, LoadOptions(engine=name, precision="fp32"))
