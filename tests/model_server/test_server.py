"""The process from start to stop, started as a user starts it."""

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cortex.protos import model_management_pb2, prediction_service_pb2_grpc
from tests.model_server.harness import (
    Server,
    Start,
    arrays,
    config_file,
    free_port,
    predict_request,
    recorded,
    write_records,
)
from tests.waiting import DEADLINE, until

X = {"x": np.ones((1, 1), np.float32)}
Copied = Callable[[str], Path]


def _y(stub: Any, timeout: float | None = None, **spec: Any) -> float:
    response = stub.Predict(predict_request("half_plus", X, **spec), timeout=timeout)
    return float(arrays(response)["y"].item())


def _main(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cortex.model_server", "--max_num_load_retries=0", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _refusal(*flags: str) -> str:
    """Start a server that must not start, and return what it says on stdout."""
    done = _main(*flags)
    assert done.returncode == 255, done.stdout + done.stderr
    assert done.stdout.startswith("Failed to start server. Error: "), done.stdout
    return done.stdout


def test_models_that_load_at_once_do_not_wait_for_each_other(start: Start, engine_models: Path, tmp_path: Path) -> None:
    """A server whose first models load on several threads comes up, and ends when it is told to, every time.

    OpenVINO's first steps in a process run Python inside a lock of their own; two threads there stopped all others.
    """
    names = {f"model_{number}": engine_models / "ir" for number in range(8)}
    flags = (f"--model_config_file={config_file(tmp_path / 'models.config', names)}", "--num_load_threads=8")
    for _ in range(2):
        server = start(*flags, module="tests.model_server.switching_server")
        assert server.stop() == 0


def test_an_openvino_server_never_loads_tensorflow(start: Start, models: Path) -> None:
    """auto takes OpenVINO where it can; then no part of TensorFlow is mapped into the process."""
    server = start("--model_name=two_inputs", f"--model_base_path={models / 'two_inputs'}")
    assert "runs with engine=openvino" in server.log
    sent = {"zeta": np.ones((1, 4), np.float32), "alpha": np.ones((1, 3), np.float32)}
    assert server.prediction.Predict(predict_request("two_inputs", sent)).model_spec.version.value == 1
    assert "libtensorflow" not in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_what_people_grep_for(start: Start, models: Path) -> None:
    """The log has TF Serving's lines, and what really runs."""
    port = free_port()
    server = start(
        "--model_name=half_plus",
        f"--model_base_path={models / 'half_plus'}",
        f"--port={port}",
        "--inference_threads=1",
        "--precision=fp32",
        "--num_unload_threads=3",
        "--no_such_flag=1",
    )
    until(lambda: "Entering the event loop ..." in server.log)  # the doors are open a moment before
    for line in (
        "unknown argument: --no_such_flag=1",
        "These flags are accepted and have no effect here: num_unload_threads",
        "Loading servable version {name: half_plus version: 2}",
        "Successfully loaded servable version {name: half_plus version: 2}",
        "{name: half_plus version: 2} runs with engine=openvino precision=fp32 threads=1",
        "No warmup data file found at ",
        f"Running gRPC ModelServer at 0.0.0.0:{port} ...",
        f"Running gRPC ModelServer at unix:{server.socket_path} ...",
        f"Exporting HTTP/REST API at:localhost:{server.rest_port} ...",
        "Entering the event loop ...",
    ):
        assert line in server.log, server.log
    tcp = prediction_service_pb2_grpc.PredictionServiceStub(server.channel(f"127.0.0.1:{port}"))
    assert _y(server.prediction) == _y(tcp) == 3.5


def test_auto_falls_back_to_tensorflow(start: Start, models: Path) -> None:
    """What OpenVINO would answer wrong, TensorFlow runs; the log says why in one line."""
    server = start("--model_name=mixed", f"--model_base_path={models / 'mixed'}")
    assert "runs with engine=tensorflow" in server.log
    assert server.log.count("OpenVINO has no exact ") == 1
    body = '{"instances": [{"word": "cat", "number": 4294967296}]}'
    assert server.json("POST", "/v1/models/mixed:predict", body)["predictions"][0]["next"] == 2**32 + 1


def test_openvino_refuses_what_it_would_answer_wrong(models: Path) -> None:
    """Asked for by name, OpenVINO refuses such a model in one clear line."""
    text = _refusal("--engine=openvino", f"--model_base_path={models / 'mixed'}")
    assert "1 servable(s) did not become available: {{{name: default version: 1} due to error: " in text
    assert "OpenVINO has no exact " in text


def test_a_corrupt_model_is_refused(copied: Copied) -> None:
    """A saved_model.pb that is none ends the start, with its path."""
    base = copied("two_inputs")
    (base / "1" / "saved_model.pb").write_bytes(b"\xff" * 100)
    text = _refusal(f"--model_base_path={base}")
    assert f"due to error: INVALID_ARGUMENT: Can't parse {base}/1/saved_model.pb as a SavedModel" in text


def test_missing_variables_are_refused_by_every_engine(copied: Copied) -> None:
    """A model whose variables are gone is refused, with what each engine said."""
    base = copied("two_inputs")
    shutil.rmtree(base / "1" / "variables")
    text = _refusal(f"--model_base_path={base}")
    assert "openvino bf16: " in text or "openvino fp32: " in text
    assert "tensorflow fp32: TensorFlow cannot load the model: " in text


SAMPLE = {"input": np.random.default_rng(1).normal(size=(2, 128)).astype(np.float32)}


def _record_softmax(start: Start, models: Path, base: Path, factor: float) -> None:
    """Record the answers of the model itself, in fp32, times a factor."""
    server = start("--model_name=m", f"--model_base_path={models / 'softmax'}", "--precision=fp32")
    answers = arrays(server.prediction.Predict(predict_request("m", SAMPLE)))
    assert server.stop() == 0
    answers = {name: array * np.float32(factor) for name, array in answers.items()}
    write_records(base / "1", [recorded(predict_request("m", SAMPLE)), recorded(predict_request("m", SAMPLE), answers)])


def test_a_model_proves_itself(start: Start, models: Path, copied: Copied) -> None:
    """Answers recorded in fp32 are given in whatever precision auto takes, and the log says so."""
    base = copied("softmax")
    _record_softmax(start, models, base, 1.0)
    server = start("--model_name=m", f"--model_base_path={base}")
    assert "gives the 1 recorded answers" in server.log
    assert "Number of warmup records read: 2." in server.log


def test_a_model_whose_answers_differ_does_not_go_live(start: Start, models: Path, copied: Copied) -> None:
    """A recorded answer out of tolerance ends the start, and names the record, the output and the largest error."""
    base = copied("softmax")
    _record_softmax(start, models, base, 1.5)
    text = _refusal("--engine=openvino", f"--model_base_path={base}")
    assert "due to error: FAILED_PRECONDITION: openvino " in text
    assert "warmup record 2 of " in text
    assert "output 'output' is out of tolerance: largest error " in text


def test_a_version_that_is_still_copied_is_tried_again(start: Start, copied: Copied, tmp_path: Path) -> None:
    """Recorded answers are not the last word on files that change meanwhile: here the card with the tolerance comes."""
    base = copied("slow")
    shutil.copytree(base / "1", tmp_path / "2")
    x = np.ones((300, 800), np.float32)
    right, off = (recorded(predict_request("slow", {"x": x}), {"y": x * factor}) for factor in (1, np.float32(1.05)))
    write_records(tmp_path / "2", [right, right, right, off])
    server = start(
        *("--model_name=slow", f"--model_base_path={base}", "--precision=fp32", "--engine=openvino"),
        *("--max_num_load_retries=1", "--load_retry_interval_micros=100000"),
    )
    (tmp_path / "2").rename(base / "2")
    records = tmp_path / "crashes"
    until(lambda: any('"under_way": true' in record.read_text() for record in records.iterdir()))  # the load has begun
    (base / "2" / "assets.extra" / "model_card.json").write_text('{"tolerance": {"rtol": 0.1}}')
    until(lambda: server.has_status("slow", 2, "AVAILABLE") or server.has_status("slow", 2, "END"))
    assert server.has_status("slow", 2, "AVAILABLE")


def test_a_model_without_versions_is_waited_for(start: Start, models: Path, tmp_path: Path) -> None:
    """The server waits, and says what it waits for; the ports open once a version has come."""
    base = tmp_path / "base"
    base.mkdir()
    server = start("--model_name=half_plus", f"--model_base_path={base}", ready=False)
    until(lambda: "Did you forget to name your leaf directory as a number (eg. '/1/')?" in server.log)
    assert not server.is_ready()
    shutil.copytree(models / "half_plus" / "1", base / "1")
    until(server.is_ready)
    assert _y(server.prediction) == 2.5


def test_a_server_that_waits_can_be_stopped(start: Start, tmp_path: Path) -> None:
    """SIGTERM before the models are loaded ends the process with 0."""
    server = start(f"--model_base_path={tmp_path / 'nowhere'}", ready=False)
    until(lambda: "Could not find base path" in server.log)
    assert server.stop() == 0


def test_a_new_version_goes_live_without_a_lost_request(start: Start, models: Path, tmp_path: Path) -> None:
    """While clients ask, version 2 appears, answers, and version 1 ends; no request fails."""
    base = tmp_path / "base"
    shutil.copytree(models / "half_plus" / "1", base / "1")
    server = start("--model_name=half_plus", f"--model_base_path={base}")
    stub, stop = server.prediction, threading.Event()

    def ask() -> list[float]:
        seen = []
        while not stop.is_set():
            seen.append(_y(stub, timeout=20))
        return seen

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(ask) for _ in range(2)]
        try:
            shutil.copytree(models / "half_plus" / "2", tmp_path / "2")
            (tmp_path / "2").rename(base / "2")
            until(lambda: server.has_status("half_plus", 2, "AVAILABLE") and server.has_status("half_plus", 1, "END"))
        finally:
            stop.set()
        seen = [client.result() for client in clients]
    assert all(each == sorted(each) for each in seen)
    assert {y for each in seen for y in each} == {2.5, 3.5}


def test_a_new_version_that_fails_leaves_the_old_one(start: Start, models: Path, tmp_path: Path) -> None:
    """A corrupt new version is told in the status; the old one serves on."""
    base = tmp_path / "base"
    shutil.copytree(models / "half_plus" / "1", base / "1")
    server = start("--model_name=half_plus", f"--model_base_path={base}")
    (base / "2").mkdir()
    until(lambda: server.has_status("half_plus", 2, "END"))
    status = server.json("GET", "/v1/models/half_plus/versions/2")["model_version_status"][0]["status"]
    assert status["error_code"] == "NOT_FOUND"
    assert "Could not find SavedModel" in status["error_message"]
    assert _y(server.prediction) == 2.5


def test_models_are_reloaded_over_grpc_and_from_the_file(start: Start, models: Path, tmp_path: Path) -> None:
    """HandleReloadConfigRequest and a changed config file replace the models, their versions and labels."""
    config = config_file(tmp_path / "models.config", {"half_plus": models / "half_plus"})
    server = start(
        f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1", "--file_system_poll_wait_seconds=1"
    )
    assert _y(server.prediction) == 3.5
    config.write_text(
        f'model_config_list {{ config {{ name: "half_plus" base_path: "{models / "half_plus"}"\n'
        "model_version_policy { all {} } } }"
    )
    until(lambda: server.has_status("half_plus", 1, "AVAILABLE"))
    request = model_management_pb2.ReloadConfigRequest()
    for name in ("half_plus", "two_inputs"):
        entry = request.config.model_config_list.config.add(name=name, base_path=str(models / name))
        entry.model_version_policy.all.SetInParent()
    request.config.model_config_list.config[0].version_labels["old"] = 1
    assert server.model.HandleReloadConfigRequest(request).status.error_code == 0
    assert server.has_status("two_inputs", 1, "AVAILABLE")
    assert (_y(server.prediction, version_label="old"), _y(server.prediction)) == (2.5, 3.5)
    path = "/v1/models/half_plus/labels/old:predict"
    assert server.json("POST", path, '{"instances": [[1]]}') == {"predictions": [[2.5]]}
    request.config.model_config_list.config[0].version_labels["next"] = 7
    with pytest.raises(grpc.RpcError, match="which is not currently available for inference") as caught:
        server.model.HandleReloadConfigRequest(request)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    config.write_text("model_config_list { config {")
    until(lambda: "PollFilesystemAndReloadConfig failed to ReloadConfig: INVALID_ARGUMENT" in server.log)
    assert _y(server.prediction) == 3.5


def _batching_file(path: Path, size: int, micros: int) -> Path:
    path.write_text(
        f"max_batch_size {{ value: {size} }} batch_timeout_micros {{ value: {micros} }}\n"
        "num_batch_threads { value: 1 } max_enqueued_batches { value: 100 }"
    )
    return path


def test_batching_joins_requests(start: Start, models: Path, tmp_path: Path) -> None:
    """With an hour to wait, only requests that fill a batch together are answered."""
    file = _batching_file(tmp_path / "batching.config", 4, 3_600_000_000)
    server = start(
        "--model_name=half_plus",
        f"--model_base_path={models / 'half_plus'}",
        "--enable_batching",
        f"--batching_parameters_file={file}",
        "--grpc_max_threads=8",
    )
    stub = server.prediction
    with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
        _y(stub, timeout=0.3)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: _y(stub, timeout=30), range(4))) == [3.5] * 4


def test_sigterm_answers_what_is_in_flight(start: Start, models: Path, tmp_path: Path) -> None:
    """Requests that wait for a batch when SIGTERM comes are answered over both doors; new ones are refused; exit 0."""
    file = _batching_file(tmp_path / "batching.config", 64, 3_600_000_000)
    server = start(
        "--model_name=half_plus",
        f"--model_base_path={models / 'half_plus'}",
        "--enable_batching=true",
        f"--batching_parameters_file={file}",
    )
    stub = server.prediction
    with ThreadPoolExecutor(4) as pool:
        over_grpc = [pool.submit(_y, stub, timeout=20) for _ in range(2)]
        path = "/v1/models/half_plus:predict"
        over_rest = [pool.submit(server.json, "POST", path, '{"instances": [[1]]}') for _ in range(2)]
        until(lambda: server.in_flight("GRPC") == server.in_flight("REST") == 2)
        server.process.send_signal(signal.SIGTERM)
        assert [each.result() for each in over_grpc] == [3.5, 3.5]
        assert [each.result() for each in over_rest] == [{"predictions": [[3.5]]}] * 2
    assert server.process.wait(DEADLINE) == 0
    with pytest.raises(OSError, match="refused"):
        server.http("GET", "/healthz")


def test_a_killed_server_can_be_started_again_in_its_place(start: Start, models: Path) -> None:
    """What kill -9 leaves behind, the socket file, is no obstacle to the next one."""
    flags = ("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}")
    first = start(*flags)
    first.process.kill()
    first.process.wait()
    assert first.socket_path.exists()
    second = start(*flags, f"--grpc_socket_path={first.socket_path}")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(second.channel(f"unix:{first.socket_path}"))
    assert _y(stub) == 3.5


def test_limits_of_a_request(start: Start, models: Path, tmp_path: Path) -> None:
    """A limit on bodies, and a timeout that is shorter than the run."""
    names = ("half_plus", "slow")
    config = config_file(tmp_path / "models.config", {name: models / name for name in names})
    server = start(
        f"--model_config_file={config}",
        "--rest_api_max_body_bytes=20000000",
        "--rest_api_timeout_in_ms=300",
    )
    path = "/v1/models/half_plus:predict"
    assert server.http("POST", path, gzip.compress(b" " * 30_000_000), {"Content-Encoding": "gzip"})[0] == 413
    with contextlib.suppress(ConnectionError):  # it may answer before it has read all of it
        assert server.http("POST", path, b" " * 30_000_000)[0] == 413
    rows = json.dumps({"inputs": [[1.0] * 800] * 3000})
    status, text, _ = server.http("POST", "/v1/models/slow:predict", rows)
    assert (status, json.loads(text)) == (504, {"error": "Timed out waiting for notification"})
    until(lambda: server.http("POST", path, '{"instances": [[1]]}')[0] == 200)  # 300 ms are little on a busy machine


def test_readiness_is_told_to_the_supervisor(start: Start, models: Path, tmp_path: Path) -> None:
    """READY=1 goes to NOTIFY_SOCKET once the ports are open; a failed start sends its reason."""
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(address))
        receiver.settimeout(30)
        env = os.environ | {"NOTIFY_SOCKET": str(address)}
        server = start(f"--model_base_path={models / 'half_plus'}", env=env, ready=False)
        assert "READY=1" in receiver.recv(4096).decode()
        assert server.is_ready()
        start("--model_base_path=", env=env, ready=False)
        assert "STATUS=error: INVALID_ARGUMENT: Both server_options.model_base_path" in receiver.recv(4096).decode()


def test_a_port_in_use_is_named(models: Path) -> None:
    """Neither door shares a port with another process."""
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        base = f"--model_base_path={models / 'half_plus'}"
        assert f"cannot listen on 0.0.0.0:{port}; is it in use?" in _refusal(base, f"--port={port}")
        text = _refusal(base, "--port=0", f"--rest_api_port={port}")
        assert f"Failed to start HTTP Server at localhost:{port}: " in text


def test_a_socket_in_use_is_named(server: Server, models: Path) -> None:
    """A second server on a Unix socket takes neither it nor the line beside it from the first."""
    text = _refusal(f"--model_base_path={models / 'half_plus'}", "--port=0", f"--grpc_socket_path={server.socket_path}")
    assert f"unix:{server.socket_path} is in use" in text
    assert _y(server.prediction) == 3.5


def test_a_signal_to_reload_may_come_early(start: Start, models: Path) -> None:
    """SIGHUP while the server has yet to be imported does not end it."""
    server = start("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}", ready=False)
    status = Path(f"/proc/{server.process.pid}/status")
    until(lambda: int(re.search(r"SigIgn:\s*(\w+)", status.read_text())[1], 16) & 1)
    server.process.send_signal(signal.SIGHUP)
    until(server.is_ready)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (["--model_base_path=/m", "--port=0"], "server_options.grpc_port is not set"),
        (["--batching_parameters_file=/x"], "server_options.batching_parameters_file is set without setting"),
        (["--enable_batching", "--batching_parameters_file=/nowhere"], "Invalid protobuf file: '/nowhere'"),
        (["--batching=auto", "--batching_latency_bound_micros=0"], "--batching_latency_bound_micros must be positive"),
        (["--rest_api_port=1", "--monitoring_config_file=/nowhere"], "Invalid protobuf file: '/nowhere'"),
        (["--model_base_path=a/b"], "Expected model default to have an absolute path or URI; got base_path()=a/b"),
        (["--model_config_file=/nowhere"], "Failed to read ModelServerConfig file: /nowhere"),
        (["--ssl_config_file=/nowhere"], "Invalid protobuf file: '/nowhere'"),
        (["--use_alts_credentials"], "--use_alts_credentials is not supported"),
        (["--grpc_channel_arguments=a"], "--grpc_channel_arguments: 'a' is not of the form key=value"),
        (["--grpc_channel_arguments=a=9999999999"], "--grpc_channel_arguments: 'a=9999999999' takes more than 32 bits"),
        (["--model_base_path=/\udcff"], "The model's name and base path must be UTF-8"),
        (
            [f"--tensorflow_{kind}_parallelism=1" for kind in ("session", "intra_op", "inter_op")],
            "tensorflow_session_parallelism is set together with",
        ),
    ],
)
def test_flags_that_contradict_each_other(flags: list[str], text: str) -> None:
    """A server that cannot start says so on stdout, and exits with 255."""
    assert text in _refusal(*flags)


def test_a_bad_config_file_is_told_on_stderr_too(tmp_path: Path) -> None:
    """Where protobuf's own line stands: TF Serving's users look for it there."""
    config = tmp_path / "models.config"
    config.write_text("improper model config")
    done = _main("--port=0", f"--model_config_file={config}")
    assert done.returncode == 255
    assert f"Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: '{config}'" in done.stdout
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in done.stderr


def test_flags_that_cannot_be_read() -> None:
    """A value that cannot be read is told, with the usage, and exits with 255."""
    done = _main("--port=many")
    assert done.returncode == 255
    assert "--port must be of type int, not 'many'" in done.stdout
    assert "\t--rest_api_port=0\t" in done.stdout


def test_version() -> None:
    """--version prints the version and exits with 0."""
    done = _main("--version")
    assert (done.returncode, done.stdout[:20]) == (0, "Cortex ModelServer: ")
