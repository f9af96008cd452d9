"""HTTP as clients and strangers speak it, byte by byte: one right status for each request, and then the next one."""

import gzip
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cortex.http_protocol import HttpProtocol
from cortex.model_server import http_body, rest
from cortex.model_server.handlers import Handlers
from cortex.model_server.repository import Repository, RepositoryOptions
from tests.model_server.harness import Server, Start, free_port, starter

BODY = b'{"instances": [[1]]}'
ANSWER = b'{\n    "predictions": [[3.5]\n    ]\n}'
POST = b"POST /v1/models/half_plus:predict HTTP/1.1\r\nHost: x\r\n"
SIZED = b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n"


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started: list[Server] = []
    try:
        base = f"--model_base_path={models / 'half_plus'}"
        yield starter(tmp_path_factory.mktemp("http"), started)("--model_name=half_plus", base, "--engine=openvino")
    finally:
        for each in started:
            assert each.stop() == 0


def _answers(server: Server, *pieces: bytes, last: bytes = b"") -> Sequence[tuple[int, bytes]]:
    """Send pieces on one connection, one after the other, and then the last; return every status and body."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        with connection.makefile("rb") as stream:
            connection.sendall(last or b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            found = []
            while line := stream.readline():
                status, size = int(line.split()[1]), 0
                while (header := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = header.partition(b":")
                    size = int(value) if name.lower() == b"content-length" else size
                found.append((status, stream.read(size)))
    return found


def test_requests_are_answered_in_order_on_one_connection(server: Server) -> None:
    """Pipelined requests, chunked and not, good and bad, each get their own answer, in their order."""
    chunked = b"Transfer-Encoding: chunked\r\n\r\n7;x=y\r\n%s\r\n%x\r\n%s\r\n0\r\nTrailer: t\r\n\r\n"
    pieces = [
        POST + SIZED,
        HEALTH,
        POST + chunked % (BODY[:7], len(BODY) - 7, BODY[7:]),
        POST + b"Content-Length: 1\r\n\r\n{",
        POST + SIZED,
    ]
    found = _answers(server, b"".join(pieces))
    assert [status for status, _ in found] == [200, 200, 200, 400, 200, 404]
    assert [body for _, body in found[:3]] == [ANSWER, b"ok\n", ANSWER]


def test_a_body_is_asked_for(server: Server) -> None:
    """A client that waits for 100 Continue, as curl does before a large body, gets it, and then its answer."""
    found = _answers(server, POST + b"Expect: 100-continue\r\n" + SIZED)
    assert found == [(100, b""), (200, ANSWER), found[-1]]


@pytest.mark.parametrize("split", [False, True])
def test_an_offer_of_http_2_is_not_taken(server: Server, split: bool) -> None:
    """Java's client makes one with its first request; it is answered in HTTP/1.1, body and all, and goes on so."""
    head, body = POST + OFFER + SIZED[: -len(BODY)], BODY
    pieces = [head[:40], head[40:], body[:3], body[3:]] if split else [head + body]
    found = _answers(server, *pieces, POST + SIZED)
    assert [status for status, _ in found] == [200, 200, 404]
    assert found[0][1] == ANSWER


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"HEAD /v1/models/half_plus HTTP/1.0\r\n\r\n", 400),
        (b"GET /v1/models/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % (b"a" * 60_000), 404),
        (b"GET /v1/models/half%00plus HTTP/1.0\r\n\r\n", 404),
        (b"GET /v1/models/../../etc/passwd HTTP/1.0\r\n\r\n", 400),
        (b"GET http://other/v1/models/half_plus HTTP/1.0\r\n\r\n", 200),
        (b"GET //v1/models/half_plus HTTP/1.0\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.0\r\nOrigin: http://x\r\n\r\n", 200),
        (b"TRACE /v1/models HTTP/1.0\r\n\r\n", 400),
        (b"CONNECT other:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"NONSENSE / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nnot hexadecimal\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 300000000\r\n\r\n", 413),
        (POST + b"Expect: 100-continue\r\nContent-Length: 300000000\r\n\r\n", 413),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000, 431),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    ],
)
def test_one_status_each(server: Server, request_: bytes, status: int) -> None:
    """Whatever is asked gets one answer, and the connection is closed where it cannot go on or was not to."""
    assert [status for status, _ in _answers(server, last=request_)] == [status]


def test_what_follows_a_gzip_body_has_its_limit(start: Start, models: Path) -> None:
    """Bytes behind the end of a gzip body are read to the limit of bodies, and no further."""
    base = f"--model_base_path={models / 'half_plus'}"
    server = start("--model_name=half_plus", base, "--rest_api_max_body_bytes=50000")
    head = POST + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%s\r\n" % (len(each), each) for each in [gzip.compress(BODY), *[bytes(10_000)] * 6]]
    assert _answers(server, head + b"".join(chunks[:5]) + b"0\r\n\r\n")[0] == (200, ANSWER)
    assert [status for status, _ in _answers(server, last=head + b"".join(chunks))] == [413]


def test_a_timeout_of_zero_is_none(start: Start, models: Path) -> None:
    """--rest_api_timeout_in_ms=0 is TensorFlow's zero, which stands for no limit."""
    base = f"--model_base_path={models / 'half_plus'}"
    server = start("--model_name=half_plus", base, "--rest_api_timeout_in_ms=0", "--tensorflow_session_parallelism=1")
    assert _answers(server, POST + SIZED)[0] == (200, ANSWER)
    assert "--tensorflow_session_parallelism counts for models that the tensorflow engine runs" in server.log


def test_head_has_no_body(server: Server) -> None:
    """The answer to HEAD tells the size of a body and has none: the next answer follows at once."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=20) as connection:
        connection.sendall(HEALTH.replace(b"GET", b"HEAD") + HEALTH.replace(b"1.1", b"1.0"))
        with connection.makefile("rb") as stream:
            assert stream.read().count(b"ok\n") == 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a REST door that waits for a head, for its first byte and for a body no longer than a second."""
    monkeypatch.setattr(rest, "_KEEP_ALIVE", 1)
    monkeypatch.setattr(HttpProtocol, "head_seconds", 1)
    monkeypatch.setattr(http_body, "STALL_S", 1)
    port = free_port()
    door = rest.RestServer(Handlers(Repository(lambda *_: None, RepositoryOptions())), rest.RestOptions(port))
    door.start(1)
    try:
        yield port
    finally:
        door.stop()


@pytest.mark.parametrize(("sent", "answer"), [(b"", b""), (b"GET /healthz HT", b"HTTP/1.1 408 Request Timeout\r\n")])
def test_a_connection_that_says_nothing_more_is_closed(impatient: int, sent: bytes, answer: bytes) -> None:
    """A head that has begun and does not end is told so."""
    with socket.create_connection(("127.0.0.1", impatient), timeout=20) as connection:
        connection.sendall(sent)
        with connection.makefile("rb") as stream:
            assert stream.readline() == answer
            stream.read()


def test_a_body_that_stalls_is_answered_and_its_connection_closed(impatient: int) -> None:
    """What came of it is forgotten; nobody has to wait for the rest."""
    with socket.create_connection(("127.0.0.1", impatient), timeout=20) as connection:
        connection.sendall(POST + b"Content-Length: 5\r\n\r\n{}")
        with connection.makefile("rb") as stream:
            assert stream.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
            assert b"No more of the request body came for 1 seconds" in stream.read()
