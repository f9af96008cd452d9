"""TF Serving's REST API, golden, on every engine."""

import gzip
import json
from typing import Any

import pytest

from tests.model_server.harness import Server

STATUS = """{
 "model_version_status": [
  {
   "version": "2",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  }
 ]
}
"""


def _tensor(name: str, *sizes: str) -> dict[str, Any]:
    dims = [{"size": size, "name": ""} for size in sizes]
    return {"dtype": "DT_FLOAT", "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": name}


METADATA = {
    "model_spec": {"name": "half_plus", "signature_name": "", "version": "2"},
    "metadata": {
        "signature_def": {
            "signature_def": {
                "serving_default": {
                    "inputs": {"x": _tensor("x:0", "-1", "1")},
                    "outputs": {"y": _tensor("y:0", "-1", "1")},
                    "method_name": "tensorflow/serving/predict",
                    "defaults": {},
                }
            }
        }
    },
}

ANSWERS = [
    ("half_plus", '{"instances": [1.0, 2.0, 5.0]}', [[3.5], [4.0], [5.5]], "predictions"),
    ("half_plus", '{"inputs": {"x": [[1]]}}', [[3.5]], "outputs"),
    ("half_plus", '{"signature_name": "serving_default", "instances": [[1]]}', [[3.5]], "predictions"),
    ("two_inputs", '{"signature_name": "doubled", "instances": [[0, 0, 0, 1]]}', [[18, 20, 22]], "predictions"),
]


@pytest.mark.parametrize(("model", "body", "want", "key"), ANSWERS)
def test_predict(server: Server, model: str, body: str, want: Any, key: str) -> None:
    """Row and columnar requests are answered in kind."""
    got = server.json("POST", f"/v1/models/{model}:predict", body)
    if key == "predictions" and model == "half_plus":
        got = {key: [row if isinstance(row, list) else [row] for row in got[key]]}
    assert got == {key: want}


def test_strings_and_int64(reference: Server) -> None:
    """Strings are text, or base64 in outputs named *_bytes; int64 are integers."""
    body = '{"instances": [{"word": {"b64": "ZG9n"}, "number": 9007199254740993}]}'
    assert reference.json("POST", "/v1/models/mixed:predict", body) == {
        "predictions": [
            {"half": 4.50359963e15, "id": 1, "next": 2**53 + 2, "shout_bytes": {"b64": "RE9H"}, "text": "dog!"},
        ]
    }


def test_status(server: Server) -> None:
    """The status of a model, and of one version, is printed as protobuf's C++ prints it."""
    for path in ("/v1/models/half_plus", "/v1/models/half_plus/versions/2", "/V1/Models/half_plus"):
        assert server.http("GET", path)[:2] == (200, STATUS)


def test_metadata(server: Server) -> None:
    """The signatures, with every default field printed."""
    assert server.json("GET", "/v1/models/half_plus/metadata") == METADATA
    assert server.json("GET", "/v1/models/half_plus/versions/2/metadata") == METADATA


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/half_plus/versions/2:predict",
        "/v1/models/half%5Fplus:predict",
        "/V1/MODELS/half_plus:PREDICT",
        "/v1/models/half_plus:predict?key=value",
    ],
)
def test_paths(server: Server, path: str) -> None:
    """Versions are taken, names are percent-decoded, letters of the fixed parts have no case, a query is ignored."""
    assert server.json("POST", path, '{"instances": [[1]]}') == {"predictions": [[3.5]]}


ROW = '{"instances": [[1]]}'
REFUSED = [
    ("GET", "/v1/models", None, 400, "Missing model name in request."),
    ("GET", "/v1/models/nope", None, 404, "Could not find any versions of model nope"),
    ("GET", "/v1/models/half_plus/versions/7", None, 404, "Could not find version 7 of model half_plus"),
    ("GET", "/v1/models/nope/metadata", None, 404, "Servable not found for request: Latest(nope)"),
    ("POST", "/v1/models/nope:predict", ROW, 404, "Servable not found for request: Latest(nope)"),
    (
        "POST",
        "/v1/models/half_plus/versions/7:predict",
        ROW,
        404,
        "Servable not found for request: Specific(half_plus, 7)",
    ),
    (
        "POST",
        "/v1/models/half_plus/versions/00000000000000000000007:predict",
        ROW,
        404,
        "Servable not found for request: Specific(half_plus, 7)",
    ),
    ("POST", "/v1/models/half_plus/labels/l:predict", ROW, 400, "Unrecognized servable version label: l"),
    (
        "GET",
        "/v1/models/half_plus/versions/99999999999999999999",
        None,
        400,
        "Failed to convert version: 99999999999999999999 to numeric.",
    ),
    (
        "POST",
        "/v1/models/half_plus:predict",
        '{"signature_name": "s", "instances": [1]}',
        400,
        'Serving signature name: "s" not found in signature def',
    ),
    ("POST", "/v1/models/half_plus:predict", "", 400, "JSON Parse error: The document is empty"),
    ("POST", "/v1/models/half_plus:predict", "{}", 400, "Missing 'inputs' or 'instances' key"),
    (
        "POST",
        "/v1/models/half_plus:predict",
        '{"instances": [["a"]]}',
        400,
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
        'JSON Value: "a" Type: String is not of expected type: float',
    ),
    (
        "POST",
        "/v1/models/types:predict",
        '{"inputs": {"f": [1], "i": [1], "u": [1], "b": [true], "h": [1]}}',
        501,
        "Conversion of JSON Value: 1 to type: half",
    ),
    (
        "POST",
        "/v1/models/half_plus:classify",
        '{"examples": [{"x": 1}]}',
        400,
        "No classification inputs found in SignatureDef: ",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "text"), REFUSED)
def test_refusals(server: Server, method: str, path: str, body: str | None, status: int, text: str) -> None:
    """Every failure is TF Serving's HTTP code, and an object of one error text."""
    got, answer, headers = server.http(method, path, body)
    assert got == status, answer
    assert headers["content-type"] == "application/json"
    error = json.loads(answer)["error"]
    assert error.startswith(text)
    assert answer == json.dumps({"error": error}, indent=4)


def test_health(server: Server) -> None:
    """The process tells that it lives, and that it is ready."""
    assert server.http("GET", "/healthz")[:2] == (200, "ok\n")
    assert server.http("GET", "/readyz")[:2] == (200, "ready\n")


@pytest.mark.parametrize(("origin", "status"), [("https://example.org", 200), ("null", 400), ("", 400)])
def test_options(server: Server, origin: str, status: int) -> None:
    """A preflight is answered by its origin."""
    assert server.http("OPTIONS", "/v1/models/half_plus:predict", headers={"Origin": origin})[:2] == (status, "")


def test_gzip(server: Server) -> None:
    """A gzip body is inflated; one that is none is a 400."""
    headers = {"Content-Encoding": "gzip"}
    path = "/v1/models/half_plus:predict"
    assert server.http("POST", path, gzip.compress(ROW.encode()), headers)[0] == 200
    status, text, _ = server.http("POST", path, b"not gzip", headers)
    assert (status, "not gzip" in json.loads(text)["error"]) == (400, True)
    assert server.http("GET", "/v1/models/half_plus", headers=headers)[0] == 200
