"""Model server processes, and what is sent to them and written for them."""

import contextlib
import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cortex import tensors
from cortex.protos import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from cortex.tfrecord import encode
from tests.ports import free_port
from tests.waiting import DEADLINE, until


@dataclass
class Server:
    """A model server process, and the ways to talk to it."""

    process: subprocess.Popen[str]
    rest_port: int
    socket_path: Path
    log_path: Path
    engine: str = ""
    channels: list[grpc.Channel] = field(default_factory=list)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def channel(self, target: str | None = None) -> grpc.Channel:
        channel = grpc.insecure_channel(
            target or f"unix:{self.socket_path}",
            options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
        )
        self.channels.append(channel)
        return channel

    @property
    def prediction(self) -> Any:
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel())

    @property
    def model(self) -> Any:
        return model_service_pb2_grpc.ModelServiceStub(self.channel())

    def http(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, Mapping[str, str]]:
        status, answer, answered = self.raw(method, path, body, headers)
        return status, answer.decode(), answered

    def raw(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()}
        finally:
            connection.close()

    def json(self, method: str, path: str, body: bytes | str | None = None) -> Any:
        status, text, _ = self.http(method, path, body)
        assert status == 200, text
        return json.loads(text)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        with contextlib.suppress(OSError):
            return self.http("GET", "/readyz")[0] == 200
        return False

    def metric(self, sample: str) -> float:
        """Return the value of a sample of our page, which is 0 until it is counted."""
        lines = [line for line in self.http("GET", "/metrics")[1].splitlines() if line.startswith(sample + " ")]
        return float(lines[0].split()[-1]) if lines else 0.0

    def in_flight(self, door: str) -> float:
        return self.metric(f'cortex_model_requests_in_flight{{door="{door}"}}')

    def has_status(self, model: str, version: int, state: str) -> bool:
        status, text, _ = self.http("GET", f"/v1/models/{model}")
        entries = json.loads(text)["model_version_status"] if status == 200 else []
        return any(entry["version"] == str(version) and entry["state"] == state for entry in entries)

    def stop(self) -> int:
        for channel in self.channels:
            channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE)
        finally:
            self.process.kill()


Start = Callable[..., Server]


def starter(directory: Path, started: list[Server]) -> Start:
    def start(
        *flags: str, ready: bool = True, env: Mapping[str, str] | None = None, module: str = "cortex.model_server"
    ) -> Server:
        number = len(started)
        rest, path = free_port(), directory / f"{number}.sock"
        log = directory / f"{number}.log"
        command = [
            *(sys.executable, "-m", module, "--port=0"),
            *(f"--rest_api_port={rest}", f"--grpc_socket_path={path}", "--max_num_load_retries=0"),
            *(f"--crash_records_path={directory / 'crashes'}", *flags),
        ]
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, text=True, env=env)
        server = Server(process, rest, path, log)
        started.append(server)
        if ready:
            until(server.is_ready)
        return server

    return start


def config_file(path: Path, base_paths: Mapping[str, Path]) -> Path:
    entries = "".join(
        f'  config {{ name: "{name}", base_path: "{base}", model_platform: "tensorflow" }}\n'
        for name, base in base_paths.items()
    )
    path.write_text(f"model_config_list {{\n{entries}}}\n")
    return path


def predict_request(
    model: str, inputs: Mapping[str, Any], outputs: Sequence[str] = (), **spec: Any
) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = model
    if "version" in spec:
        request.model_spec.version.value = spec.pop("version")
    for key, value in spec.items():
        setattr(request.model_spec, key, value)
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tensors.to_proto(np.asarray(value)))
    return request


def failure(call: Any, *arguments: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
    """Return the code and the text with which a call fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value.code(), caught.value.details()


def arrays(response: predict_pb2.PredictResponse) -> dict[str, Any]:
    return {name: tensors.to_array(proto) for name, proto in response.outputs.items()}


def write_records(version: Path, records: Sequence[bytes | prediction_log_pb2.PredictionLog]) -> Path:
    """Write a warm-up file into a version directory."""
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        for record in records:
            file.write(encode(record if isinstance(record, bytes) else record.SerializeToString()))
    return path


def recorded(
    request: predict_pb2.PredictRequest, answers: Mapping[str, Any] | None = None
) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    for name, value in (answers or {}).items():
        log.predict_log.response.outputs[name].CopyFrom(tensors.to_proto(np.asarray(value)))
    return log
