"""Encrypted doors: whom to trust, and who to be, over https and gRPC."""

import ssl
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from cortex.errors import UserError
from cortex.loadtest import HTTP, TLS, ClosedLoop, Payload, run
from cortex.loadtest.tfserving import GRPC
from cortex.protos import predict_pb2, prediction_service_pb2_grpc
from tests.loadtest.servers import Seen, serve

PAYLOAD, EMPTY = Payload(b"{}", "application/json"), Payload(b"", "application/x-protobuf")


@dataclass(frozen=True)
class Papers:
    """PEM files of an authority that nobody else knows, and of a client that it has signed."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def shown(self) -> TLS:
        return TLS(authorities=self.authority, certificate=self.certificate, key=self.key)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def papers(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    papers = Papers(folder / "authority.pem", folder / "client.pem", folder / "client.key")
    client = authority.issue_cert("client@example.org")
    authority.cert_pem.write_to_path(str(papers.authority))
    client.cert_chain_pems[0].write_to_path(str(papers.certificate))
    client.private_key_pem.write_to_path(str(papers.key))
    return papers


@pytest.fixture
def strict(authority: trustme.CA, seen: Seen) -> Iterator[str]:
    """An https server that wants to see a certificate of the same authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    with serve(seen, context) as port:
        yield f"https://localhost:{port}"


@pytest.fixture
def strict_grpc(authority: trustme.CA) -> Iterator[str]:
    """The same, for gRPC."""
    issued = authority.issue_cert("localhost")
    pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Empty(), server)
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True)
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    yield f"grpcs://localhost:{port}"
    server.stop(None).wait()


class _Empty(prediction_service_pb2_grpc.PredictionServiceServicer):
    def Predict(self, request: Any, context: Any) -> predict_pb2.PredictResponse:  # noqa: N802
        return predict_pb2.PredictResponse()


def errors(door: HTTP | GRPC) -> list[str]:
    return list(run(ClosedLoop(samples=2), door, EMPTY if isinstance(door, GRPC) else PAYLOAD).errors)


def test_client_certificates(strict: str, seen: Seen, papers: Papers) -> None:
    """With a certificate the server answers, over one connection; without one it hangs up, and that is told."""
    assert errors(HTTP(strict, tls=papers.shown)) == []
    assert (len(seen.requests), seen.connections) == (2, 1)
    [kind] = errors(HTTP(strict, tls=TLS(authorities=papers.authority)))
    assert kind in ("TLS failed", "connection reset", "connection closed without an answer")
    assert len(seen.requests) == 2


def test_insecure(strict: str, papers: Papers) -> None:
    """Nobody trusts this server by default, nor by another name; unchecked, it is used all the same."""
    other = strict.replace("localhost", "127.0.0.1")
    assert errors(HTTP(strict)) == ["certificate not trusted"]
    assert errors(HTTP(other, tls=papers.shown)) == ["certificate not trusted"]
    assert errors(HTTP(other, tls=TLS(False, None, papers.certificate, papers.key))) == []


def test_grpcs(strict_grpc: str, papers: Papers) -> None:
    """gRPC takes the same files; a server or a client that is not trusted is not reached."""
    assert errors(GRPC(strict_grpc, tls=papers.shown)) == []
    assert errors(GRPC(strict_grpc, timeout=5, tls=TLS(authorities=papers.authority))) == ["gRPC UNAVAILABLE"]
    assert errors(GRPC(strict_grpc, timeout=5)) == ["gRPC UNAVAILABLE"]


def test_grpcs_cannot_be_insecure(papers: Papers) -> None:
    """gRPC's library checks every certificate: the sentence says what to do instead."""
    with pytest.raises(UserError, match="name its authority with --ca-file"):
        GRPC("grpcs://localhost:1", tls=TLS(verify=False))
