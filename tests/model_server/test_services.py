"""What the gRPC door offers beside the model services: health and the profiler; and how it treats calls that wait."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cortex.model_server import loopback
from cortex.model_server.grpc import GrpcOptions, GrpcServer
from cortex.model_server.handlers import Handlers
from cortex.protos import predict_pb2, prediction_service_pb2_grpc
from tests.model_server.harness import Server, Start, arrays, failure, predict_request
from tests.waiting import DEADLINE, until

X = {"x": np.ones((1, 1), np.float32)}


def test_the_profiler_is_tensorflows(server: Server) -> None:
    """ProfilerService answers on the gRPC port where TensorFlow runs, and says why where it does not."""
    channel = server.channel()
    terminate = channel.unary_unary("/tensorflow.ProfilerService/Terminate")
    if server.engine == "tensorflow":
        assert terminate(b"", timeout=30) == b""
        monitor = channel.unary_unary("/tensorflow.ProfilerService/Monitor")
        assert failure(monitor, b"") == (grpc.StatusCode.UNIMPLEMENTED, "unimplemented.")  # TensorFlow's own words
    else:
        code, text = failure(terminate, b"")
        assert (code, "no model of this server runs on the tensorflow engine" in text) == (
            grpc.StatusCode.UNAVAILABLE,
            True,
        )


def test_the_profiler_is_on_this_machine(start: Start, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names does not lead to it."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    server = start("--model_name=half_plus", f"--model_base_path={models}/half_plus", "--engine=tensorflow")
    assert server.channel().unary_unary("/tensorflow.ProfilerService/Terminate")(b"", timeout=30) == b""


def test_the_profilers_own_port_is_closed_to_others(reference: Server) -> None:
    """TensorFlow's server listens on every interface; what comes through another than the loopback is refused."""
    terminate = reference.channel().unary_unary("/tensorflow.ProfilerService/Terminate")
    assert terminate(b"", timeout=30) == b""
    ports = {
        each.laddr.port
        for each in psutil.Process(reference.process.pid).net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr.port != reference.rest_port
    }
    addresses = [
        each.address
        for interface in psutil.net_if_addrs().values()
        for each in interface
        if each.family == socket.AF_INET and not each.address.startswith("127.")
    ]
    assert len(ports) == 1
    if not addresses:
        pytest.skip("this machine has the loopback interface only")
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, *ports), timeout=5)


def test_loopback_needs_a_listener() -> None:
    """A port that nothing listens on is an error, not a success; a probe of what is possible leaves no socket open."""
    before = psutil.Process().num_fds()
    assert loopback.is_possible()
    with pytest.raises(OSError, match="nothing in this process listens on port 1"):
        loopback.restrict(1)
    assert psutil.Process().num_fds() == before


def test_health_is_off_unless_asked_for(server: Server) -> None:
    """Without its flag there is no grpc.health.v1."""
    code, _ = failure(health_pb2_grpc.HealthStub(server.channel()).Check, health_pb2.HealthCheckRequest())
    assert code is grpc.StatusCode.UNIMPLEMENTED


def test_health_without_a_profiler(start: Start, models: Path) -> None:
    """--enable_grpc_healthcheck_service answers for three names; --enable_profiler=false leaves no profiler."""
    server = start(
        "--model_name=half_plus",
        f"--model_base_path={models / 'half_plus'}",
        "--enable_grpc_healthcheck_service",
        "--enable_profiler=false",
    )
    stub = health_pb2_grpc.HealthStub(server.channel())
    for service in ("", "ModelService", "PredictionService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert failure(stub.Check, health_pb2.HealthCheckRequest(service="x"))[0] is grpc.StatusCode.NOT_FOUND
    code, _ = failure(server.channel().unary_unary("/tensorflow.ProfilerService/Terminate"), b"")
    assert code is grpc.StatusCode.UNIMPLEMENTED
    watching = stub.Watch(health_pb2.HealthCheckRequest())
    assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
    server.process.terminate()
    code, _ = failure(list, watching)  # a watcher does not keep the server from ending
    assert code is grpc.StatusCode.CANCELLED
    assert server.process.wait(DEADLINE) == 0


def _watch(target: str, count: int) -> None:
    """Watch, hear of the status, and go away, again and again."""
    with grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        for _ in range(count):
            watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
            assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
            watching.cancel()


def test_watchers_that_come_and_go_do_not_stop_the_door(start: Start, models: Path) -> None:
    """Watches that begin while others end, as those of clients that check health do, are all answered."""
    flags = "--model_name=half_plus", f"--model_base_path={models / 'half_plus'}", "--enable_grpc_healthcheck_service"
    server = start(*flags)
    with ThreadPoolExecutor() as pool:
        for each in [pool.submit(_watch, f"unix:{server.socket_path}", 300) for _ in range(3)]:
            each.result()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _watch_deaf(path: Path) -> socket.socket:
    """Watch over HTTP/2, and let no byte of an answer come through: the window of every stream is 0."""
    headers = {":method": "POST", ":scheme": "http", ":path": "/grpc.health.v1.Health/Watch", ":authority": "x"}
    headers |= {"te": "trailers", "content-type": "application/grpc"}
    texts = [text.encode() for pair in headers.items() for text in pair]
    head = b"".join((b"" if number % 2 else b"\0") + bytes([len(text)]) + text for number, text in enumerate(texts))
    window, acknowledged = _frame(4, 0, 0, struct.pack(">HI", 4, 0)), _frame(4, 1, 0, b"")
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(path))
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + window + acknowledged)
    connection.sendall(_frame(1, 4, 1, head) + _frame(0, 1, 1, bytes(5)))
    return connection


def _frames(connection: socket.socket) -> Iterator[int]:
    """Yield the kind of each frame that comes until the end, and answer pings, as clients do that live."""
    with contextlib.suppress(OSError), connection.makefile("rb") as file:
        while head := file.read(9):
            payload = file.read(int.from_bytes(head[:3]))
            if head[3:5] == b"\6\0":
                connection.sendall(_frame(6, 1, 0, payload))
            yield head[3]


def test_a_watcher_that_lets_no_answer_through(tmp_path: Path) -> None:
    """It takes no thread of the others, and does not hold up the end."""
    path = tmp_path / "health.sock"
    server = GrpcServer(_Slow(), GrpcOptions(socket_path=str(path), health=True, threads=1))
    server.start()
    stopping = threading.Thread(target=server.stop, args=(60,), daemon=True)
    with _watch_deaf(path) as deaf, grpc.insecure_channel(f"unix:{path}") as channel:
        frames = _frames(deaf)
        assert 1 in frames  # the head of an answer, whose body the server cannot send
        check = health_pb2_grpc.HealthStub(channel).Check
        assert check(health_pb2.HealthCheckRequest(), timeout=20).status == health_pb2.HealthCheckResponse.SERVING
        assert check(health_pb2.HealthCheckRequest(), timeout=20).status == health_pb2.HealthCheckResponse.SERVING
        stopping.start()
        assert list(frames)
        stopping.join(20)
        assert not stopping.is_alive()


def test_a_door_without_a_thread_to_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request waits for one, and the door goes on: gRPC's own thread has not ended with it."""
    path, start, refused = tmp_path / "grpc.sock", threading.Thread.start, threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("grpc_") and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    handlers = _Slow()
    handlers.release.set()
    server = GrpcServer(handlers, GrpcOptions(socket_path=str(path), threads=2))
    server.start()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        first = predict.future(predict_request("one", {}), timeout=20)
        assert refused.wait(20)
        predict(predict_request("two", {}), timeout=20)
        first.result()
    server.stop(0)


def test_outputs_as_content(start: Start, models: Path) -> None:
    """--enable_serialization_as_tensor_content sends raw bytes."""
    server = start(
        "--model_name=half_plus",
        f"--model_base_path={models / 'half_plus'}",
        "--enable_serialization_as_tensor_content",
        "--grpc_channel_arguments=grpc.max_concurrent_streams=7,grpc.primary_user_agent=x",
        "--grpc_max_threads=1",
    )
    response = server.prediction.Predict(predict_request("half_plus", X))
    assert response.outputs["y"].tensor_content == np.float32(3.5).tobytes()
    assert not response.outputs["y"].float_val
    assert arrays(response)["y"].tolist() == [[3.5]]


class _Slow(Handlers):
    """Answers when it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.release = threading.Event()

    def predict(
        self, request: predict_pb2.PredictRequest, deadline: float | None, *, as_content: bool = False
    ) -> predict_pb2.PredictResponse:
        self.asked.append(request.model_spec.name)
        assert self.release.wait(30)
        return predict_pb2.PredictResponse()


class _Doorman:
    """Lets every call in, and notes its key when it comes, before it waits for a thread."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def check(self, headers: Mapping[str, str]) -> None:
        self.seen.append(headers["x-api-key"])


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[_Slow, _Doorman, Any]]:
    """A door with one thread, who saw the calls come, and a stub of it."""
    handlers, doorman, path = _Slow(), _Doorman(), tmp_path / "slow.sock"
    server = GrpcServer(handlers, GrpcOptions(socket_path=str(path), threads=1, keys=doorman))
    server.start()
    channel = grpc.insecure_channel(f"unix:{path}")
    try:
        yield handlers, doorman, prediction_service_pb2_grpc.PredictionServiceStub(channel)
    finally:
        handlers.release.set()
        channel.close()
        server.stop(5)


def test_a_call_that_waited_too_long_is_never_run(slow: tuple[_Slow, _Doorman, Any]) -> None:
    """A call whose deadline passes while it waits for a thread, or whose client goes away, is not run later."""
    handlers, doorman, stub = slow

    def ask(name: str, timeout: float = 60) -> Any:
        return stub.Predict.future(predict_request(name, X), timeout=timeout, metadata=(("x-api-key", name),))

    first = ask("first")
    until(lambda: handlers.asked)
    late = ask("late", timeout=0.1)
    gone = ask("gone")
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: "gone" in doorman.seen)
    gone.cancel()
    with contextlib.suppress(grpc.FutureCancelledError):
        gone.exception()
    last = ask("last")
    until(lambda: "last" in doorman.seen)  # and so, on the same connection, that the one before it has gone
    handlers.release.set()
    first.result()
    last.result()
    assert handlers.asked == ["first", "last"]
