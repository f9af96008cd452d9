"""Classify, Regress and MultiInference over both doors, on models of TensorFlow 1 and 2."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cortex.model_server import inference, saved_model
from cortex.model_server.call import Call
from cortex.model_server.engines.base import Arrays
from cortex.model_server.status import StatusError
from cortex.protos import (
    classification_pb2,
    example_pb2,
    inference_pb2,
    input_pb2,
    regression_pb2,
)
from tests.model_server.harness import Server, Start, failure

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
INVALID, UNIMPLEMENTED, PRECONDITION = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.FAILED_PRECONDITION,
)
ONE, TWO = {"x": [0.25, 0.75]}, {"x": [1.0, -2.0], "word": b"cat", "c": 3}


@pytest.fixture(scope="module")
def stub(reference: Server) -> Any:
    return reference.prediction


def _example(features: Mapping[str, Any]) -> example_pb2.Example:
    example = example_pb2.Example()
    for name, value in features.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.extend(value)
    return example


def _input(*examples: Mapping[str, Any], context: Mapping[str, Any] | None = None) -> input_pb2.Input:
    message = input_pb2.Input()
    if context is None:
        message.example_list.examples.extend(map(_example, examples))
    else:
        message.example_list_with_context.examples.extend(map(_example, examples))
        message.example_list_with_context.context.CopyFrom(_example(context))
    return message


def _classification(
    model: str, signature: str, *examples: Any, **kind: Any
) -> classification_pb2.ClassificationRequest:
    request = classification_pb2.ClassificationRequest(input=_input(*examples, **kind))
    request.model_spec.name, request.model_spec.signature_name = model, signature
    return request


def _regression(model: str, signature: str, *examples: Any, **kind: Any) -> regression_pb2.RegressionRequest:
    request = regression_pb2.RegressionRequest(input=_input(*examples, **kind))
    request.model_spec.name, request.model_spec.signature_name = model, signature
    return request


def _tasks(*tasks: tuple[str, str, str], examples: Any = (ONE,)) -> inference_pb2.MultiInferenceRequest:
    request = inference_pb2.MultiInferenceRequest(input=_input(*examples))
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = model, signature
    return request


def _labels(response: Any) -> list[list[tuple[str, float]]]:
    return [[(one.label, one.score) for one in row.classes] for row in response.result.classifications]


@pytest.mark.parametrize(
    ("signature", "want"),
    [
        ("", [[("none", 0.25), ("other", 0.75)], [("cat", 1.0), ("other", -2.0)]]),
        ("classes", [[("none", 0.0), ("other", 0.0)], [("cat", 0.0), ("other", 0.0)]]),
        ("scores", [[("", 0.25), ("", 0.75)], [("", 1.0), ("", -2.0)]]),
    ],
)
def test_classify(stub: Any, signature: str, want: Any) -> None:
    """Each Example gets its classes, with label, score or both."""
    response = stub.Classify(_classification("estimator", signature, ONE, TWO))
    assert _labels(response) == want
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("estimator", 1, signature or "serving_default")


def test_regress(stub: Any) -> None:
    """Each Example gets its value, from an output of shape [n] or [n, 1]."""
    response = stub.Regress(_regression("estimator", "regress", ONE, TWO))
    assert [one.value for one in response.result.regressions] == [0.125, 3.5]
    assert response.model_spec.signature_name == "regress"
    assert stub.Regress(_regression("scorer", "value", ONE)).result.regressions[0].value == 0.25


def test_a_context_holds_for_every_example(stub: Any) -> None:
    """A feature of the context counts where the Example has none of that name."""
    request = _regression("estimator", "regress", {"x": [2.0, 0.0]}, TWO, context={"c": 10, "x": [8.0, 8.0]})
    assert [one.value for one in stub.Regress(request).result.regressions] == [11.0, 3.5]


def test_the_method_name_need_not_match(stub: Any) -> None:
    """TensorFlow 2 writes predict's method name on every signature."""
    assert _labels(stub.Classify(_classification("scorer", "", ONE))) == [[("", 0.25), ("", 0.75)]]


def test_multi_inference(stub: Any) -> None:
    """Tasks on the same Examples, each with its own kind of result."""
    tasks = _tasks(("estimator", "", CLASSIFY), ("estimator", "regress", REGRESS), examples=(ONE, TWO))
    first, second = stub.MultiInference(tasks).results
    assert first.classification_result.classifications[1].classes[0].label == "cat"
    assert [one.value for one in second.regression_result.regressions] == [0.125, 3.5]
    assert (first.model_spec.signature_name, second.model_spec.signature_name) == ("serving_default", "regress")
    assert (second.model_spec.name, second.model_spec.version.value) == ("estimator", 1)


REFUSED = [
    ("Classify", classification_pb2.ClassificationRequest(), INVALID, "Missing ModelSpec"),
    ("Regress", regression_pb2.RegressionRequest(), INVALID, "Missing ModelSpec"),
    ("Classify", _classification("estimator", ""), INVALID, "Input is empty."),
    ("Classify", _classification("estimator", "", context={"c": 1}), INVALID, "Input is empty."),
    ("Classify", _classification("estimator", "s", ONE), INVALID, "No signature was found with the name: s"),
    ("Classify", _classification("two_inputs", "", ONE), INVALID, "Expected one input Tensor."),
    (
        "Classify",
        _classification("estimator", "predict", ONE),
        PRECONDITION,
        "No classification inputs found in SignatureDef: ",
    ),
    (
        "Classify",
        _classification("estimator", "regress", ONE),
        PRECONDITION,
        'Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was: ',
    ),
    (
        "Classify",
        _classification("estimator", "flat", ONE),
        INVALID,
        "Expected Tensor shape: [batch_size num_classes] but got [1]",
    ),
    ("Classify", _classification("estimator", "fewer", ONE), INVALID, "Expected scores output batch size of 1. Got: 0"),
    (
        "Classify",
        _classification("estimator", "uneven", ONE),
        INVALID,
        "Tensors class and score should match in dim_size(1). Got 2 vs. 1",
    ),
    ("Classify", _classification("estimator", "", {"x": [1.0]}), INVALID, "Key: x"),
    ("Regress", _regression("estimator", "", ONE), INVALID, "Expected one output Tensor."),
    (
        "Regress",
        _regression("estimator", "scores", ONE),
        PRECONDITION,
        "No regression outputs found in SignatureDef: ",
    ),
    (
        "Regress",
        _regression("estimator", "wide", ONE),
        INVALID,
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]",
    ),
    ("MultiInference", _tasks(), INVALID, "ModelSpec has no name specified."),
    (
        "MultiInference",
        _tasks(("estimator", "", CLASSIFY), ("", "", CLASSIFY)),
        INVALID,
        "Found ModelSpec with an empty model name.",
    ),
    (
        "MultiInference",
        _tasks(("estimator", "", CLASSIFY), ("scorer", "", CLASSIFY)),
        INVALID,
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    ),
    (
        "MultiInference",
        _tasks(("estimator", "", CLASSIFY), ("estimator", "serving_default", CLASSIFY)),
        INVALID,
        "Duplicate evaluation of signature: serving_default",
    ),
    (
        "MultiInference",
        _tasks(("estimator", "s", CLASSIFY)),
        INVALID,
        "Requested signature not found in model graph: s",
    ),
    (
        "MultiInference",
        _tasks(("estimator", "", "tensorflow/serving/predict")),
        UNIMPLEMENTED,
        "Unsupported signature method_name: tensorflow/serving/predict",
    ),
    (
        "MultiInference",
        _tasks(("estimator", "", CLASSIFY), ("estimator", "elsewhere", REGRESS)),
        INVALID,
        "Input tensor must be the same for all Signatures.",
    ),
]


@pytest.mark.parametrize(("method", "request_", "code", "text"), REFUSED)
def test_refusals(stub: Any, method: str, request_: Any, code: grpc.StatusCode, text: str) -> None:
    """What cannot be inferred ends in TF Serving's code and text."""
    got_code, got_text = failure(getattr(stub, method), request_)
    assert got_code is code, got_text
    assert text in got_text


def test_no_strings_where_numbers_are_declared(server: Server) -> None:
    """On any engine, a signature without a string input is refused before it runs."""
    code, text = failure(server.prediction.Regress, _regression("half_plus", "", ONE))
    assert (code, "No regression inputs found in SignatureDef: " in text) == (PRECONDITION, True)


def test_the_method_name_counts_where_it_is_asked_for(models: Path) -> None:
    """With check_method a signature of the same method is taken, and one of another is refused."""
    signatures = saved_model.read(models / "estimator" / "1", frozenset({"serve"})).signatures

    def run(call: Call) -> Arrays:
        return {name: np.full((1, 1), 0.125, np.float32) for name in call.outputs}

    asked = _regression("estimator", "regress", ONE)
    assert inference.regress(signatures, asked, run, check_method=True).regressions[0].value == 0.125
    want = f"Expected classification signature method_name to be {CLASSIFY}. Was: {REGRESS}"
    with pytest.raises(StatusError, match=want):
        inference.classify(signatures, _classification("estimator", "regress", ONE), run, check_method=True)


def test_a_flag_asks_for_the_method_name(start: Start, models: Path) -> None:
    """--enable_signature_method_name_check looks at it before anything else of the signature."""
    base = f"--model_base_path={models / 'half_plus'}"
    server = start("--model_name=half_plus", base, "--enable_signature_method_name_check")
    code, text = failure(server.prediction.Classify, _classification("half_plus", "", ONE))
    want = f"Expected classification signature method_name to be {CLASSIFY}. Was: tensorflow/serving/predict"
    assert (code, text) == (INVALID, want)


# REST

ROWS = '{"examples": [{"x": [0.25, 0.75]}, {"x": [1.0, -2.0], "word": "cat", "c": 3}]}'


@pytest.mark.parametrize(
    ("method", "body", "want"),
    [
        (
            "classify",
            ROWS,
            '{\n    "results": [[["none", 0.25], ["other", 0.75]], [["cat", 1.0], ["other", -2.0]]\n    ]\n}',
        ),
        (
            "classify",
            '{"signature_name": "scores", "examples": [{"x": [0.25, 0.75], "word": {"b64": "Y2F0"}}]}',
            '{\n    "results": [[["", 0.25], ["", 0.75]]\n    ]\n}',
        ),
        ("regress", ROWS[:-1] + ', "signature_name": "regress"}', '{\n    "results": [0.125, 3.5]\n}'),
        (
            "regress",
            '{"context": {"c": 10}, "signature_name": "regress", "examples": [{"x": [2.0, 0.0]}, {"x": [1.0, 1.0]}]}',
            '{\n    "results": [11.0, 10.5]\n}',
        ),
        (
            "regress",
            '{"signature_name": "regress", "examples": [{"x": [2.0, 0.0], "c": true}]}',
            '{\n    "results": [2.0]\n}',
        ),
    ],
)
def test_json(reference: Server, method: str, body: str, want: str) -> None:
    """The answer is TF Serving's to the last space, and its key is results."""
    status, text, headers = reference.http("POST", f"/v1/models/estimator:{method}", body)
    assert (status, text) == (200, want)
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{}", "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        ('{"examples": {}}', "Expecting 'examples' value to be an list/array"),
        ('{"examples": []}', "'examples' value is an empty array"),
        ('{"examples": [1]}', "Example must be JSON object but got JSON Number"),
        ('{"examples": [{}], "context": []}', "Example must be JSON object but got JSON Array"),
        ('{"examples": [{"x": null}]}', "Feature: x has element with unexpected JSON type: Null"),
        ('{"examples": [{"x": [[1]]}]}', "Feature: x has element with unexpected JSON type: Array"),
        ('{"examples": [{"x": {"b": 1}}]}', "Feature: x has element with unexpected JSON type: Object"),
        ('{"examples": [{"x": [1.5, 1]}]}', "Unexpected element type in feature: x expecting type: float"),
        ('{"examples": [{"x": ["a", true]}]}', "Unexpected element type in feature: x expecting type: bytes"),
        ('{"examples": [{"x": [1, "a"]}]}', "Unexpected element type in feature: x expecting type: int64"),
        ('{"examples": [{"x": 9223372036854775808}]}', "Feature: x has uint64 element. Only int64 is supported."),
        ('{"examples": [{"x": 1e39}]}', "Cannot convert JSON value: 1e+39 to float without loss of precision."),
        ('{"examples": [{"x": {"b64": "*"}}]}', "Unable to base64 decode"),
        ('{"signature_name": 1, "examples": [{}]}', "'signature_name' key must be a string value."),
        ('{"signature_name": "s", "examples": [{}]}', "No signature was found with the name: s"),
    ],
)
def test_json_refusals(reference: Server, body: str, text: str) -> None:
    """A malformed request is a 400 in TF Serving's words."""
    status, answer, _ = reference.http("POST", "/v1/models/estimator:classify", body)
    assert status == 400, answer
    assert text in " ".join(json.loads(answer)["error"].split("\n"))


def test_messages_over_rest(reference: Server) -> None:
    """The same messages go through the REST door as application/x-protobuf."""
    request = _classification("estimator", "", ONE).SerializeToString()
    headers = {"Content-Type": "application/x-protobuf"}
    status, answer, _ = reference.raw("POST", "/v1/models/estimator:classify", request, headers)
    assert status == 200
    assert _labels(classification_pb2.ClassificationResponse.FromString(answer)) == [[("none", 0.25), ("other", 0.75)]]
    request = _regression("estimator", "regress", TWO).SerializeToString()
    status, answer, _ = reference.raw("POST", "/v1/models/estimator/versions/1:regress", request, headers)
    assert regression_pb2.RegressionResponse.FromString(answer).result.regressions[0].value == 3.5
