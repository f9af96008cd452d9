"""TF Serving's REST answers, byte for byte: what `rapidjson::PrettyWriter` makes of every kind of answer."""

import gzip
from typing import Any

import numpy as np
import pytest

from cortex import tensors
from cortex.protos import predict_pb2
from tests.model_server.harness import Server, Start, config_file, predict_request

GOLDEN = [
    ("half_plus", '{"instances": [[1.0], [2.0]]}', '{\n    "predictions": [[3.5], [4.0]\n    ]\n}'),
    ("half_plus", '{"instances": [{"x": [1e30]}]}', '{\n    "predictions": [[5e+29]\n    ]\n}'),
    ("half_plus", '{"instances": [[0.6666667]]}', '{\n    "predictions": [[3.33333325]\n    ]\n}'),
    (
        "half_plus",
        '{"instances": [[NaN], [Infinity], [-Infinity]]}',
        '{\n    "predictions": [[NaN], [Infinity], [-Infinity]\n    ]\n}',
    ),
    (
        "half_plus",
        '{"inputs": [[0.4], [0]]}',
        '{\n    "outputs": [\n        [\n            3.2\n        ],\n        [\n            3.0\n        ]\n    ]\n}',
    ),
    (
        "two_inputs",
        '{"instances": [{"alpha": [0, 0, 0.5], "zeta": [0, 0, 0, 1]}, {"zeta": [1, 0, 0, 0], "alpha": [0, 0, 0]}]}',
        "{\n"
        '    "predictions": [\n'
        "        {\n"
        '            "class": 2,\n'
        '            "difference": [9.0, 10.0, 10.5],\n'
        '            "sum": [9.0, 10.0, 11.5]\n'
        "        },\n"
        "        {\n"
        '            "class": 2,\n'
        '            "difference": [0.0, 1.0, 2.0],\n'
        '            "sum": [0.0, 1.0, 2.0]\n'
        "        }\n"
        "    ]\n"
        "}",
    ),
    (
        "two_inputs",
        '{"inputs": {"alpha": [[0, 0, 0]], "zeta": [[0, 0, 0, 1]]}}',
        "{\n"
        '    "outputs": {\n'
        '        "class": [\n'
        "            2\n"
        "        ],\n"
        '        "difference": [\n'
        "            [\n"
        "                9.0,\n"
        "                10.0,\n"
        "                11.0\n"
        "            ]\n"
        "        ],\n"
        '        "sum": [\n'
        "            [\n"
        "                9.0,\n"
        "                10.0,\n"
        "                11.0\n"
        "            ]\n"
        "        ]\n"
        "    }\n"
        "}",
    ),
    (
        "mixed",
        '{"instances": [{"word": {"b64": "CRsi"}, "number": 1}]}',
        "{\n"
        '    "predictions": [\n'
        "        {\n"
        '            "half": 0.5,\n'
        '            "id": -1,\n'
        '            "next": 2,\n'
        '            "shout_bytes": {\n'
        '                "b64": "CRsi"\n'
        "            },\n"
        '            "text": "\\t\\u001B\\"!"\n'
        "        }\n"
        "    ]\n"
        "}",
    ),
    (
        "mixed",
        '{"inputs": {"word": ["dog"], "number": [-1]}}',
        "{\n"
        '    "outputs": {\n'
        '        "half": [\n'
        "            -0.5\n"
        "        ],\n"
        '        "id": [\n'
        "            1\n"
        "        ],\n"
        '        "next": [\n'
        "            0\n"
        "        ],\n"
        '        "shout_bytes": [\n'
        "            {\n"
        '                "b64": "RE9H"\n'
        "            }\n"
        "        ],\n"
        '        "text": [\n'
        '            "dog!"\n'
        "        ]\n"
        "    }\n"
        "}",
    ),
]


@pytest.mark.parametrize(("model", "body", "want"), GOLDEN)
def test_predict(server: Server, model: str, body: str, want: str) -> None:
    """Indents, spaces, digits and escapes of a predict answer."""
    if model == "mixed" and server.engine != "tensorflow":
        pytest.skip("only the tensorflow engine runs int64 and string models")
    status, text, headers = server.http("POST", f"/v1/models/{model}:predict", body)
    assert (status, text) == (200, want)
    assert headers["content-type"] == "application/json"
    assert "access-control-allow-origin" not in headers


def test_errors(server: Server) -> None:
    """An error is one pretty object; quotes, controls and other languages stand as RapidJSON writes them."""
    body = '{"signature_name": "\\u0001 \\"é\\"\\n/", "instances": [1]}'
    status, text, headers = server.http("POST", "/v1/models/half_plus:predict", body.encode())
    name = '\\"\\u0001 \\"é\\"\\n/\\"'
    assert text == f'{{\n    "error": "Serving signature name: {name} not found in signature def"\n}}'
    assert (status, headers["content-type"]) == (400, "application/json")


def test_bytes_of_a_string_pass_through(reference: Server) -> None:
    """What is no UTF-8 goes in and comes out as it is; of a name that stands twice in one row the first counts."""
    body = b'{"instances": [{"word": "\xff\xc3\xa9", "number": 1, "number": 5}]}'
    status, answer, _ = reference.raw("POST", "/v1/models/mixed:predict", body)
    assert status == 200
    assert b'"text": "\xff\xc3\xa9!"' in answer
    assert b'"next": 2,' in answer


def test_numbers_too_large_for_a_double(server: Server) -> None:
    """A number that RapidJSON cannot hold is a parse error, with the place where it begins."""
    status, text, _ = server.http("POST", "/v1/models/half_plus:predict", '{"instances": [[1.0], [1e400]]}')
    want = "JSON Parse error: Number too big to be stored in double. at offset: 23"
    assert (status, text) == (400, f'{{\n    "error": "{want}"\n}}')


def test_not_found_is_a_page(server: Server) -> None:
    """Outside /v1 the answer is the HTTP library's page, whatever the method."""
    page = "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
    for method, path in (("GET", "/"), ("POST", "/v1"), ("DELETE", "/v2/models/half_plus:predict")):
        status, text, headers = server.http(method, path, "x")
        assert (status, text, headers["content-type"]) == (404, page, "text/html")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/half_plus:predict"),
        ("POST", "/v1/models/half_plus"),
        ("POST", "/v1/models/half_plus:explode"),
        ("POST", "/v1/models/half_plus/metadata"),
        ("PUT", "/v1/models/half_plus:predict"),
        ("DELETE", "/v1/models/half_plus"),
        ("POST", "/v1/models/half_plus/versions/x:predict"),
        ("POST", "/v1/models/half_plus/versions/1/labels/l:predict"),
        ("POST", "/v1/models/half_plus/labels/l/versions/1:predict"),
        ("POST", "/v1/models/half_plus:predict/"),
        ("POST", "/v1/models/:predict"),
        ("GET", "/v1/models/half_plus/"),
        ("GET", "/v1/"),
        ("GET", "/V1/Nothing"),
    ],
)
def test_malformed_paths(server: Server, method: str, path: str) -> None:
    """What is below /v1 and matches no rule is a 400 that repeats the method and the path."""
    want = f'{{\n    "error": "Malformed request: {method} {path}"\n}}'
    assert server.http(method, path)[:2] == (400, want)


def test_labels(start: Start, models: Any, tmp_path: Any) -> None:
    """A label stands for its version, percent-decoded; CORS headers come with every answer when asked for."""
    config = config_file(tmp_path / "models.config", {"m": models / "half_plus"})
    policy = 'model_version_policy { all {} } version_labels { key: "old one" value: 1 }'
    config.write_text(config.read_text().replace('model_platform: "tensorflow"', policy))
    server = start(f"--model_config_file={config}", "--precision=fp32", "--rest_api_enable_cors_support")
    answers = [("", 3.5), ("/labels/old%20one", 2.5), ("/versions/1", 2.5), ("/versions/2", 3.5)]
    for where, value in answers:
        status, text, headers = server.http("POST", f"/v1/models/m{where}:predict", '{"inputs": [[1]]}')
        assert (status, str(value) in text) == (200, True)
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-allow-methods"] == "POST, GET"
        assert headers["access-control-allow-headers"] == "Content-Type"
    assert server.http("GET", "/v1/x")[2]["access-control-allow-origin"] == "*"
    versions = server.json("GET", "/v1/models/m/labels/anything")["model_version_status"]
    assert [entry["version"] for entry in versions] == ["2", "1"]
    assert server.json("GET", "/v1/models/m/labels/old%20one/metadata")["model_spec"]["version"] == "1"


# The body as a message (ours)

PROTOBUF = {"Content-Type": "application/x-protobuf"}
PATH = "/v1/models/half_plus:predict"
X = {"x": np.array([[1.0], [2.0]], np.float32)}


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_message_in_a_message_out(server: Server, gzipped: bool) -> None:
    """A PredictRequest is answered by a PredictResponse with raw content; the path names the model."""
    body = predict_request("ignored", X, version=9).SerializeToString()
    headers = PROTOBUF | ({"Content-Encoding": "gzip"} if gzipped else {})
    status, answer, answered = server.raw("POST", PATH, gzip.compress(body) if gzipped else body, headers)
    assert (status, answered["content-type"]) == (200, "application/x-protobuf")
    response = predict_pb2.PredictResponse.FromString(answer)
    assert tensors.to_array(response.outputs["y"]).tolist() == [[3.5], [4.0]]
    assert response.outputs["y"].tensor_content
    assert (response.model_spec.name, response.model_spec.version.value) == ("half_plus", 2)


def test_errors_of_messages_are_json(server: Server) -> None:
    """A failure is told as to every other request."""
    status, text, headers = server.http("POST", PATH, b"\xff" * 9, {"Content-Type": "application/x-protobuf; v=1"})
    assert (status, headers["content-type"]) == (400, "application/json")
    assert '"error": "The request body is not a tensorflow.serving.PredictRequest' in text
    status, text, _ = server.http("POST", PATH, predict_request("", {}).SerializeToString(), PROTOBUF)
    assert (status, "input size does not match signature" in text) == (400, True)


def test_a_gzip_body_that_is_cut(server: Server) -> None:
    """A gzip body that ends early is a 400."""
    body = gzip.compress(b'{"instances": [[1]]}')
    status, text, _ = server.http("POST", PATH, body[:-4], {"Content-Encoding": "gzip"})
    assert (status, "cut short" in text) == (400, True)
