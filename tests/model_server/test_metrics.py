"""The pages of metrics, as a scraper sees them."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cortex import metrics_files
from cortex.model_server import tf_serving_metrics
from cortex.model_server.metrics import Metrics
from cortex.model_server.request import ENCODE, EXECUTE, QUEUE, Recorder, Recorders, Request, current, watch
from cortex.model_server.status import Code, StatusError
from cortex.model_server.tf_serving_metrics import TFServingMetrics
from cortex.protos import model_management_pb2
from tests.model_server.harness import Server, Start, predict_request, recorded, starter, write_records
from tests.waiting import until

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
X = {"x": np.ones((3, 1), np.float32)}


def _values(page: str) -> dict[str, float]:
    """Return every sample of a page by its name and labels, as printed."""
    lines = [line for line in page.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest.fixture(scope="module")
def watched(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with batching and TF Serving's page that has answered: 2 good, 2 bad over gRPC; 1 of each over REST."""
    directory, started = tmp_path_factory.mktemp("metrics"), []  # type: tuple[Path, list[Server]]
    monitoring = directory / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }')
    batching = directory / "batching.config"
    batching.write_text(
        "max_batch_size { value: 4 } allowed_batch_sizes: 4 num_batch_threads { value: 1 }"
        'thread_pool_name { value: "pool" }'
    )
    try:
        server = starter(directory, started)(
            "--model_name=half_plus",
            f"--model_base_path={models / 'half_plus'}",
            f"--monitoring_config_file={monitoring}",
            "--enable_batching",
            f"--batching_parameters_file={batching}",
        )
        for _ in range(2):
            server.prediction.Predict(predict_request("half_plus", X))
        with pytest.raises(grpc.RpcError):
            server.prediction.Predict(predict_request("made_up", X))
        with pytest.raises(grpc.RpcError):
            server.prediction.Predict(predict_request("half_plus", X, signature_name="made_up"))
        server.json("POST", "/v1/models/half_plus:predict", '{"instances": [[1]]}')
        assert server.http("POST", "/v1/models/half_plus:predict", '{"instances": ["one"]}')[0] == 400
        until(lambda: 'door="REST"} 0' in server.http("GET", "/metrics")[1])
        yield server
    finally:
        for each in started:
            each.stop()


def test_our_page(watched: Server) -> None:
    """Counts, stages and batches, by model, version, signature, method and code; made-up names are not labels."""
    status, page, headers = watched.http("GET", "/metrics")
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
    assert "made_up" not in page
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    who = ("2", "half_plus", "serving_default")
    assert values["cortex_model_requests_total", *sorted((*who, "Predict", "GRPC", "OK"))] == 2
    assert values["cortex_model_requests_total", *sorted((*who, "predict", "REST", "OK"))] == 1
    assert values["cortex_model_requests_total", *sorted(("", "", "", "Predict", "GRPC", "NOT_FOUND"))] == 1
    bad = ("half_plus", "2", "")
    assert values["cortex_model_requests_total", *sorted((*bad, "Predict", "GRPC", "FAILED_PRECONDITION"))] == 1
    assert values["cortex_model_requests_total", *sorted((*bad, "predict", "REST", "INVALID_ARGUMENT"))] == 1
    for stage, count in {"decode": 5, "queue": 3, "execute": 3, "encode": 3}.items():
        assert values["cortex_model_stage_seconds_count", *sorted(("half_plus", "2", stage))] == count
    assert values["cortex_batch_rows_sum", "half_plus"] == 12
    assert values["cortex_batch_padding_rows_total", "half_plus"] == 5
    assert values["cortex_model_load_seconds_count", "OK"] == 1
    assert values["process_resident_memory_bytes",] > 10e6


def test_tf_servings_page(watched: Server) -> None:
    """The page is where the monitoring file says, with TF Serving's names and labels, types, and no help."""
    status, page, headers = watched.http("GET", "/monitoring/prometheus/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain")
    assert "# HELP" not in page
    assert "# TYPE :tensorflow:serving:request_count counter\n" in page
    assert "# TYPE :tensorflow:serving:request_example_count_total counter\n" in page
    values = _values(page)
    serving = ":tensorflow:serving:"
    assert values[f'{serving}request_count{{model_name="half_plus",status="OK"}}'] == 3
    assert values[f'{serving}request_count{{model_name="",status="NOT_FOUND"}}'] == 1
    assert values[f'{serving}request_count{{model_name="half_plus",status="FAILED_PRECONDITION"}}'] == 1
    assert values[f'{serving}request_count{{model_name="half_plus",status="INVALID_ARGUMENT"}}'] == 1
    latency = f'{serving}request_latency_count{{model_name="half_plus",API='
    assert values[f'{latency}"Predict",entrypoint="GRPC"}}'] == 2
    assert values[f'{latency}"predict",entrypoint="REST"}}'] == 1
    assert values[f'{serving}runtime_latency_count{{model_name="half_plus",API="Predict",runtime="TF1"}}'] == 2
    assert values[f'{serving}batching_session:queuing_latency_count{{thread_pool_name="pool"}}'] == 3
    assert values[f"{serving}batching_session:wrapped_run_count{{}}"] == 3
    assert values[f'{serving}batching_session:padding_size_sum{{execution_batch_size="4"}}'] == 5
    assert values[f"{serving}batching_session:input_batch_size_sum{{}}"] == 7
    assert values[f"{serving}batching_session:processed_batch_size_sum{{}}"] == 12
    core = ":tensorflow:core:"
    assert values[f"{core}graph_runs{{}}"] == values[f"{core}graph_run_time_usecs_histogram_count{{}}"] == 3
    assert values[f"{core}graph_run_time_usecs{{}}"] == values[f"{core}graph_run_time_usecs_histogram_sum{{}}"] > 0
    assert values[f"{core}graph_run_input_tensor_bytes_sum{{}}"] == 3 * 4 * 4  # runs, rows with padding, float32
    assert values[f"{core}graph_run_output_tensor_bytes_sum{{}}"] == 3 * 4 * 4
    loads = [name for name in values if name.startswith(":tensorflow:cc:saved_model:load_attempt_count")]
    assert len(loads) == 1
    assert loads[0].endswith('half_plus/2",status="success"}')


def test_warm_up_is_counted(start: Start, copied: Callable[[str], Path], tmp_path: Path) -> None:
    """Records read, by the path of the model, and their runs; strings count by their bytes. The log has both lines."""
    base = copied("half_plus")
    write_records(base / "2", [recorded(predict_request("half_plus", X))] * 2)
    monitoring = tmp_path / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    server = start("--model_name=half_plus", f"--model_base_path={base}", f"--monitoring_config_file={monitoring}")
    for said in ("Starting to read warmup data for model at", "Finished reading warmup data for model at"):
        assert f"{said} {base / '2'}/assets.extra/tf_serving_warmup_requests" in server.log
    values = _values(server.http("GET", tf_serving_metrics.DEFAULT_PATH)[1])
    assert values[f':tensorflow:serving:model_warmup_records_read{{model_path="{base / "2"}"}}'] == 2
    assert values[f':tensorflow:serving:model_warmup_latency_count{{model_path="{base / "2"}",status="OK"}}'] == 1
    assert values[":tensorflow:core:graph_runs{}"] == 2
    metrics = TFServingMetrics()
    metrics.ran({"x": np.array([[b"abc", b""]], np.object_)}, {}, 0.5)
    assert _values(metrics.page())[":tensorflow:core:graph_run_input_tensor_bytes_sum{}"] == 3


def test_a_reload_tells_what_it_counted(start: Start, copied: Callable[[str], Path], tmp_path: Path) -> None:
    """HandleReloadConfigRequest answers by how much each counter asked for has grown; what is not counted has not."""
    base, runs, unknown = copied("half_plus"), "/tensorflow/core/graph_runs", "/tensorflow/unknown"
    write_records(base / "2", [recorded(predict_request("half_plus", X))] * 2)
    monitoring = tmp_path / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    server = start("--model_name=half_plus", f"--model_base_path={base}", f"--monitoring_config_file={monitoring}")
    request = model_management_pb2.ReloadConfigRequest(metric_names=[runs, unknown])
    for name in ("half_plus", "again"):
        request.config.model_config_list.config.add(name=name, base_path=str(base))
    response = server.model.HandleReloadConfigRequest(request)
    assert {each.name: each.int64_value_increase for each in response.metric} == {runs: 2, unknown: 0}


def test_buckets_are_tf_servings() -> None:
    """33 bounds from 10 us on, each 1.8 times the last, printed with six digits."""
    metrics = TFServingMetrics()
    with watch(metrics, "GRPC", "Predict") as request:
        request.answered_by("m", 1, "s")
    bounds = re.findall(r'request_latency_bucket{[^}]*le="([^"]+)"', metrics.page())
    assert (len(bounds), bounds[:5], bounds[-1]) == (34, ["10", "18", "32.4", "58.32", "104.976"], "+Inf")


def test_classify_counts_examples() -> None:
    """Requests of Examples are counted with how many they carry; other methods, and failures, are not."""
    metrics = TFServingMetrics()
    with watch(metrics, "GRPC", "Classify") as request:
        request.answered_by("m", 1)
        request.examples = 3
    with watch(metrics, "GRPC", "GetModelStatus"):
        pass
    values = _values(metrics.page())
    assert values[':tensorflow:serving:request_example_count_total{model="m"}'] == 3
    assert values[':tensorflow:serving:request_example_counts_bucket{model="m",le="2"}'] == 0
    assert sum(value for name, value in values.items() if "request_count{" in name) == 1


def test_time_is_counted_once() -> None:
    """A stage inside another takes its time from it; what nobody watches costs nothing and is lost."""
    with watch(Recorders(()), "GRPC", "Predict") as request, request.stage(EXECUTE):
        current().spent(QUEUE, 1000.0)
        with request.stage(ENCODE):
            pass
    assert request.stages[QUEUE] == 1000.0
    assert 0 <= request.stages[EXECUTE] < 1
    assert set(request.stages) == {QUEUE, EXECUTE, ENCODE}
    current().spent(QUEUE, 1.0)
    assert current().stages == {}


def test_a_request_that_fails_is_counted_by_its_code() -> None:
    """The code is that of the error; anything untyped is INTERNAL. Nothing stays in flight."""
    metrics = Metrics()
    for error in (StatusError(Code.UNAVAILABLE, "full"), ZeroDivisionError()):
        with pytest.raises(type(error)), watch(metrics, "GRPC", "Predict"):
            raise error
    values = _values(metrics.page())
    codes = {name: value for name, value in values.items() if name.startswith("cortex_model_requests_total")}
    assert [re.findall('code="([A-Z]+)"', name) for name in codes] == [["UNAVAILABLE"], ["INTERNAL"]]
    assert values['cortex_model_requests_in_flight{door="GRPC"}'] == 0


def test_what_cannot_be_counted_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    """A recorder that fails, as one whose file cannot be written does, costs its own count, and one line of log."""

    class Failing(Recorder):
        def began(self, request: Request) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def ended(self, request: Request, code: Code) -> None:
            raise IndexError("mmap slice assignment is wrong size")

    metrics = Metrics()
    recorders = Recorders((Failing(), metrics))
    for _ in range(2):
        with watch(recorders, "GRPC", "Predict"):
            pass
    assert _values(metrics.page())['cortex_model_requests_in_flight{door="GRPC"}'] == 0
    assert sum(value for name, value in _values(metrics.page()).items() if "requests_total" in name) == 2
    assert [record.getMessage() for record in caplog.records] == ["Some metrics cannot be counted from here on"]


def test_shared_files_have_their_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bytes are there before they are used: a page of a sparse file on a full disk would be the end."""
    directory = tmp_path / "shared"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(directory))
    assert metrics_files.open_directory() == directory
    gauge = directory / f"gauge_livesum_{os.getpid()}.db"
    gauge.write_bytes(b"left by a process of the same number")
    assert metrics_files.open_directory() == directory
    files = list(directory.iterdir())
    assert len(files) == 3
    for file in files:
        assert file.stat().st_blocks * 512 >= file.stat().st_size > 0
    assert not gauge.read_bytes().strip(b"\0")


def test_a_full_disk_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is no room for the files, nothing will look for them, and no other process finds half of one."""

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert metrics_files.open_directory() is None
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    assert "No space left on device" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ""),
        ("prometheus_config {}", ""),
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ('prometheus_config { enable: true, path: "/m" }', "/m"),
    ],
)
def test_monitoring_file(tmp_path: Path, text: str, path: str) -> None:
    """The file is TF Serving's MonitoringConfig; without enable there is no page."""
    (tmp_path / "monitoring.config").write_text(text)
    assert tf_serving_metrics.read_path(tmp_path / "monitoring.config") == path


@pytest.mark.parametrize("text", ["prometheus_config { on: true }", 'prometheus_config { enable: true path: "m" }'])
def test_a_bad_monitoring_file_is_named(tmp_path: Path, text: str) -> None:
    """What cannot be used is INVALID_ARGUMENT with the file's name."""
    (tmp_path / "monitoring.config").write_text(text)
    with pytest.raises(StatusError, match=r"monitoring\.config"):
        tf_serving_metrics.read_path(tmp_path / "monitoring.config")


def test_without_a_monitoring_file_there_is_only_our_page(start: Start, models: Path) -> None:
    """TF Serving's path is a plain 404, as there; a shared directory that is none takes nothing from our page."""
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": os.devnull}
    server = start("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}", env=env)
    assert "PROMETHEUS_MULTIPROC_DIR cannot be used" in server.log
    assert server.http("GET", "/monitoring/prometheus/metrics")[0] == 404
    server.prediction.Predict(predict_request("half_plus", X))
    status, page, _ = server.http("GET", "/metrics")
    assert status == 200
    assert _values(page)['cortex_model_load_seconds_count{code="OK"}'] == 1


def _names(*pages: Any) -> set[str]:
    return {line.split()[2] for page in pages for line in page.page().splitlines() if line.startswith("# TYPE")}


def test_every_name_is_documented() -> None:
    """docs/metrics.md lists the names of both pages of the model server, and no others."""
    _, _, chapter = DOCS.read_text().partition("\n## The model server\n")
    documented = set(re.findall(r"^\| `([a-z_:]+)", chapter, re.MULTILINE))
    process = {name for name in _names(Metrics()) if name.startswith("process_")}
    assert documented == _names(Metrics(), TFServingMetrics()) - process


def test_who_has_no_rest_port_pays_for_no_metrics() -> None:
    """A server without REST, as `cortex deploy` starts it, loads neither a web server nor Prometheus' library."""
    script = (
        "import json, sys; from cortex.model_server import server, flags\n"
        "server.ModelServer(flags.parse(['--port=0', '--model_base_path=/m', '--enable_batching']).flags)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert not {"prometheus_client", "uvicorn", "starlette", "fastapi", "tensorflow"} & set(json.loads(done.stdout))
