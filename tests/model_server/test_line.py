"""The line beside gRPC's socket: the same answers and refusals as gRPC's, over a connection of a few bytes' framing."""

import os
import random
import re
import resource
import signal
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
import pytest
import trustme

from cortex import line
from cortex.model_client.line import Line, PredictionError
from cortex.model_server.handlers import Handlers
from cortex.model_server.line import LineServer
from cortex.model_server.request import Recorder, Request, current
from cortex.model_server.status import Code, StatusError
from cortex.protos import predict_pb2
from tests.model_server.harness import Server, Start, arrays, predict_request
from tests.model_server.test_grpc import REFUSED, TWO, X
from tests.model_server.test_tls import ssl_config
from tests.waiting import DEADLINE, until


@contextmanager
def the_line(server: Server, seconds: float = 60.0) -> Iterator[Line]:
    found = Line.beside(f"unix:{server.socket_path}", seconds)
    assert found is not None
    try:
        yield found
    finally:
        found.close()


def connected(server: Server) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(line.address(str(server.socket_path)))
    connection.settimeout(10)
    return connection


@pytest.mark.parametrize(
    "request_",
    [
        predict_request("two_inputs", TWO),
        predict_request("two_inputs", {"q": TWO["zeta"]}, signature_name="doubled"),
        predict_request("half_plus", X, version=2),
    ],
    ids=["default", "signature", "version"],
)
def test_answers_are_those_of_grpc(server: Server, request_: predict_pb2.PredictRequest) -> None:
    """The line gives the outputs and the model spec that gRPC gives; its tensors come as bytes."""
    with the_line(server) as asking:
        by_grpc, by_line = server.prediction.Predict(request_), asking.predict(request_)
    assert by_line is not None
    assert by_line.model_spec == by_grpc.model_spec
    assert arrays(by_line).keys() == arrays(by_grpc).keys()
    for name, array in arrays(by_grpc).items():
        np.testing.assert_array_equal(arrays(by_line)[name], array)
    assert all(output.tensor_content for output in by_line.outputs.values())


@pytest.mark.parametrize(("request_", "code", "text"), REFUSED, ids=[text[:40] for _, _, text in REFUSED])
def test_refusals_are_those_of_grpc(
    server: Server, request_: predict_pb2.PredictRequest, code: grpc.StatusCode, text: str
) -> None:
    """A refusal has gRPC's code and text, and the same connection carries the next request."""
    with the_line(server) as asking:
        with pytest.raises(PredictionError) as caught:
            asking.predict(request_)
        assert caught.value.code() is code
        assert text in caught.value.details()
        assert asking.predict(predict_request("half_plus", X)) is not None


def test_requests_are_counted_by_what_was_answered(start: Start, models: Path) -> None:
    """An answer does not wait for its count, which comes at once all the same; a refusal counts as the one it is."""
    server = start("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}")
    with the_line(server) as asking:
        asking.predict(predict_request("half_plus", X))
        with pytest.raises(PredictionError):
            asking.predict(predict_request("half_plus", {}))
    for code in ("OK", "INVALID_ARGUMENT"):
        counted = re.compile(rf'^cortex_model_requests_total{{code="{code}",door="LINE",.*}} 1.0$', re.MULTILINE)
        until(lambda counted=counted: counted.search(server.http("GET", "/metrics")[1]))


def test_a_deadline_is_kept(server: Server) -> None:
    """What takes longer than the request allows ends in DEADLINE_EXCEEDED."""
    rows = np.ones((4000, 800), np.float32)
    started = time.monotonic()
    with the_line(server, seconds=0.1) as asking, pytest.raises(PredictionError, match="DEADLINE_EXCEEDED"):
        asking.predict(predict_request("slow", {"x": rows}))
    assert time.monotonic() - started < 5


def test_bytes_that_are_no_request(server: Server) -> None:
    """A message that is none is refused, and its connection stays; one that is announced too large ends its own."""
    with connected(server) as connection:
        line.send_request(connection, b"\xff" * 100, 10.0)
        code, text = line.receive_answer(connection)
        assert (code, text[:17]) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], b"no PredictRequest")
        connection.sendall(struct.pack("<Id", 2**32 - 1, 10.0))
        assert connection.recv(1) == b""
    chance = random.Random(5)
    for _ in range(200):
        with connected(server) as connection:
            connection.sendall(chance.randbytes(chance.randrange(40)))
    with the_line(server) as asking:
        assert asking.predict(predict_request("half_plus", X)) is not None


def test_a_fault_of_ours_is_an_answer(tmp_path: Path) -> None:
    """What fails in a way that nobody foresaw is INTERNAL, and the connection stays."""

    def predict(*_: object, **__: object) -> None:
        raise LookupError("nobody foresaw this")

    server = LineServer(cast(Handlers, SimpleNamespace(predict=predict)), str(tmp_path / "line"))
    server.start()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "line"))
            for _ in range(2):
                line.send_request(connection, b"", 10.0)
                code, text = line.receive_answer(connection)
                assert (code, text) == (Code.INTERNAL, b"LookupError: nobody foresaw this")
    finally:
        server.stop(5)


def test_a_client_that_goes_away_has_cancelled(tmp_path: Path) -> None:
    """Its request counts as what became of it; that nobody takes the answer is no fault of the server."""
    counted: list[Code] = []

    class Counting(Recorder):
        def ended(self, request: Request, code: Code) -> None:
            counted.append(code)

    def predict(*_: object, **__: object) -> None:
        gone = threading.Event()
        with current().leaving(gone.set):
            gone.wait(10)
        raise StatusError(Code.CANCELLED, "the client cancelled the request")

    server = LineServer(cast(Handlers, SimpleNamespace(predict=predict)), str(tmp_path / "line"), Counting())
    server.start()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "line"))
            line.send_request(connection, b"", 10.0)
        until(lambda: counted)
    finally:
        server.stop(5)
    assert counted == [Code.CANCELLED]


def test_a_connection_that_waits_holds_no_request(tmp_path: Path) -> None:
    """Workers keep as many as their threads have ever needed, each of which may have carried a large tensor."""
    answer = predict_pb2.PredictResponse()
    server = LineServer(cast(Handlers, SimpleNamespace(predict=lambda *_, **__: answer)), str(tmp_path / "line"))
    server.start()
    tracemalloc.start()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "line"))
            request = predict_request("m", {"x": np.zeros(1_000_000)})
            line.send_request(connection, request.SerializeToString(), 10.0)
            line.receive_answer(connection)
            until(lambda: tracemalloc.get_traced_memory()[0] < 4_000_000)
    finally:
        tracemalloc.stop()
        server.stop(5)


def test_requests_at_once(server: Server) -> None:
    """Threads ask over connections of their own, each gets its own answer, and connections are used again."""
    wrong = []

    def ask(asking: Line, value: float) -> None:
        for _ in range(20):
            answer: Any = asking.predict(predict_request("half_plus", {"x": [[np.float32(value)]]}))
            if arrays(answer)["y"].item() != value / 2 + 3:
                wrong.append(value)

    with the_line(server) as asking:
        threads = [threading.Thread(target=ask, args=(asking, float(value))) for value in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert len(asking._idle) <= 8


def test_a_stop_answers_what_is_under_way(start: Start, models: Path, tmp_path: Path) -> None:
    """SIGTERM lets a request finish, ends idle connections, removes the socket, and the server exits with 0."""
    batching = tmp_path / "batching.config"
    batching.write_text("batch_timeout_micros { value: 3600000000 }")  # until SIGTERM, then
    server = start(
        *("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}"),
        *("--enable_batching", f"--batching_parameters_file={batching}"),
    )
    answers = []
    request = predict_request("half_plus", X)
    with the_line(server) as asking, connected(server) as idle:
        thread = threading.Thread(target=lambda: answers.append(asking.predict(request)))
        thread.start()
        until(lambda: 'in_flight{door="LINE"} 1.0' in server.http("GET", "/metrics")[1])
        server.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b""
        thread.join()
        assert answers[0] is not None
        assert server.process.wait(DEADLINE) == 0
        assert not Path(line.address(str(server.socket_path))).exists()
        assert asking.predict(request) is None


def test_a_server_without_descriptors_listens_again(start: Start, models: Path) -> None:
    """Connections that come while the process may open no more files wait, and are served once it may."""
    server = start("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}")
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    with the_line(server, 30.0) as asking, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(asking.predict, predict_request("half_plus", X))
        until(lambda: "The line cannot take a connection now" in server.log)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert answer.result() is not None
    assert server.stop() == 0


@pytest.mark.parametrize("guard", ["file", "environment", "TLS"])
def test_a_guarded_socket_has_no_line(start: Start, models: Path, tmp_path: Path, guard: str) -> None:
    """The line carries no key and no certificate, so a server that wants either does not open it."""
    (tmp_path / "keys").write_text("secret\n")
    authority = trustme.CA()
    flags = {
        "file": f"--api_key_file={tmp_path / 'keys'}",
        "environment": "--api_key_file=",
        "TLS": f"--ssl_config_file={ssl_config(tmp_path / 'ssl', authority, client_verify=True)}",
    }
    env = os.environ | ({"CORTEX_MODEL_SERVER_API_KEY": "secret"} if guard == "environment" else {})
    server = start("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}", flags[guard], env=env)
    assert server.socket_path.exists()
    assert Line.beside(f"unix:{server.socket_path}", 1.0) is None


def test_a_line_that_cannot_be_opened_is_done_without(start: Start, models: Path) -> None:
    """Where the socket's path is taken by something else, the log says so, and gRPC answers."""
    base = f"--model_base_path={models / 'half_plus'}"
    first = start("--model_name=half_plus", base)
    taken = Path(line.address(str(first.socket_path.with_name("1.sock"))))
    (taken / "in the way").mkdir(parents=True)
    server = start("--model_name=half_plus", base)
    assert f"cannot listen on {taken}" in server.log
    assert arrays(server.prediction.Predict(predict_request("half_plus", X)))["y"].item() == 3.5
