"""TLS and mTLS of the gRPC door, with certificates made for the test."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme

from cortex.model_server import tls
from cortex.model_server.status import StatusError
from cortex.protos import prediction_service_pb2_grpc
from tests.model_server.harness import Start, free_port, predict_request
from tests.waiting import DEADLINE

X = {"x": np.ones((1, 1), np.float32)}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def ssl_config(path: Path, authority: trustme.CA, *, client_verify: bool) -> Path:
    issued = authority.issue_cert("localhost")
    fields = {
        "server_key": issued.private_key_pem.bytes().decode(),
        "server_cert": issued.cert_chain_pems[0].bytes().decode(),
        "custom_ca": authority.cert_pem.bytes().decode(),
    }
    lines = [f'{name}: "{value}"'.replace("\n", "\\n") for name, value in fields.items()]
    path.write_text("\n".join([*lines, f"client_verify: {str(client_verify).lower()}"]))
    return path


def _predict(port: int, credentials: Any) -> Any:
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return stub.Predict(predict_request("half_plus", X), timeout=20).outputs["y"].float_val


def _client(authority: trustme.CA, issuer: trustme.CA | None = None) -> Any:
    roots = authority.cert_pem.bytes()
    if issuer is None:
        return grpc.ssl_channel_credentials(roots)
    own = issuer.issue_cert("client@example.org")
    return grpc.ssl_channel_credentials(roots, own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())


@pytest.mark.parametrize("client_verify", [False, True])
def test_tls(start: Start, models: Path, tmp_path: Path, authority: trustme.CA, client_verify: bool) -> None:
    """A client that trusts the authority is served; with client_verify, only one that the authority has signed."""
    port = free_port()
    start(
        f"--port={port}",
        f"--ssl_config_file={ssl_config(tmp_path / 'ssl.config', authority, client_verify=client_verify)}",
        "--model_name=half_plus",
        f"--model_base_path={models / 'half_plus'}",
    )
    assert _predict(port, _client(authority, authority)) == [3.5]
    refused = [_client(trustme.CA())]
    if client_verify:
        refused += [_client(authority), _client(authority, trustme.CA())]
    else:
        assert _predict(port, _client(authority)) == [3.5]
    for credentials in refused:
        with pytest.raises(grpc.RpcError) as caught:
            _predict(port, credentials)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.Predict(predict_request("half_plus", X), timeout=20)


@pytest.mark.parametrize("wrong", ["a key of another certificate", "paths"])
def test_credentials_of_no_use_are_no_busy_port(
    start: Start, models: Path, tmp_path: Path, authority: trustme.CA, wrong: str
) -> None:
    """A start that fails on what the file holds says so, and not that the port may be in use."""
    path = tmp_path / "ssl.config"
    if wrong == "paths":
        path.write_text('server_key: "/etc/server.key" server_cert: "/etc/server.crt"')
    else:
        key, certificate = (
            ssl_config(path, authority, client_verify=False).read_text().splitlines()[line] for line in (0, 1)
        )
        path.write_text(f"{key}\n{certificate}")
    flags = f"--port={free_port()}", f"--ssl_config_file={path}", f"--model_base_path={models / 'half_plus'}"
    server = start(*flags, ready=False)
    assert server.process.wait(DEADLINE) == 255
    assert "what --ssl_config_file holds cannot be used" in server.log
    assert "is it in use" not in server.log


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('server_cert: "c"', "server_key must not be empty"),
        ('server_key: "k"', "server_cert must not be empty"),
        ('server_key: "k" server_cert: "c" client_verify: true', "custom_ca must not be empty"),
        ("server_kee: 1", "Invalid protobuf file"),
    ],
)
def test_a_config_that_lacks_something_names_it(tmp_path: Path, text: str, error: str) -> None:
    """The message names the file and what it must hold."""
    path = tmp_path / "ssl.config"
    path.write_text(text)
    with pytest.raises(StatusError, match=error) as caught:
        tls.credentials(path)
    assert str(path) in caught.value.message
