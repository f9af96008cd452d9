"""Versions that end the process: reported, and not loaded for ever, while the others are served."""

import fcntl
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from cortex.model_server import crashes
from cortex.model_server.crashes import Crashed, Crashes
from tests.model_server.harness import Server, Start, arrays, config_file, predict_request
from tests.waiting import DEADLINE, until

X = {"x": np.ones((1, 1), np.float32)}
LIMIT = 2
TOO_OFTEN = "has ended the process 2 times in a row, while it was loaded or at its first request"

Serve = Callable[..., Server]


@pytest.fixture
def serve(start: Start, models: Path, tmp_path: Path) -> Serve:
    """Return a function that starts a server of the models `good` and `bad`; the engine aborts if told to."""
    for name in ("good", "bad"):
        shutil.copytree(models / "half_plus" / "2", tmp_path / name / "2")
    config = config_file(tmp_path / "models.config", {name: tmp_path / name for name in ("good", "bad")})
    config.write_text(
        config.read_text().replace("model_platform", 'version_labels { key: "l" value: 2 } model_platform')
    )
    flags = (f"--model_config_file={config}", "--engine=tensorflow", f"--max_num_crashes={LIMIT}")

    def started(*more: str) -> Server:
        return start(*flags, *more, ready=False, module="tests.model_server.aborting_server")

    return started


def _is_open(server: Server) -> bool:
    assert server.process.poll() is None, server.log
    return "Entering the event loop" in server.log


def _predict(server: Server, name: str) -> float:
    return float(arrays(server.prediction.Predict(predict_request(name, X), timeout=30))["y"].item())


def test_a_load_that_crashes_is_given_up(serve: Serve, tmp_path: Path) -> None:
    """After so many crashes the version ENDs with the reason, the other model is served, and mending it is enough."""
    (tmp_path / "bad" / "2" / "abort_on_load").touch()
    for _ in range(LIMIT):
        server = serve()
        assert server.process.wait(DEADLINE) < 0
        assert "Fatal Python error: Aborted" in server.log
    assert f"{tmp_path}/bad/2 ended the process 1 of 2 times in a row" in server.log
    server = serve()
    until(lambda: _is_open(server))
    assert _predict(server, "good") == 2.5
    (entry,) = server.json("GET", "/v1/models/bad")["model_version_status"]
    assert (entry["state"], entry["status"]["error_code"]) == ("END", "FAILED_PRECONDITION")
    error = entry["status"]["error_message"]
    assert f"{tmp_path}/bad/2 {TOO_OFTEN}" in error
    assert error in server.log
    assert server.http("GET", "/readyz")[0] == 503
    assert server.stop() == 0
    server = serve()  # an orderly stop changes nothing
    until(lambda: _is_open(server))
    assert TOO_OFTEN in server.log
    assert server.stop() == 0
    (tmp_path / "bad" / "2" / "abort_on_load").unlink()
    server = serve()
    until(server.is_ready)
    assert _predict(server, "bad") == 2.5
    assert server.stop() == 0
    assert list((tmp_path / "crashes").iterdir()) == []


def test_the_version_before_one_that_crashes_serves(serve: Serve, tmp_path: Path) -> None:
    """A new version that is given up does not take its model away: the start goes on with the one before it."""
    server = serve()
    until(server.is_ready)
    shutil.copytree(tmp_path / "bad" / "2", tmp_path / "new" / "3")
    (tmp_path / "new" / "3" / "abort_on_load").touch()
    (tmp_path / "new" / "3").rename(tmp_path / "bad" / "3")
    assert server.process.wait(DEADLINE) < 0  # it is found while the server runs, and ends it
    for _ in range(LIMIT - 1):
        assert serve().process.wait(DEADLINE) < 0
    server = serve()
    until(server.is_ready)
    assert _predict(server, "bad") == 2.5
    assert server.has_status("bad", 3, "END")
    assert server.has_status("bad", 2, "AVAILABLE")
    assert server.json("POST", "/v1/models/bad/labels/l:predict", '{"instances": [[1]]}') == {"predictions": [[2.5]]}


def test_a_first_request_that_crashes_counts(serve: Serve, tmp_path: Path) -> None:
    """A version that dies at its first request is given up too, until the file that the error names is removed."""
    (tmp_path / "bad" / "2" / "abort_on_run").touch()
    for _ in range(LIMIT):
        server = serve()
        until(server.is_ready)
        assert _predict(server, "good") == 2.5
        with pytest.raises(grpc.RpcError):
            _predict(server, "bad")
        assert server.process.wait(DEADLINE) < 0
    server = serve()
    until(lambda: _is_open(server))
    assert TOO_OFTEN in server.log
    assert _predict(server, "good") == 2.5
    server.process.kill()  # nothing was under way: this is no crash of a version
    server.process.wait(DEADLINE)
    (record,) = (tmp_path / "crashes").glob("*.json")
    assert str(record) in server.log
    record.unlink()
    until(serve().is_ready)


def test_a_process_that_is_told_to_end_has_not_crashed(serve: Serve, tmp_path: Path) -> None:
    """Once a signal has asked it to, its death counts for nothing, even in the middle of a first request."""
    (tmp_path / "bad" / "2" / "hang_on_run").touch()
    server = serve()
    until(server.is_ready)
    asked = server.prediction.Predict.future(predict_request("bad", X), timeout=30)
    records = tmp_path / "crashes"
    until(lambda: any('"under_way": true' in record.read_text() for record in records.iterdir()))
    server.process.send_signal(signal.SIGTERM)
    until(lambda: not list(records.iterdir()))
    assert not asked.done()
    server.process.kill()


def test_an_engine_that_does_not_end_is_left_behind(serve: Serve, tmp_path: Path) -> None:
    """The process waits a moment for engines to close in order, and ends in order without them."""
    (tmp_path / "bad" / "2" / "hang_on_close").touch()
    server = serve()
    until(server.is_ready)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(DEADLINE) == 0


def test_a_batch_that_does_not_end_is_left_behind(serve: Serve, tmp_path: Path) -> None:
    """A run whose request has long been given up does not keep the process from ending."""
    (tmp_path / "bad" / "2" / "hang_on_run").touch()
    server = serve("--enable_batching")
    until(server.is_ready)
    with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
        server.prediction.Predict(predict_request("bad", X), timeout=1)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(DEADLINE) == 0


def _version(tmp_path: Path) -> Path:
    version = tmp_path / "model" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"x")
    return version


def _crash(tmp_path: Path, version: Path, settings: str = "") -> None:
    """Load a version in a process of its own that dies meanwhile."""
    child = os.fork()
    if not child:
        with Crashes(tmp_path / "crashes", 1, settings).trial(version).watched(last=False):
            os._exit(9)
    assert os.waitpid(child, 0)[1] == 9 << 8


def _trial(tmp_path: Path, version: Path, settings: str = "") -> None:
    Crashes(tmp_path / "crashes", 1, settings).trial(version)


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
def test_what_is_another_case_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash counts for the same files and settings only, and not when the machine died; a broken record is none."""
    version = _version(tmp_path)
    _crash(tmp_path, version)
    with pytest.raises(Crashed):
        _trial(tmp_path, version)
    _trial(tmp_path, version, "another engine")
    (version / "saved_model.pb").write_bytes(b"another")
    _trial(tmp_path, version)
    for settings, damage in (
        ("a", b""),
        ("b", b"[1]"),
        ("c", b'{"artifact": 1, "crashes": "many"}'),
        ("e", b"[" * 60000),
    ):
        _crash(tmp_path, version, settings)
        newest = max((tmp_path / "crashes").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        newest.write_bytes(damage)
        _trial(tmp_path, version, settings)
    _crash(tmp_path, version, "d")
    monkeypatch.setattr(crashes, "_BOOT", tmp_path / "another_boot")
    _trial(tmp_path, version, "d")


def test_records_that_cannot_be_removed_are_no_errors(start: Start, models: Path, tmp_path: Path) -> None:
    """A directory that is lost under a server costs the records, and no request."""
    server = start("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}")
    shutil.rmtree(tmp_path / "crashes")
    (tmp_path / "crashes").touch()
    assert _predict(server, "half_plus") == 3.5


def test_two_servers_of_one_version(tmp_path: Path) -> None:
    """What another process is loading right now has not crashed; that process keeps the record."""
    version = _version(tmp_path)
    one, other = (Crashes(tmp_path / "crashes", 1, "") for _ in range(2))
    with one.trial(version).watched(last=False):
        with other.trial(version).watched(last=True):
            (record,) = (tmp_path / "crashes").iterdir()
            assert json.loads(record.read_text())["under_way"] is True
        assert record.exists()
    one.close()
    assert not record.exists()
    with one.trial(version).watched(last=False):
        assert not record.exists(), "a process that ends notes no more"


def test_a_record_that_is_removed_meanwhile_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Between opening and locking a record another server may remove it: a lock on nothing would keep nobody out."""
    version, lock = _version(tmp_path), fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        for record in (tmp_path / "crashes").iterdir():
            record.unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(crashes.fcntl, "flock", late)
    _trial(tmp_path, version)
    assert "will not be known at the next start" in caplog.text


def test_no_place_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the records would be does not depend on whether anything can be written there."""

    def fail() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    monkeypatch.setenv("TMPDIR", "/made/up")
    assert crashes.default_directory().parent == Path("/made/up")
    monkeypatch.delenv("TMPDIR")
    assert crashes.default_directory().parent == Path("/tmp")


def test_a_place_that_cannot_be_used_is_told_and_harmless(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that others may write to is not trusted, and the version is loaded all the same."""
    version = _version(tmp_path)
    (tmp_path / "crashes").mkdir()
    (tmp_path / "crashes").chmod(0o777)
    _trial(tmp_path, version)
    assert "is not a directory that only this user may write to" in caplog.text
    assert list((tmp_path / "crashes").iterdir()) == []
