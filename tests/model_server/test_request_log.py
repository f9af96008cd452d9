"""Logs of requests: from the model config to files that warm a model up."""

import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from google.protobuf.message import EncodeError

from cortex.model_server.config import LoggingConfig, ModelConfig
from cortex.model_server.request import Recorder
from cortex.model_server.request_log import RequestLog, RequestLogOptions
from cortex.model_server.status import Code, StatusError
from cortex.protos import classification_pb2, predict_pb2, prediction_log_pb2
from cortex.tfrecord import read_records
from tests.model_server.harness import Server, Start, predict_request
from tests.waiting import until

X = {"x": np.ones((1, 1), np.float32)}


class _Counts(Recorder):
    def __init__(self) -> None:
        self.codes: list[Code] = []

    def logged(self, model: str, code: Code) -> None:
        self.codes.append(code)


def _models(prefix: Path, rate: float = 1.0) -> list[ModelConfig]:
    return [ModelConfig("m", Path("/m"), logging=LoggingConfig(str(prefix), rate))]


def _records(directory: Path) -> list[list[prediction_log_pb2.PredictionLog]]:
    """Return the records of every file, in the order of the files' names."""
    files = sorted(directory.glob("*.tfrecord"))
    return [[prediction_log_pb2.PredictionLog.FromString(data) for data in read_records(file)] for file in files]


def _add(
    log: RequestLog, model: str = "m", answer: Callable[[], Any] = predict_pb2.PredictResponse, held: int = 0
) -> None:
    log.add(model, predict_request(model, X), answer, lambda: held)


def test_requests_and_answers_are_written(tmp_path: Path) -> None:
    """A record holds the request, the response, and when and how it was sampled; other models are not logged."""
    log = RequestLog()
    log.check(_models(tmp_path / "logs" / "m"))
    log.configure(_models(tmp_path / "logs" / "m"))
    response = predict_pb2.PredictResponse()
    response.model_spec.version.value = 7
    _add(log, answer=lambda: response)
    log.add("m", classification_pb2.ClassificationRequest(), classification_pb2.ClassificationResponse, lambda: 0)
    _add(log, "other")
    log.close()
    ((first, second),) = _records(tmp_path / "logs")
    assert first.predict_log.request == predict_request("m", X)
    assert first.predict_log.response.model_spec.version.value == 7
    assert first.log_metadata.model_spec.version.value == 7
    assert first.log_metadata.sampling_config.sampling_rate == 1.0
    assert first.log_metadata.timestamp_secs > 1_600_000_000
    assert second.HasField("classify_log")


def test_a_file_that_is_full_is_followed_by_another(tmp_path: Path) -> None:
    """A file ends at its size, and at a thousand records, which is what a warm-up file may hold."""
    log = RequestLog(options=RequestLogOptions(max_file_bytes=300, max_queue_records=5000))
    log.configure(_models(tmp_path / "m"))
    for _ in range(10):
        _add(log)
    log.close()
    files = _records(tmp_path)
    assert sum(map(len, files)) == 10
    assert len(files) > 2
    assert all(file.stat().st_size <= 300 for file in tmp_path.iterdir())
    log = RequestLog(options=RequestLogOptions(max_queue_records=5000))
    log.configure(_models(tmp_path / "many" / "m"))
    log.check(_models(tmp_path / "many" / "m"))
    for _ in range(1001):
        _add(log)
    log.close()
    assert [len(file) for file in _records(tmp_path / "many")] == [1000, 1]


def test_the_oldest_files_give_way(tmp_path: Path) -> None:
    """All files of a log stay within their limit, those of an earlier run included; no other file is touched."""
    limits = RequestLogOptions(max_file_bytes=300, max_total_bytes=900)
    others = ["m-b-20200101T000000-1-00001.tfrecord", "m-20200101T000000-1-00001.tfrecord.keep", "m"]
    for name in others:
        (tmp_path / name).write_bytes(b"x" * 500)
    earlier = tmp_path / "m-20200101T000000-1-00001.tfrecord"
    earlier.write_bytes(b"x" * 500)
    log = RequestLog(options=limits)
    log.configure(_models(tmp_path / "m"))
    for _ in range(10):
        _add(log)
    log.close()
    assert not earlier.exists()
    ours = [path for path in tmp_path.iterdir() if path.name not in others]
    assert len(ours) > 1
    assert sum(path.stat().st_size for path in ours) <= 900
    assert all((tmp_path / name).stat().st_size == 500 for name in others)


@pytest.mark.parametrize(
    ("limits", "held"),
    [({"max_queue_records": 2}, 0), ({"max_queue_bytes": 60}, 0), ({"max_queue_bytes": 3000}, 1000)],
)
def test_a_full_queue_drops_and_counts(tmp_path: Path, limits: dict[str, int], held: int) -> None:
    """A writer that is stuck keeps no request waiting: what does not fit, with its answer, is dropped, and counted."""
    counts, gate, started = _Counts(), threading.Event(), threading.Event()

    def stuck() -> predict_pb2.PredictResponse:
        started.set()
        assert gate.wait(30)
        return predict_pb2.PredictResponse()

    log = RequestLog(counts, RequestLogOptions(**limits))
    log.configure(_models(tmp_path / "m"))
    _add(log, answer=stuck)
    assert started.wait(30)
    for _ in range(5):
        _add(log, held=held)
    dropped = counts.codes.count(Code.RESOURCE_EXHAUSTED)
    assert 0 < dropped < 5
    gate.set()
    log.close()
    assert counts.codes.count(Code.OK) == 6 - dropped
    assert sum(map(len, _records(tmp_path))) == 6 - dropped


def test_a_record_too_large_for_protobuf_costs_no_other(tmp_path: Path) -> None:
    """What protobuf does not write is counted, and the next record is written."""

    def too_large() -> predict_pb2.PredictResponse:
        raise EncodeError("Failed to serialize proto")  # its answer to more than 2 GiB

    counts = _Counts()
    log = RequestLog(counts)
    log.configure(_models(tmp_path / "m"))
    _add(log, answer=too_large)
    _add(log)
    log.close()
    assert counts.codes == [Code.INTERNAL, Code.OK]
    assert sum(map(len, _records(tmp_path))) == 1


def test_a_log_that_is_used_no_more_is_closed(tmp_path: Path) -> None:
    """Whoever changes the prefix again and again, or ends logging, leaves no file open."""

    def held() -> int:
        return sum(Path(row.path).parent == tmp_path for row in psutil.Process().open_files())

    log = RequestLog()
    for number in range(5):
        log.configure(_models(tmp_path / f"m{number}"))
        _add(log)
    until(lambda: len(list(tmp_path.glob("m4-*"))) == 1 and held() == 1)
    log.configure([])
    until(lambda: held() == 0)
    log.close()
    assert [len(records) for records in _records(tmp_path)] == [1] * 5


def test_a_log_that_ends_and_begins_again_loses_nothing(tmp_path: Path) -> None:
    """Reloads may take a log away and give it back within the second that stands in the names of its files."""
    counts = _Counts()
    log = RequestLog(counts)
    for _ in range(5):
        log.configure(_models(tmp_path / "m"))
        _add(log)
        log.configure([])
    log.close()
    assert counts.codes == [Code.OK] * 5
    assert sum(map(len, _records(tmp_path))) == 5


def test_a_sample_is_a_share(tmp_path: Path) -> None:
    """sampling_rate is the share of requests that are logged."""
    log = RequestLog(options=RequestLogOptions(max_queue_records=5000))
    log.configure(_models(tmp_path / "m", rate=0.2))
    for _ in range(2000):
        _add(log)
    log.close()
    assert 250 < sum(map(len, _records(tmp_path))) < 550


def test_a_record_that_cannot_be_written_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that refuses costs records, not requests; the log says so once, and writing goes on when it can."""
    counts, log = _Counts(), None
    log = RequestLog(counts)
    log.configure(_models(tmp_path / "gone" / "m"))
    for _ in range(3):
        _add(log)
    until(lambda: len(counts.codes) == 3)
    assert counts.codes == [Code.UNAVAILABLE] * 3
    (tmp_path / "gone").mkdir()
    _add(log)
    log.close()
    assert counts.codes[3:] == [Code.OK]
    assert len(_records(tmp_path / "gone")) == 1
    assert 1 <= caplog.text.count("A request log cannot be written") <= 3


def test_a_directory_that_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    """A log that could never be written is an error of the config that asks for it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StatusError, match=r"Model m: logging_config: .*file/logs cannot be made"):
        RequestLog().check(_models(tmp_path / "file" / "logs" / "m"))


def _logging(path: Path, base: Path, logs: Path) -> str:
    """Write a config of the model `half_plus` that logs every request below a directory, and return the flag for it."""
    path.write_text(
        f'model_config_list {{ config {{ name: "half_plus" base_path: "{base}" logging_config {{\n'
        f'log_collector_config {{ type: "tfrecord" filename_prefix: "{logs / "m"}" }}\n'
        "sampling_config { sampling_rate: 1 } } } }"
    )
    return f"--model_config_file={path}"


def _logged(server: Server, code: str) -> float:
    return server.metric(f'cortex_request_log_records_total{{code="{code}",model_name="half_plus"}}')


def test_a_full_disk_costs_records_and_no_request(start: Start, models: Path, tmp_path: Path) -> None:
    """Requests are answered while nothing can be written; no half records and no empty files are left behind."""
    logs = tmp_path / "logs"
    server = start(_logging(tmp_path / "models.config", models / "half_plus", logs))
    full = 100_000  # no file of the process may be larger: the system refuses what is beyond, as on a full disk
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (full, hard))
    large = predict_request("half_plus", {"x": np.ones((full // 4, 1), np.float32)})

    for _ in range(3):
        assert len(server.prediction.Predict(large).outputs["y"].float_val) == full // 4
    until(lambda: _logged(server, "UNAVAILABLE") == 3)
    assert list(logs.iterdir()) == []
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    server.prediction.Predict(large)
    until(lambda: _logged(server, "OK") == 1)
    assert server.stop() == 0
    ((record,),) = _records(logs)
    assert record.predict_log.request == large


def test_files_that_are_taken_away_are_followed_by_others(start: Start, models: Path, tmp_path: Path) -> None:
    """What is written after a file was removed is in a new one, and without a directory for that it counts as lost."""
    logs = tmp_path / "logs"
    server = start(_logging(tmp_path / "models.config", models / "half_plus", logs))

    def ask(code: str, count: int) -> None:
        server.prediction.Predict(predict_request("half_plus", X))
        until(lambda: _logged(server, code) == count)

    ask("OK", 1)
    for file in logs.iterdir():
        file.unlink()
    ask("OK", 2)
    assert [len(records) for records in _records(logs)] == [1]
    shutil.rmtree(logs)
    ask("UNAVAILABLE", 1)
    assert "A request log cannot be written, records are lost" in server.log
    logs.mkdir()
    ask("OK", 3)


def test_a_log_warms_a_model_up(start: Start, models: Path, tmp_path: Path) -> None:
    """What a server has logged over both doors is the warm-up file of the next, and its answers have to match."""
    base = tmp_path / "base"
    shutil.copytree(models / "half_plus" / "1", base / "1")
    server = start(_logging(tmp_path / "models.config", base, tmp_path / "logs"))
    server.prediction.Predict(predict_request("half_plus", X))
    server.json("POST", "/v1/models/half_plus:predict", '{"instances": [[4], [6]]}')
    assert server.stop() == 0
    (log,) = (tmp_path / "logs").iterdir()
    (base / "1" / "assets.extra").mkdir()
    shutil.copy(log, base / "1" / "assets.extra" / "tf_serving_warmup_requests")
    server = start("--model_name=half_plus", f"--model_base_path={base}")
    assert "gives the 2 recorded answers" in server.log
    assert "Number of warmup records read: 2." in server.log
