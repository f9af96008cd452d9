import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cortex.model_server import json_writer
from cortex.model_server.status import StatusError
from cortex.protos import classification_pb2, regression_pb2

NUMBERS = [
    (np.float32, 0.2, "0.2"),
    (np.float32, 9000000, "9e+06"),
    (np.float32, 999999, "999999.0"),
    (np.float32, 0.00003, "3e-05"),
    (np.float32, 555557.5, "555557.5"),
    (np.float32, 3, "3.0"),
    (np.float32, 1 / 3, "0.333333343"),
    (np.float64, 0.1, "0.1"),
    (np.float64, 1 / 3, "0.33333333333333331"),
    (np.float64, -0.0, "-0.0"),
    (np.float32, np.nan, "NaN"),
    (np.float32, np.inf, "Infinity"),
    (np.float64, -np.inf, "-Infinity"),
    (np.int64, -(2**63), "-9223372036854775808"),
    (np.uint8, 255, "255"),
    (np.bool_, True, "true"),
]


@pytest.mark.parametrize(("kind", "value", "text"), NUMBERS)
def test_numbers_are_printed_as_tf_serving_prints_them(kind: Any, value: Any, text: str) -> None:
    """Six digits where they suffice, else as many as read back the same; whole numbers end in .0; ints stay ints."""
    assert json_writer.predictions({"y": np.array([value], kind)}) == f'{{\n    "predictions": [{text}\n    ]\n}}'


def test_row_form_of_one_output() -> None:
    """One output: bare values, each row on the one line."""
    array = np.array([[1, 2], [3, 4]], np.int32)
    assert json_writer.predictions({"y": array}) == '{\n    "predictions": [[1, 2], [3, 4]\n    ]\n}'


def test_row_form_of_several_outputs() -> None:
    """Several outputs: one object per row."""
    outputs = {"b": np.array([[1.0], [2.0]], np.float32), "a": np.array([b"x", b'"'], np.object_)}
    assert json_writer.predictions(outputs) == (
        '{\n    "predictions": [\n'
        '        {\n            "a": "x",\n            "b": [1.0]\n        },\n'
        '        {\n            "a": "\\"",\n            "b": [2.0]\n        }\n    ]\n}'
    )


def test_columnar_form_of_one_output() -> None:
    """One output stands without its name, one value a line."""
    array = np.array([[1, 2]], np.int64)
    assert json_writer.outputs({"y": array}) == (
        '{\n    "outputs": [\n        [\n            1,\n            2\n        ]\n    ]\n}'
    )


def test_columnar_form_of_several_outputs() -> None:
    """Several outputs stand by name, and need no common size."""
    text = json_writer.outputs({"b": np.array(2.5, np.float32), "a": np.array([b"x"], np.object_)})
    assert text == '{\n    "outputs": {\n        "a": [\n            "x"\n        ],\n        "b": 2.5\n    }\n}'


def test_bytes_outputs_are_base64() -> None:
    """Strings of an output whose name ends in _bytes are base64 objects; others are text."""
    array = np.array([b"hello", b"\xff"], np.object_)
    assert json.loads(json_writer.predictions({"y_bytes": array})) == {
        "predictions": [{"b64": "aGVsbG8="}, {"b64": "/w=="}]
    }
    assert json.loads(json_writer.predictions({"y": array}))["predictions"][0] == "hello"


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"y": np.array(1.0)}, "Tensor name: y has no shape information "),
        ({"y": np.empty((0, 2), np.float32)}, "Tensor name: y has invalid batch size: 0"),
        ({"a": np.ones(2), "b": np.ones(3)}, "Tensor name: b has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.ones(2, np.float16)}, "Failed to write JSON value for tensor type: half"),
        ({"y": np.ones(2, ml_dtypes.bfloat16)}, "Failed to write JSON value for tensor type: bfloat16"),
        ({"y": np.ones(2, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_outputs_that_rows_cannot_hold(outputs: dict[str, Any], text: str) -> None:
    """Row form needs a common first dimension, and a type that JSON has."""
    with pytest.raises(StatusError) as caught:
        json_writer.predictions(outputs)
    assert caught.value.message == text


def test_no_results_are_told_by_their_kind() -> None:
    """TF Serving has no JSON for a classification or a regression of nothing."""
    with pytest.raises(StatusError, match="Cannot convert empty ClassificationResults to JSON"):
        json_writer.classes(classification_pb2.ClassificationResult())
    with pytest.raises(StatusError, match="Cannot convert empty RegressionResults to JSON"):
        json_writer.values(regression_pb2.RegressionResult())


def test_errors() -> None:
    """An error body is an object of one text, with four spaces of indent."""
    assert json_writer.error('bad "x"') == '{\n    "error": "bad \\"x\\""\n}'
