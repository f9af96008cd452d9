"""The doors of TF Serving, and requests that were recorded for them."""

import contextlib
import json
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cortex.errors import UserError
from cortex.loadtest import ClosedLoop, Failed, Payload, pages, run
from cortex.loadtest.options import Options, door, payloads
from cortex.loadtest.recorded import recorded
from cortex.loadtest.tfserving import GRPC
from cortex.protos import get_model_metadata_pb2, predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc
from cortex.tensors import to_array, to_proto
from cortex.tfrecord import encode

MODEL = "small"


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """A model that answers with the mean of each picture."""

    def __init__(self) -> None:
        self.requests: list[predict_pb2.PredictRequest] = []
        self.metadata: list[Any] = []

    def Predict(self, request: predict_pb2.PredictRequest, context: Any) -> predict_pb2.PredictResponse:  # noqa: N802
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if request.model_spec.name != MODEL:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return answer(to_array(request.inputs["input"]))

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        info = signatures.signature_def["serving_default"].inputs["input"]
        info.dtype = to_proto(np.zeros(0, np.uint8)).dtype
        for size in (-1, 8, 6, 3):
            info.tensor_shape.dim.add(size=size)
        response.metadata["signature_def"].Pack(signatures)
        return response


def answer(pixels: Any) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse()
    response.outputs["mean"].CopyFrom(to_proto(pixels.reshape(len(pixels), -1).mean(axis=1).astype(np.float32)))
    return response


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def grpc_endpoint(service: Service) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


def pixels(rows: int = 2) -> Any:
    return np.arange(rows * 8 * 6 * 3, dtype=np.uint8).reshape(rows, 8, 6, 3)


def log(with_answer: bool = True) -> prediction_log_pb2.PredictionLog:
    found = prediction_log_pb2.PredictionLog()
    found.predict_log.request.model_spec.name = MODEL
    found.predict_log.request.inputs["input"].CopyFrom(to_proto(pixels()))
    if with_answer:
        found.predict_log.response.CopyFrom(answer(pixels()))
    return found


def write(path: Path, *messages: Any) -> Path:
    path.write_bytes(b"".join(encode(message.SerializeToString()) for message in messages))
    return path


def test_pictures_over_grpc(grpc_endpoint: str, service: Service, picture_file: Path) -> None:
    """A picture becomes the tensor that the model's signature asks for, and headers go as metadata."""
    options = Options(str(picture_file), grpc_endpoint, model=MODEL, batch_size=3, headers=("X-Who: me",))
    result = run(ClosedLoop(samples=2), door(options), payloads(options, door(options)))
    assert (result.requests, result.inferences, result.errors) == (2, 6, {})
    sent = to_array(service.requests[0].inputs["input"])
    assert (sent.shape, sent.dtype) == ((3, 8, 6, 3), np.uint8)
    assert abs(sent.reshape(-1, 3).mean(axis=0) - (200, 100, 50)).max() < 5
    assert service.metadata[0]["x-who"] == "me"


@pytest.mark.parametrize("kind", ["endpoint", "grpc_endpoint"])
def test_a_proxy_is_not_measured(
    kind: str, request: pytest.FixtureRequest, picture_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the environment names is passed by, over HTTP as over gRPC."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    options = Options(str(picture_file), request.getfixturevalue(kind), model=MODEL)
    result = run(ClosedLoop(samples=2), door(options), payloads(options, door(options)))
    assert (result.requests, result.errors) == (2, {})


def test_half_a_picture(grpc_endpoint: str, picture_file: Path) -> None:
    """What has to be decoded before it is sent, and cannot be, is named."""
    picture_file.write_bytes(picture_file.read_bytes()[:-10])
    options = Options(str(picture_file), grpc_endpoint, model=MODEL)
    with pytest.raises(UserError, match=r"picture\.jpg: not a whole picture"):
        payloads(options, door(options))


def test_an_unknown_signature(grpc_endpoint: str, picture_file: Path) -> None:
    """The message names the signatures that there are, and no other."""
    options = Options(str(picture_file), grpc_endpoint, model=MODEL, signature="none")
    with pytest.raises(UserError, match=r"signature none: 0 inputs, .*\(signatures: serving_default\)"):
        payloads(options, door(options))


@pytest.mark.parametrize(
    "signatures", [b"[]", b'{"serving_default": {"inputs": {"x": {}}}}', b'{"serving_default": {"inputs": ["x"]}}']
)
def test_metadata_of_another_kind(monkeypatch: pytest.MonkeyPatch, picture_file: Path, signatures: bytes) -> None:
    """JSON that is no metadata of TF Serving is told as such."""
    told = b'{"metadata": {"signature_def": {"signature_def": ' + signatures + b"}}}"
    monkeypatch.setattr(pages, "read", lambda *_: told)
    options = Options(str(picture_file), "http://127.0.0.1:1/v1/models/m")
    with pytest.raises(UserError, match=r"/v1/models/m/metadata: does not tell what the model takes"):
        payloads(options, door(options))


def test_recorded_requests(grpc_endpoint: str, service: Service, tmp_path: Path) -> None:
    """A PredictionLog is sent as it was recorded, and its own answers are expected."""
    path = write(tmp_path / "tf_serving_warmup_requests", log(), log())
    options = Options(str(path), grpc_endpoint, expect="recorded")
    result = run(ClosedLoop(samples=4), door(options), payloads(options, door(options)))
    assert (result.requests, result.inferences, result.errors) == (4, 8, {})
    assert service.requests[0] == log().predict_log.request


def test_a_wrong_model(grpc_endpoint: str, tmp_path: Path) -> None:
    """Recorded answers that the server does not give are wrong; codes of gRPC are counted by name."""
    other = log()
    other.predict_log.response.outputs["mean"].CopyFrom(to_proto(np.float32([1, 2])))
    path = write(tmp_path / "a.tfrecord", other)
    options = Options(str(path), grpc_endpoint, expect="recorded")
    assert run(ClosedLoop(samples=2), door(options), payloads(options, door(options))).errors == {"wrong answer": 2}
    [payload] = recorded(path, "another", rest=False, check=False)
    assert failure(GRPC(grpc_endpoint), payload).kind == "gRPC NOT_FOUND"


def failure(to: GRPC, payload: Payload) -> Failed:
    with contextlib.closing(to.connect()) as connection, pytest.raises(Failed) as failed:
        connection.call(payload)
    return failed.value


def test_nobody_listens(closed_endpoint: str) -> None:
    """A closed port is told apart, as with HTTP."""
    failed = failure(GRPC(closed_endpoint.replace("http", "grpc")), Payload(b"", ""))
    assert (failed.kind, failed.unreachable) == ("gRPC UNAVAILABLE", True)


def test_recorded_requests_over_rest(endpoint: str, seen: Any, tmp_path: Path) -> None:
    """For REST a recorded request becomes JSON in column format; the answer is compared in it."""
    path = write(tmp_path / "a.tfrecord", log())
    options = Options(str(path), endpoint, protocol="tfserving-rest", model=MODEL, expect="recorded")
    [payload] = payloads(options, door(options))
    assert json.loads(payload.body) == {"signature_name": "serving_default", "inputs": pixels().tolist()}
    assert payload.inferences == 2
    means = answer(pixels()).outputs["mean"].float_val or to_array(answer(pixels()).outputs["mean"]).tolist()
    assert payload.expected
    assert payload.expected.accepts(json.dumps({"outputs": list(means)}).encode())
    assert not payload.expected.accepts(b'{"outputs": [1, 2]}')
    assert not payload.expected.accepts(b"[")
    run(ClosedLoop(samples=1), door(options), payload)
    assert seen.requests[0][0] == f"/v1/models/{MODEL}:predict"


@pytest.mark.parametrize(
    ("want", "got", "right"),
    [
        (np.float32([[0.9, 1e-4]]), np.float32([[0.901, 9e-4]]), True),  # as bf16 differs from fp32
        (np.float32([[0.9, 1e-4]]), np.float32([[0.9, 2e-3]]), False),
        (np.float32([0.9, np.nan]), np.float32([0.9, np.nan]), True),
        (np.float16([0.5]), np.float16([0.5]), True),
        (np.float32([1, 2]), np.float32([1]), False),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), True),
        (np.int64([1000]), np.int64([1001]), False),
        (np.int64([1000]), np.int64([1000]), True),
        (np.array([True]), np.array([True]), True),
        (np.array([b"tench"], object), np.array([b"tench"], object), True),
        (np.array([b"tench"], object), np.array([b"eel"], object), False),
    ],
)
@pytest.mark.parametrize("others", [0, 1])
def test_both_wires_judge_alike(tmp_path: Path, want: Any, got: Any, right: bool, others: int) -> None:
    """An answer is as right or wrong over REST as it is over gRPC, alone and beside another output."""
    found = log()
    found.predict_log.response.Clear()
    answered = predict_pb2.PredictResponse()
    for response, value in ((found.predict_log.response, want), (answered, got)):
        response.outputs["mean"].CopyFrom(to_proto(value))
        for number in range(others):
            response.outputs[f"other{number}"].CopyFrom(to_proto(np.float32([1])))
    path = write(tmp_path / "a.tfrecord", found)
    plain = {alias: to_array(proto).tolist() for alias, proto in answered.outputs.items()}
    document = {"outputs": plain if others else plain["mean"]}
    told = json.dumps(document, default=bytes.decode).encode()
    for rest, body in ((False, answered.SerializeToString()), (True, told)):
        [payload] = recorded(path, MODEL, rest=rest, check=True)
        assert payload.expected
        assert payload.expected.accepts(body) == right


@pytest.mark.parametrize(
    ("alias", "told"),
    [
        ("word", b'["a\\u0000", "\xff"]'),
        ("word", b'{"word": ["a\\u0000", "\xff"], "other": 1}'),  # what the recorded request filtered out
        ("word_bytes", b'[{"b64": "YQA="}, {"b64": "/w=="}]'),
    ],
)
def test_strings_over_rest(tmp_path: Path, alias: str, told: bytes) -> None:
    """They are text as they are, whatever it is, and base64 only where the output's name says so."""
    found = log()
    found.predict_log.response.Clear()
    found.predict_log.response.outputs[alias].CopyFrom(to_proto(np.array([b"a\0", b"\xff"], object)))
    [payload] = recorded(write(tmp_path / "a.tfrecord", found), MODEL, rest=True, check=True)
    assert payload.expected
    assert payload.expected.accepts(b'{"outputs": ' + told + b"}")
    assert not payload.expected.accepts(b'{"outputs": ' + told.replace(b"a", b"b").replace(b"YQ", b"YR") + b"}")


def test_tensors_that_json_does_not_hold(tmp_path: Path) -> None:
    """Complex numbers go by gRPC only."""
    found = log()
    found.predict_log.request.inputs["z"].CopyFrom(to_proto(np.complex64([1j])))
    path = write(tmp_path / "a.tfrecord", found)
    assert recorded(path, MODEL, rest=False, check=True)
    with pytest.raises(UserError, match=r"record 1: .*complex.*; send it by gRPC"):
        recorded(path, MODEL, rest=True, check=True)


@pytest.mark.parametrize(
    "body", [b"[", b"[]", b"{}", b'{"outputs": null}', b'{"outputs": [[1], 2]}', b'{"outputs": "a"}']
)
def test_no_answer_of_rest(tmp_path: Path, body: bytes) -> None:
    """What is no JSON, or JSON without the outputs, is wrong."""
    [payload] = recorded(write(tmp_path / "a.tfrecord", log()), MODEL, rest=True, check=True)
    assert payload.expected
    assert not payload.expected.accepts(body)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no records in it"),
        (b"hello, this is a text", "damaged, or not a TFRecord file"),
        (b"\x01", "damaged, or not a TFRecord file"),
        (prediction_log_pb2.PredictionLog(), "record 1: holds no Predict request"),
        (log(with_answer=False), "record 1: no answer was recorded"),
        (None, "No such file"),
    ],
)
def test_bad_records(tmp_path: Path, content: Any, message: str) -> None:
    """A file that holds no recorded requests is told with the record or the byte."""
    path = tmp_path / "a.tfrecord"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write(path, content)
    with pytest.raises(UserError) as error:
        recorded(path, None, rest=False, check=True)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "grpc://localhost"}, "not an endpoint of gRPC; it looks like grpc://localhost:8500"),
        ({"endpoint": "grpc://127.0.0.1:1"}, "name the model with --model"),
        ({"endpoint": "grpc://127.0.0.1:1", "model": "m"}, "does not tell what the model takes"),
        ({"endpoint": "http://127.0.0.1:1", "protocol": "tfserving-rest"}, "name the model with --model"),
        ({"endpoint": "http://[::1"}, "http://[::1: not an endpoint; it looks like http://localhost:8888"),
        ({"endpoint": "http://[::1", "protocol": "tfserving-rest"}, "http://[::1: not an endpoint; it looks like"),
        ({"endpoint": "http://127.0.0.1:1/v1/models/m:predict"}, "/v1/models/m/metadata: does not tell"),
        ({"endpoint": "http://127.0.0.1:1", "expect": "recorded"}, "--expect recorded needs recorded requests"),
        ({"endpoint": "http://127.0.0.1:1", "headers": ("none",)}, "none: not a header; it looks like 'Name: value'"),
        ({"endpoint": "http://127.0.0.1:1", "headers": ("a: b\nc: d",)}, "not a header that can be sent"),
        ({"endpoint": "grpc://127.0.0.1:1", "headers": ("a@b: c",)}, "--header a@b: gRPC takes names of letters"),
        ({"endpoint": "grpc://127.0.0.1:1", "headers": ("x-key-bin: c",)}, "--header x-key-bin: gRPC takes names"),
        ({"endpoint": "grpc://127.0.0.1:1", "headers": ("x-key: ü",)}, "and values of printable ASCII"),
        ({"endpoint": "http://127.0.0.1:1", "payload_format": "raw", "batch_size": 2}, "a raw body holds one picture"),
        ({"endpoint": "http://127.0.0.1:1", "payload_format": "ready", "batch_size": 2}, "leave --batch-size at 1"),
        ({"endpoint": "http://127.0.0.1:1", "payload_format": "recorded"}, "recorded requests go to a model server"),
        ({"endpoint": "grpc://127.0.0.1:1", "payload_format": "ready"}, "a JSON file cannot be sent by gRPC"),
    ],
)
def test_options_that_do_not_fit(picture_file: Path, options: dict[str, Any], message: str) -> None:
    """What cannot be sent is one clear sentence before anything is."""
    asked = Options(str(picture_file), **options)
    with pytest.raises(UserError) as error:
        payloads(asked, door(asked))
    assert message in str(error.value)
