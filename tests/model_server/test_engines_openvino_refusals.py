"""OpenVINO answers as TensorFlow does, or refuses the model: nothing is answered wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortex.model_server import model_file
from cortex.model_server.engines.base import Engine, EngineOptions, Unsupported
from cortex.model_server.engines.openvino import OpenVINO
from cortex.model_server.engines.openvino_graph import convert
from cortex.model_server.engines.selection import AUTO, attempts, formats
from cortex.model_server.status import Code, StatusError

SERVE = frozenset({"serve"})


def opened(engine_models: Path, name: str, engine: str) -> Engine:
    found = model_file.find(engine_models / "hard" / name / "1", SERVE, formats(engine))
    return attempts(engine, "fp32", EngineOptions(threads=2), found)[0].open()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("count_up", "never changes a variable"),
        ("count_inside", "never changes a variable"),
        ("grow", "an array that grows"),
        ("unique", "other values than tf.unique"),
        ("mask", "leaves nothing"),
        ("gather", "what lies behind a tensor"),
        ("scatter", "tf.scatter_nd adds up"),
        ("divide", "divides integers in floating point"),
        ("modulo", "divides integers in floating point"),
        ("divide_inside", "divides integers in floating point"),
        ("modulo_of_rows", "divides integers in floating point"),
        ("gather_inside", "what lies behind a tensor"),
        ("equal", "compares integers in single precision"),
        ("small", "adds up products of 8-bit integers within 8 bits"),
        ("double", "computes with doubles in single precision"),
        ("turns", "makes no turn"),
        ("listed", "what lies behind a tensor"),
        ("each_its_own", "what lies behind a tensor"),
        ("stepped", "what lies behind a tensor"),
        ("counted", "what lies behind a tensor"),
        ("split", "what lies behind a tensor"),
        ("placed", "a tensor of known size"),
        ("throws", "cannot convert signature 'serving_default'"),
    ],
)
def test_what_would_be_answered_wrong_is_refused(engine_models: Path, name: str, reason: str) -> None:
    """The reason names what OpenVINO does with it; TensorFlow runs it."""
    with pytest.raises(Unsupported, match=reason):
        opened(engine_models, name, "openvino")
    opened(engine_models, name, "tensorflow").close()


@pytest.mark.parametrize("name", ["read", "half_as_wide", "scan", "last", "passed_on", "compare", "row", "embedded"])
def test_what_looks_like_it_is_answered_as_by_tensorflow(engine_models: Path, name: str) -> None:
    """A variable that is only read, shapes that are divided, a loop over one row, an output that is an input, decimals
    that are compared, a row by its number, rows of a table."""
    asked, reference = opened(engine_models, name, "openvino"), opened(engine_models, name, "tensorflow")
    assert isinstance(asked, OpenVINO)
    outputs = sorted(reference.signatures["serving_default"].outputs)
    for rows in (1, 1, 3, 2, 1):
        given = {"x": np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)}
        got, want = (each.run("serving_default", given, outputs) for each in (asked, reference))
        for output in outputs:
            np.testing.assert_allclose(got[output], want[output], atol=1e-5)
    asked.close()
    reference.close()


@pytest.mark.parametrize(
    ("name", "reason"), [("lengths_onnx", "runs through whole sequences"), ("turns_onnx", "makes no turn")]
)
def test_what_onnx_says_otherwise_is_refused(engine_models: Path, name: str, reason: str) -> None:
    """A loop that makes no turn would give what the request before had; lengths of sequences would not count."""
    found = model_file.find(engine_models / name / "1", SERVE)
    openvino, onnxruntime = attempts(AUTO, "fp32", EngineOptions(threads=2), found)
    with pytest.raises(Unsupported, match=reason):
        openvino.open()
    onnxruntime.open().close()


def test_the_first_of_equal_numbers_wins(engine_models: Path) -> None:
    """As ONNX has it, and TensorFlow."""
    found = model_file.find(engine_models / "ties_onnx" / "1", SERVE)
    rows: Any = np.array([[1, 1, 1, 1, 0, 1, 1, 2], [0] * 8, [3, 3, 2, 2, 3, 3, 1, 1]], np.float32)
    for attempt in attempts(AUTO, "fp32", EngineOptions(threads=2), found):
        engine = attempt.open()
        assert engine.run("serving_default", {"x": rows}, ["y"])["y"].tolist() == [[7, 0, 1], [0, 1, 2], [0, 1, 4]]
        engine.close()


def test_an_empty_input_gets_no_answer_of_another(engine_models: Path) -> None:
    """The last of no rows is nothing; OpenVINO would give what the request before had."""
    engine = opened(engine_models, "last", "openvino")
    given: Any = np.full((2, 4), 42, np.float32)
    engine.run("serving_default", {"x": given}, ["y"])
    with pytest.raises(StatusError, match="; --engine=tensorflow runs it") as refused:
        engine.run("serving_default", {"x": given[:0]}, ["y"])
    assert refused.value.code is Code.FAILED_PRECONDITION
    engine.close()


def test_a_signature_that_is_refused_is_converted_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the load; its requests cost no conversion each."""
    tried: list[str] = []

    def converted(core: Any, model: Any, signatures: Any, name: str) -> Any:
        tried.append(name)
        if name == "doubled":
            raise Unsupported("OpenVINO cannot convert it")
        return convert(core, model, signatures, name)

    monkeypatch.setattr("cortex.model_server.engines.openvino.convert", converted)
    (found,) = model_file.find(models / "two_inputs" / "1", SERVE)
    engine = OpenVINO.open(found, EngineOptions(threads=2))
    for _ in range(2):
        with pytest.raises(StatusError, match="cannot convert it; --engine=tensorflow runs it"):
            engine.run("doubled", {"q": np.zeros((1, 4), np.float32)}, ["doubled"])
    assert tried == ["serving_default", "doubled"]
    engine.close()


def test_a_refusal_names_the_engine_that_reads_the_file(engine_models: Path) -> None:
    """TensorFlow reads no ONNX."""
    found = model_file.find(engine_models / "sum_onnx" / "1", SERVE)
    engine = attempts(AUTO, "fp32", EngineOptions(threads=2), found)[0].open()
    with pytest.raises(StatusError, match="an input that is empty; --engine=onnxruntime runs it"):
        engine.run("serving_default", {"x": np.zeros((0, 4), np.float32)}, ["y"])
    engine.close()


def test_auto_goes_on_to_tensorflow(engine_models: Path) -> None:
    """Whoever does not name an engine gets the right answers without knowing of any of this."""
    found = model_file.find(engine_models / "hard" / "count_up" / "1", SERVE, formats(AUTO))
    kinds = [attempt.engine for attempt in attempts(AUTO, "fp32", EngineOptions(), found)]
    assert kinds[0] == "openvino"
    assert "tensorflow" in kinds
