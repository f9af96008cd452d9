"""Malformed requests over both doors: each gets a status, the server goes on, and its memory is bounded.

``CORTEX_FUZZ=10000`` sends so many; the default is a few hundred. The requests come from a fixed seed.
"""

import functools
import gzip
import json
import os
import random
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from cortex.protos import classification_pb2, input_pb2, predict_pb2, types_pb2
from tests.model_server.harness import Server, Start, predict_request

COUNT = int(os.environ.get("CORTEX_FUZZ", "400"))
GROWTH = 256 * 2**20
"""Bytes that the server may grow by once it has seen a quarter of the requests: a few large ones may be in flight."""

MODELS = ("half_plus", "two_inputs", "types")
INFERENCE = ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata")
# HandleReloadConfigRequest is not among them: some bytes are a wish to unload every model, and would be granted.
METHODS = [f"/tensorflow.serving.PredictionService/{name}" for name in INFERENCE] + [
    "/tensorflow.serving.ModelService/GetModelStatus",
    "/tensorflow.ProfilerService/Monitor",
    "/no.such.Service/Method",
]
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.OUT_OF_RANGE,
}
HTTP_REFUSED = {400, 404, 413, 501}


def _bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 10, 200, 5000)))


def _valid(rng: random.Random) -> predict_pb2.PredictRequest:
    model = rng.choice(MODELS)
    sent: dict[str, Any] = {
        "half_plus": {"x": np.ones((2, 1), np.float32)},
        "two_inputs": {"zeta": np.ones((1, 4), np.float32), "alpha": np.ones((1, 3), np.float32)},
        "types": {"f": np.ones(1, np.float32), "i": np.ones(1, np.int32), "u": np.ones(1, np.uint8)},
    }[model]
    return predict_request(model, sent)


def _spoiled(rng: random.Random) -> bytes:
    """A predict request with one thing wrong in one tensor."""
    request = _valid(rng)
    proto = request.inputs[rng.choice(sorted(request.inputs))]
    wrong: list[Callable[[], Any]] = [
        lambda: proto.tensor_shape.dim.add(size=-rng.randrange(1, 2**63)),
        lambda: proto.tensor_shape.dim.add(size=2**40),
        lambda: proto.tensor_shape.dim.extend([proto.tensor_shape.Dim(size=2**31)] * 40),
        lambda: setattr(proto, "dtype", rng.choice([0, 7, 20, 99, 10**6, types_pb2.DT_RESOURCE, types_pb2.DT_DOUBLE])),
        lambda: setattr(proto, "tensor_content", _bytes(rng) + b"x"),
        lambda: setattr(proto.tensor_shape, "unknown_rank", True),
        lambda: proto.ClearField("tensor_shape"),
        lambda: (proto.ClearField("tensor_content"), proto.float_val.extend([1.0] * 10_000)),
        lambda: (proto.ClearField("tensor_content"), proto.tensor_shape.dim.add(size=2**25), proto.int_val.append(1)),
        lambda: (proto.ClearField("tensor_content"), setattr(proto.tensor_shape.dim[0], "size", 2**28)),
        lambda: request.inputs[rng.randbytes(4).hex()].CopyFrom(proto),
        lambda: request.output_filter.extend([rng.randbytes(3).hex()] * rng.randrange(1, 5)),
        lambda: setattr(request.model_spec, "signature_name", "s" * rng.randrange(1, 20_000)),
        lambda: setattr(request.model_spec, "version_label", "l"),
        lambda: setattr(request.model_spec.version, "value", rng.randrange(-(2**63), 2**63)),
        lambda: setattr(request.model_spec, "name", "n" * rng.randrange(5000)),
    ]
    rng.choice(wrong)()
    return request.SerializeToString()


def _damaged(rng: random.Random) -> bytes:
    """A predict request with some bits flipped, or cut short. It may still be a good one."""
    whole = bytearray(_valid(rng).SerializeToString())
    for _ in range(rng.randrange(1, 6)):
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    return bytes(whole[: rng.randrange(1, len(whole) + 1)])


def _examples(rng: random.Random) -> bytes:
    request = classification_pb2.ClassificationRequest(input=input_pb2.Input())
    request.model_spec.name = rng.choice(MODELS)
    for _ in range(rng.randrange(50)):
        example = request.input.example_list.examples.add()
        example.features.feature["x"].bytes_list.value.append(_bytes(rng))
    return request.SerializeToString()


def _json(rng: random.Random) -> bytes:
    depth, many = rng.choice((5, 40, 900, 5000, 100_000)), rng.choice((10, 10_000, 200_000))
    value = rng.choice(
        [
            lambda: b"[" * depth + b"1" + b"]" * depth,
            lambda: b"[" + b"[" * min(depth, 900) + b"]" * min(depth, 900) + b", 1]",
            lambda: b'{"a":' * depth + b"1" + b"}" * depth,
            lambda: b"[" + b"[]," * many + b"[]]",
            lambda: b"[" + b"{}," * many + b"{}]",
            lambda: b"[" + b"1.5," * many + b'"a"]',
            lambda: b"[" + b"9" * min(many, 20_000) + b"]",
            lambda: b"[1e" + b"9" * rng.randrange(1, 30) + b"]",
            lambda: b'["' + rng.randbytes(20) + b'"]',
            lambda: b'[{"b64": "' + rng.randbytes(9).hex().encode() + b'*"}]',
            lambda: b'["\\ud800"]',
            lambda: json.dumps([[[1] * rng.randrange(1, 9)] * rng.randrange(1, 9), 2]).encode(),
            lambda: b"[NaN, -Infinity, Inf, null, true]",
        ]
    )()
    key = rng.choice((b"instances", b"inputs", b"examples", b"signature_name", b"both"))
    if key == b"both":
        return b'{"instances": ' + value + b', "inputs": ' + value + b"}"
    return b'{"' + key + b'": ' + value + rng.choice((b"}", b"", b"}}", b",}"))


class _Doors:
    """Send one malformed request, and return its status."""

    def __init__(self, server: Server, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self._channel = server.channel()

    def over_grpc(self) -> str:
        rng = self._rng
        make = rng.choice((_bytes, _spoiled, _spoiled, _damaged, _damaged, _examples))
        method = METHODS[0] if make in (_spoiled, _damaged) else rng.choice(METHODS)
        try:
            self._channel.unary_unary(method)(make(rng), timeout=60)
        except grpc.RpcError as error:
            code, text = error.code(), error.details()
            assert code in REFUSED or (code, text) == (
                grpc.StatusCode.INTERNAL,
                "Exception deserializing request!",
            ), (make, code, text)
            return str(code.name)
        assert make is not _spoiled, make
        return "OK"

    def over_http(self) -> str:
        rng = self._rng
        model = rng.choice((*MODELS, "nope", "%00", "%ff%fe", "a" * 3000))
        verb = rng.choice(("predict", "predict", "classify", "regress", "explode"))
        make = rng.choice((_bytes, _json, _json, _json, _spoiled, _damaged))
        body, headers = make(rng), {}
        if make in (_spoiled, _damaged) or rng.random() < 0.1:
            headers["Content-Type"] = "application/x-protobuf"
        if rng.random() < 0.2:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1)[: rng.choice((None, -1, 5))]
        elif rng.random() < 0.02:
            headers["Content-Encoding"], body = "gzip", _bomb()
        where = rng.choice(("", "", "/versions/2", "/versions/99999999999999999999", "/labels/l", "/metadata"))
        method = rng.choice(("POST", "POST", "POST", "POST", "GET", "PUT", "DELETE", "TRACE"))
        status, text, _ = self._server.raw(method, f"/v1/models/{model}{where}:{verb}", body, headers)
        assert status == 200 or status in HTTP_REFUSED, (status, text[:500])
        assert status != 200 or make is not _spoiled
        return str(status)

    def over_tcp(self) -> str:
        """Bytes that are not HTTP: the server answers 400, or closes."""
        with socket.create_connection(("127.0.0.1", self._server.rest_port), timeout=30) as connection:
            connection.sendall(self._rng.randbytes(self._rng.randrange(1, 3000)) + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            try:
                answer = connection.recv(4096)
            except ConnectionResetError:
                answer = b""
        assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
        return "closed" if not answer else answer[9:12].decode()


@functools.cache
def _bomb() -> bytes:
    """A small gzip body that inflates to more than the server's limit."""
    return gzip.compress(b" " * (64 * 2**20), 1)


@pytest.fixture
def fuzzed(start: Start, models: Path, tmp_path: Path) -> Server:
    config = tmp_path / "models.config"
    entries = "".join(f'config {{ name: "{name}", base_path: "{models / name}" }}\n' for name in MODELS)
    config.write_text(f"model_config_list {{ {entries} }}")
    return start(
        f"--model_config_file={config}",
        "--engine=openvino",
        "--grpc_max_threads=4",
        "--rest_api_num_threads=4",
        f"--rest_api_max_body_bytes={16 * 2**20}",
    )


def test_malformed_requests(fuzzed: Server) -> None:
    """Every malformed request is refused with a status that says so, never as a fault of the server."""
    doors = _Doors(fuzzed, random.Random(20201121))
    process = psutil.Process(fuzzed.process.pid)
    seen: Counter[str] = Counter()
    settled = peak = 0
    for number in range(COUNT):
        send = (doors.over_grpc, doors.over_http)[number % 2] if number % 40 else doors.over_tcp
        seen[f"{send.__name__} {send()}"] += 1
        if number == COUNT // 4:
            settled = process.memory_info().rss
        peak = max(peak, process.memory_info().rss)
        if number % 50 == 0:
            assert fuzzed.prediction.Predict(_good(), timeout=30).outputs["y"].float_val == [3.5]
    assert fuzzed.prediction.Predict(_good(), timeout=30).outputs["y"].float_val == [3.5]
    assert fuzzed.is_ready()
    assert "Traceback" not in fuzzed.log
    grown = peak - settled
    print(
        f"{COUNT} requests: {dict(sorted(seen.items()))}; {settled >> 20} MiB settled, {grown >> 20} MiB more at peak"
    )
    assert grown < GROWTH


def _good() -> predict_pb2.PredictRequest:
    return predict_request("half_plus", {"x": np.ones((1, 1), np.float32)})
