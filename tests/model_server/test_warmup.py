from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cortex.model_server import model_card, warmup_records
from cortex.model_server.model_card import ModelCard
from cortex.model_server.status import Code, StatusError
from cortex.model_server.warmup import Mismatch, replay, tolerances
from cortex.protos import meta_graph_pb2, prediction_log_pb2, types_pb2
from tests.model_server.harness import predict_request, recorded, write_records

REQUEST = predict_request("any", {"x": np.ones((1, 2), np.float32)})
PROBABILITIES = np.array([[0.7, 0.2, 0.1]], np.float32)


def _replay(version: Path, answer: dict[str, Any], card: ModelCard | None = None, precision: str = "fp32") -> int:
    return replay(version, lambda request: answer, tolerances(card, precision))


def test_a_damaged_record_is_data_loss(tmp_path: Path) -> None:
    """A file that is cut short fails the load with DATA_LOSS, in TF Serving's words."""
    path = write_records(tmp_path, [b"0123456789"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StatusError, match="Please verify your warmup data is in TFRecord format") as caught:
        _replay(tmp_path, {})
    assert caught.value.code is Code.DATA_LOSS


def test_a_model_without_records_is_not_compared(tmp_path: Path) -> None:
    """Warm-up is optional."""
    assert _replay(tmp_path, {}) == 0


def test_records_without_answers_are_only_replayed(tmp_path: Path) -> None:
    """TF Serving's own warm-up files hold no answers: nothing is compared."""
    write_records(tmp_path, [recorded(REQUEST), recorded(REQUEST)])
    assert _replay(tmp_path, {}) == 0


@pytest.mark.parametrize(
    ("card", "precision", "off", "matches"),
    [
        (None, "fp32", 0.005, True),
        (None, "fp32", 0.02, False),
        (None, "bf16", 0.02, True),
        (None, "bf16", 0.1, False),
        (ModelCard(precision="fp32", rtol=0.0, atol=0.001), "fp32", 0.0005, True),
        (ModelCard(precision="fp32", rtol=0.0, atol=0.001), "fp32", 0.002, False),
        (ModelCard(precision="fp32", rtol=0.0, atol=0.001), "bf16", 0.02, True),
        (ModelCard(precision="bf16", rtol=0.0, atol=0.001), "bf16", 0.02, False),
        (ModelCard(precision="int8", rtol=0.0, atol=0.1), "bf16", 0.09, True),
    ],
)
def test_tolerance(tmp_path: Path, card: ModelCard | None, precision: str, off: float, matches: bool) -> None:
    """The card's tolerance counts; without one a default; bf16 may drift further, unless the card is bf16's own."""
    write_records(tmp_path, [recorded(REQUEST, {"y": PROBABILITIES})])
    answer = {"y": PROBABILITIES + np.array([[off, 0, 0]], np.float32)}
    if matches:
        assert _replay(tmp_path, answer, card, precision) == 1
    else:
        with pytest.raises(Mismatch):
            _replay(tmp_path, answer, card, precision)


def test_near_equal_probabilities_are_told_from_noise(tmp_path: Path) -> None:
    """The default scales with the output: a thousand classes near 0.001 are not all within it."""
    uniform = np.full((1, 1000), 0.001, np.float32)
    write_records(tmp_path, [recorded(REQUEST, {"y": uniform})])
    with pytest.raises(Mismatch):
        _replay(tmp_path, {"y": uniform * 1.2}, None, "bf16")


def test_a_mismatch_names_the_record_the_output_and_the_largest_error(tmp_path: Path) -> None:
    """The message has all that is needed to find the difference."""
    write_records(tmp_path, [recorded(REQUEST), recorded(REQUEST, {"y": PROBABILITIES})])
    with pytest.raises(Mismatch) as caught:
        _replay(tmp_path, {"y": PROBABILITIES[:, ::-1]})
    text = caught.value.message
    assert "warmup record 2 of " in text
    assert "output 'y' is out of tolerance: largest error 0.6 at [0, 2] (recorded 0.1, got 0.7, allowed " in text


BFLOAT = np.array([1.5, 2.5], ml_dtypes.bfloat16)
NAN = np.array([np.nan, np.inf, 1.0], np.float32)


@pytest.mark.parametrize(
    ("want", "got", "text"),
    [
        (PROBABILITIES, None, "does not return it"),
        (PROBABILITIES, PROBABILITIES[0], "is float32[3], but float32[1, 3] was recorded"),
        (PROBABILITIES, PROBABILITIES.astype(np.float64), "is float64[1, 3], but float32[1, 3] was recorded"),
        (np.array([3, 4]), np.array([3, 5]), "at [1] (recorded 4, got 5)"),
        (np.array([b"a"], object), np.array([b"b"], object), "(recorded b'a', got b'b')"),
        (NAN, np.array([np.nan, 1.0, 1.0], np.float32), "largest error inf at [1]"),
        (NAN, np.array([0.0, np.inf, 1.0], np.float32), "out of tolerance"),
        (BFLOAT, np.array([1.5, 9.0], ml_dtypes.bfloat16), "out of tolerance"),
        (NAN, NAN, None),
        (BFLOAT, BFLOAT, None),
        (np.array([True]), np.array([True]), None),
        (np.empty((0, 3), np.float32), np.empty((0, 3), np.float32), None),
    ],
)
def test_comparison(tmp_path: Path, want: Any, got: Any, text: str | None) -> None:
    """Shapes, dtypes, integers and strings must be equal; NaN equals NaN; every float kind has a tolerance."""
    write_records(tmp_path, [recorded(REQUEST, {"y": want})])
    answer = {} if got is None else {"y": got}
    if text is None:
        assert _replay(tmp_path, answer) == 1
    else:
        with pytest.raises(Mismatch) as caught:
            _replay(tmp_path, answer)
        assert text in caught.value.message


def test_too_many_records_fail_the_load(tmp_path: Path) -> None:
    """More than 1000 records are refused."""
    write_records(tmp_path, [recorded(REQUEST)] * 1001)
    with pytest.raises(StatusError, match=r"Number of warmup records exceeds the maximum \(1000\)"):
        _replay(tmp_path, {})


def test_unsupported_records_fail_the_load(tmp_path: Path) -> None:
    """A kind of record that is not replayed is UNIMPLEMENTED, with the number of its field."""
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.SetInParent()
    write_records(tmp_path, [log])
    with pytest.raises(
        StatusError, match=r"warmup record 1 of .* failed: Unsupported log_type for warmup: 5"
    ) as caught:
        _replay(tmp_path, {})
    assert caught.value.code is Code.UNIMPLEMENTED


def _classifier() -> meta_graph_pb2.SignatureDef:
    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/classify")
    signature.inputs["inputs"].dtype = types_pb2.DT_STRING
    signature.outputs["classes"].dtype = types_pb2.DT_STRING
    signature.outputs["scores"].dtype = types_pb2.DT_FLOAT
    return signature


def _regressor() -> meta_graph_pb2.SignatureDef:
    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/regress")
    signature.inputs["inputs"].dtype = types_pb2.DT_STRING
    signature.outputs["outputs"].dtype = types_pb2.DT_FLOAT
    return signature


def _example_records(score: float, value: float) -> list[prediction_log_pb2.PredictionLog]:
    """One record of each kind that takes an Example, with these answers."""
    classify, regress, multi = (prediction_log_pb2.PredictionLog() for _ in range(3))
    for request in (classify.classify_log.request, regress.regress_log.request, multi.multi_inference_log.request):
        request.input.example_list.examples.add()
    classify.classify_log.request.model_spec.signature_name = "c"
    regress.regress_log.request.model_spec.signature_name = "r"
    for name, method in (("c", "tensorflow/serving/classify"), ("r", "tensorflow/serving/regress")):
        task = multi.multi_inference_log.request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = "m", name
        multi.multi_inference_log.response.results.add()
    of_both = multi.multi_inference_log.response.results
    for result in (classify.classify_log.response.result, of_both[0].classification_result):
        result.classifications.add().classes.add(label="cat", score=score)
    for result in (regress.regress_log.response.result, of_both[1].regression_result):
        result.regressions.add(value=value)
    return [classify, regress, multi]


@pytest.mark.parametrize(
    ("score", "value", "error"),
    [
        (0.75, 3.0, None),
        (0.5, 3.0, "warmup record 1 .* output 'scores' is out of tolerance"),
        (0.75, 4.0, "warmup record 2 .* output 'values' is out of tolerance"),
    ],
)
def test_records_of_examples_are_replayed_and_compared(
    tmp_path: Path, score: float, value: float, error: str | None
) -> None:
    """Classify, Regress and MultiInference records warm and prove a model as Predict records do."""
    outputs = {
        "classes": np.array([[b"cat"]], object),
        "scores": np.array([[0.75]], np.float32),
        "outputs": np.array([[3.0]], np.float32),
    }
    write_records(tmp_path, _example_records(score, value))

    def answer(log: prediction_log_pb2.PredictionLog) -> Any:
        signatures = {"c": _classifier(), "r": _regressor()}
        return warmup_records.answer(log, signatures, lambda call: {name: outputs[name] for name in call.outputs})

    if error is None:
        assert replay(tmp_path, answer, tolerances(None, "fp32")) == 3
    else:
        with pytest.raises(Mismatch, match=error):
            replay(tmp_path, answer, tolerances(None, "fp32"))


def test_garbage_in_a_record_fails_the_load(tmp_path: Path) -> None:
    """A record that is no PredictionLog is named by its number."""
    write_records(tmp_path, [recorded(REQUEST), b"\xff\xff\xff"])
    with pytest.raises(StatusError, match="Failed to parse warmup record: number 2"):
        _replay(tmp_path, {})


def test_records_are_replayed_as_often_as_asked(tmp_path: Path) -> None:
    """--num_request_iterations_for_warmup repeats each record."""
    write_records(tmp_path, [recorded(REQUEST), recorded(REQUEST)])
    asked: list[object] = []
    replay(tmp_path, lambda request: asked.append(request) or {}, tolerances(None, "fp32"), iterations=3)
    assert len(asked) == 6


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"tolerance": {"rtol": -1}}', '{"tolerance": {"atol": "much"}}', "[" * 100_000, "\x00", '"x"'],
)
def test_a_card_that_cannot_be_read_is_ignored(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """A card never keeps a model from loading; it is warned of."""
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "model_card.json").write_text(text)
    assert model_card.read(tmp_path) is None
    assert "Ignoring the model card" in caplog.text


def test_a_card_says_what_it_says(tmp_path: Path) -> None:
    """Source, weights, precision and tolerance are read; what is missing or of another type is empty."""
    (tmp_path / "assets.extra").mkdir()
    path = tmp_path / "assets.extra" / "model_card.json"
    path.write_text('{"source": "keras", "weights": {"kind": "random"}, "precision": 7, "tolerance": {"rtol": 0.5}}')
    assert model_card.read(tmp_path) == ModelCard("keras", "random", "", 0.5, None)
