"""What a running server is told: by signals, by files that change, and by clients that go away."""

import contextlib
import http.client
import json
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from cortex import line
from cortex.model_server.api_key import ApiKeys
from cortex.model_server.batching import Batcher
from cortex.model_server.batching_parameters import BatchingParameters
from cortex.model_server.reloading import Reloading
from cortex.protos import model_management_pb2
from tests.model_server.harness import Server, Start, arrays, config_file, free_port, predict_request
from tests.waiting import DEADLINE, until

X = {"x": np.ones((1, 1), np.float32)}
AN_HOUR = 3_600_000_000


def _batching_file(path: Path, micros: int) -> Path:
    path.write_text(f"max_batch_size {{ value: 64 }} batch_timeout_micros {{ value: {micros} }}")
    return path


def _ask(server: Server, model: str = "half_plus") -> float:
    return float(arrays(server.prediction.Predict(predict_request(model, X), timeout=60))["y"].item())


def test_sighup_reads_models_and_batching_again(start: Start, models: Path, tmp_path: Path) -> None:
    """SIGHUP applies what the files say now, to requests that wait too; a file that is bad changes nothing."""
    config = config_file(tmp_path / "models.config", {"half_plus": models / "half_plus"})
    batching = _batching_file(tmp_path / "batching.config", AN_HOUR)
    server = start(f"--model_config_file={config}", "--enable_batching", f"--batching_parameters_file={batching}")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_ask, server)
        until(lambda: server.in_flight("GRPC") == 1)
        config.write_text("model_config_list { config {")
        batching.write_text("max_batch_size { value: 0 }")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "The batching parameters stay as they were: INVALID_ARGUMENT: " in server.log)
        assert "PollFilesystemAndReloadConfig failed to ReloadConfig: INVALID_ARGUMENT" in server.log
        assert not waiting.done()
        config_file(config, {"half_plus": models / "half_plus", "softmax": models / "softmax"})
        _batching_file(batching, 0)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.has_status("softmax", 1, "AVAILABLE"))
        assert waiting.result(DEADLINE) == 3.5
    assert server.stop() == 0


def _reload_request(base_paths: Mapping[str, Path]) -> model_management_pb2.ReloadConfigRequest:
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    for name, base in base_paths.items():
        request.config.model_config_list.config.add(name=name, base_path=str(base), model_platform="tensorflow")
    return request


def test_a_reading_that_nobody_foresaw_to_fail_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is wrong with one file, the others are read, and all of them the next time."""
    read: list[str] = []

    class Keys(ApiKeys):
        def reload(self) -> None:
            read.append("keys")
            raise PermissionError("a directory that cannot be entered")

    class Parameters(Batcher):
        def reload(self) -> None:
            read.append("parameters")

    reloading = Reloading("", 0, lambda *_: None, Parameters(BatchingParameters()), Keys())
    reloading.start()
    for times in (1, 2):
        reloading.ask()
        until(lambda times=times: read == ["keys", "parameters"] * times)
    reloading.stop()
    assert "The API keys stay as they were\nTraceback" in caplog.text


def test_reloads_that_nobody_awaits_keep_no_thread(start: Start, models: Path, tmp_path: Path) -> None:
    """Clients that give up on a model without versions leave their threads to others, and the next reload its turn."""
    half_plus = models / "half_plus"
    server = start("--model_name=half_plus", f"--model_base_path={half_plus}", "--grpc_max_threads=2")
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        request = _reload_request({"half_plus": half_plus, f"empty{number}": tmp_path / str(number)})
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            server.model.HandleReloadConfigRequest(request, timeout=0.3)
    assert float(arrays(server.prediction.Predict(predict_request("half_plus", X), timeout=10))["y"].item()) == 3.5
    request = _reload_request({"half_plus": half_plus, "softmax": models / "softmax"})
    assert server.model.HandleReloadConfigRequest(request, timeout=30).status.error_code == 0


def test_a_model_comes_back_without_polls(start: Start, models: Path, tmp_path: Path) -> None:
    """Where nobody polls, a reload brings back a model that the one before it took away, and a request still held."""
    both = {"half_plus": models / "half_plus", "softmax": models / "softmax"}
    config = config_file(tmp_path / "models.config", both)
    batching = _batching_file(tmp_path / "batching.config", AN_HOUR)
    server = start(
        *(f"--model_config_file={config}", "--file_system_poll_wait_seconds=0"),
        *("--enable_batching", f"--batching_parameters_file={batching}"),
    )
    held = server.prediction.Predict.future(predict_request("half_plus", X))
    until(lambda: server.in_flight("GRPC") == 1)
    server.model.HandleReloadConfigRequest(_reload_request({"softmax": models / "softmax"}), timeout=30)
    assert server.has_status("half_plus", 2, "UNLOADING")
    back = server.model.HandleReloadConfigRequest.future(_reload_request(both), timeout=30)
    until(lambda: server.http("GET", "/readyz")[0] == 503)
    held.cancel()
    assert back.result().status.error_code == 0
    assert server.has_status("half_plus", 2, "AVAILABLE")


def test_a_version_is_loaded_once_there_are_threads_again(
    start: Start, models: Path, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    """A poll that finds a version while the system has no thread to spare is not the last one."""
    base = copied("half_plus")
    (base / "2").rename(tmp_path / "2")
    server = start("--model_name=half_plus", f"--model_base_path={base}")
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**21, before[1]))  # no stack fits
    (tmp_path / "2").rename(base / "2")
    until(lambda: "can't start new thread" in server.log)
    resource.prlimit(pid, resource.RLIMIT_AS, before)
    until(lambda: server.has_status("half_plus", 2, "AVAILABLE"))
    until(lambda: server.has_status("half_plus", 1, "END"))


@pytest.mark.parametrize("interval", [0, 1], ids=["SIGHUP", "poll"])
def test_a_file_that_is_mended_is_read(start: Start, models: Path, tmp_path: Path, interval: int) -> None:
    """A model without versions in the file keeps nobody from another file that has other models."""
    config = config_file(tmp_path / "models.config", {"half_plus": models / "half_plus"})
    server = start(f"--model_config_file={config}", f"--model_config_file_poll_wait_seconds={interval}")
    (tmp_path / "empty").mkdir()
    for base_paths in ({"empty": tmp_path / "empty"}, {"softmax": models / "softmax"}):
        config_file(config, base_paths)
        if not interval:
            server.process.send_signal(signal.SIGHUP)
        until(lambda: "No versions of servable empty" in server.log)
    until(lambda: server.has_status("softmax", 1, "AVAILABLE"))


def test_sigterm_ends_a_reload_that_waits(start: Start, models: Path, tmp_path: Path) -> None:
    """A reload that waits for a model without versions is answered at once, and does not use up the grace."""
    server = start("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}")
    (tmp_path / "empty").mkdir()
    call = server.model.HandleReloadConfigRequest.future(_reload_request({"empty": tmp_path / "empty"}))
    until(lambda: "No versions of servable empty found" in server.log)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(DEADLINE) == 0
    assert (call.code(), call.details()) == (grpc.StatusCode.UNAVAILABLE, "the server stops")


def test_a_client_that_goes_away_leaves_the_queue(start: Start, models: Path, tmp_path: Path) -> None:
    """A call that is cancelled, or a connection that is closed, frees its thread and its place, not after an hour."""
    batching = _batching_file(tmp_path / "batching.config", AN_HOUR)
    server = start(
        "--model_name=half_plus",
        f"--model_base_path={models / 'half_plus'}",
        "--enable_batching",
        f"--batching_parameters_file={batching}",
        "--rest_api_timeout_in_ms=600000",
    )
    left_out = 'cortex_batch_left_out_total{model_name="half_plus",reason="cancelled"}'
    call = server.prediction.Predict.future(predict_request("half_plus", X))
    until(lambda: server.in_flight("GRPC") == 1)
    call.cancel()
    until(lambda: server.in_flight("GRPC") == 0)
    assert server.metric(left_out) == 1
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)) as connection:
        connection.request("POST", "/v1/models/half_plus:predict", '{"instances": [[1]]}')
        until(lambda: server.in_flight("REST") == 1)
    until(lambda: server.in_flight("REST") == 0)
    assert server.metric(left_out) == 2
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(line.address(str(server.socket_path)))
        line.send_request(connection, predict_request("half_plus", X).SerializeToString(), 600.0)
        until(lambda: server.in_flight("LINE") == 1)
    until(lambda: server.in_flight("LINE") == 0)
    assert server.metric(left_out) == 3


def _vanish(server: Server, requests: int) -> None:
    """Ask several times on one connection, and close it without reading an answer."""
    body = b'{"instances": [[1]]}'
    head = b"POST /v1/models/half_plus:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as connection:
        connection.sendall((head + body) * requests)


def test_clients_that_vanish_are_no_errors(start: Start, models: Path) -> None:
    """Connections that end at any moment, with answers on their way, leave no traceback and nothing in flight."""
    server = start("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: _vanish(server, 1 + number % 6), range(120)))
    until(lambda: server.in_flight("REST") == 0)
    assert server.http("POST", "/v1/models/half_plus:predict", '{"instances": [[1]]}')[0] == 200
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_a_batch_may_wait_without_end(start: Start, models: Path, tmp_path: Path) -> None:
    """A wait longer than any clock counts is one for as long as it takes until the batch is full."""
    batching = tmp_path / "batching.config"
    batching.write_text(f"max_batch_size {{ value: 2 }} batch_timeout_micros {{ value: {2**63 - 1} }}")
    server = start(
        *("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}"),
        *("--enable_batching", f"--batching_parameters_file={batching}"),
    )
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(_ask, server)
        until(lambda: server.in_flight("GRPC") == 1)
        assert (_ask(server), first.result()) == (3.5, 3.5)
    assert "Traceback" not in server.log


def test_automatic_batching_needs_no_file(start: Start, models: Path) -> None:
    """--batching=auto answers a lone request and a crowd alike, and refuses none."""
    server = start("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}", "--batching=auto")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: _ask(server), range(40))) == [3.5] * 40
    assert server.metric('cortex_batch_requests_sum{model_name="half_plus"}') == 40


def test_automatic_batching_follows_its_file(start: Start, models: Path, tmp_path: Path) -> None:
    """A limit that is raised while the server runs counts from the next reading on: a crowd shares batches then."""
    batching = tmp_path / "batching.config"
    batching.write_text("max_batch_size { value: 1 }")
    server = start(
        *("--model_name=slow", f"--model_base_path={models / 'slow'}"),
        *("--batching=auto", f"--batching_parameters_file={batching}", "--batching_latency_bound_micros=60000000"),
    )
    batching.write_text("max_batch_size { value: 64 } num_batch_threads { value: 1 }")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "max_batch_size=64" in server.log)
    request = predict_request("slow", {"x": np.ones((1, 800), np.float32)})
    prediction = server.prediction
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: prediction.Predict(request, timeout=60), range(64)))
    batches = server.metric('cortex_batch_rows_count{model_name="slow"}')
    assert batches < server.metric('cortex_batch_requests_sum{model_name="slow"}') == 64


def test_a_version_brings_its_batching(start: Start, copied: Callable[[str], Path], tmp_path: Path) -> None:
    """With per-model parameters a version's own file decides; other versions of the same server run alone."""
    base = copied("half_plus")
    (base / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "half_plus" base_path: "{base}"\n'
        "model_version_policy { all {} } } }"
    )
    server = start(f"--model_config_file={config}", "--enable_batching", "--enable_per_model_batching_parameters")
    body = json.dumps({"instances": [[1], [1], [1]]})
    status, text, _ = server.http("POST", "/v1/models/half_plus/versions/1:predict", body)
    assert (status, json.loads(text)) == (400, {"error": "Task size 3 is larger than maximum input batch size 2"})
    assert server.http("POST", "/v1/models/half_plus/versions/2:predict", body)[0] == 200


def test_rest_on_grpcs_port_is_skipped(start: Start, models: Path) -> None:
    """One port cannot be both: gRPC keeps it, and the log says why REST is not there."""
    port = free_port()
    base = f"--model_base_path={models / 'half_plus'}"
    server = start("--model_name=half_plus", base, f"--port={port}", f"--rest_api_port={port}", ready=False)
    until(lambda: "Entering the event loop" in server.log)
    assert "server_options.http_port cannot be same as grpc_port" in server.log
    assert "Exporting HTTP/REST API" not in server.log
    assert _ask(server) == 3.5


def test_deadlines_count_in_the_queue(start: Start, models: Path, tmp_path: Path) -> None:
    """A request whose time is up while it waits for a batch is told so, in TF Serving's words."""
    batching = _batching_file(tmp_path / "batching.config", AN_HOUR)
    server = start(
        "--model_name=half_plus",
        f"--model_base_path={models / 'half_plus'}",
        "--enable_batching",
        f"--batching_parameters_file={batching}",
        "--rest_api_timeout_in_ms=300",
    )
    status, text, _ = server.http("POST", "/v1/models/half_plus:predict", '{"instances": [[1]]}')
    assert status == 504
    words = ("Run() timeout exceeded while waiting in batching queue", "Timed out waiting for notification")
    assert json.loads(text)["error"] in words  # the queue and the door watch the same moment: either may be first
    with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
        server.prediction.Predict(predict_request("half_plus", X), timeout=0.3)
    label = 'cortex_batch_left_out_total{model_name="half_plus",reason="timeout"}'
    until(lambda: server.metric(label) + server.metric(label.replace("timeout", "cancelled")) == 2)
