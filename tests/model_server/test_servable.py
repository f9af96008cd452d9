"""Which engine runs a model, and how a model proves itself, with engines of the tests."""

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cortex.model_server import servable
from cortex.model_server.batching import Batcher
from cortex.model_server.batching_parameters import BatchingParameters
from cortex.model_server.call import Call
from cortex.model_server.crashes import Trial
from cortex.model_server.engines.selection import ENGINES
from cortex.model_server.request import Recorder
from cortex.model_server.servable import LoadOptions, Servable
from cortex.model_server.status import Code, StatusError
from cortex.model_server.warmup import Mismatch
from cortex.protos import meta_graph_pb2
from tests.model_server.fake_engine import FakeOpenVINO, FakeTensorFlow
from tests.model_server.harness import predict_request, recorded, write_records


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in (FakeOpenVINO, FakeTensorFlow):
        monkeypatch.setitem(ENGINES, engine.name, f"tests.model_server.fake_engine:{engine.__name__}")
        monkeypatch.setattr(engine, "addends", {})
        monkeypatch.setattr(engine, "opened", [])


@pytest.fixture
def version(copied: Callable[[str], Path]) -> Path:
    return copied("half_plus") / "1"


def _record(version: Path, answer: float) -> None:
    request = predict_request("half_plus", {"x": np.ones((1, 1), np.float32)})
    write_records(version, [recorded(request), recorded(request, {"y": np.array([[answer]], np.float32)})])


def _load(version: Path, engine: str = "auto", precision: str = "auto") -> Servable:
    return servable.load("m", 1, version, LoadOptions(engine=engine, precision=precision))


def _running(loaded: Servable) -> str:
    return str(loaded.description)


@pytest.mark.parametrize(
    ("engine", "precision", "want"),
    [
        ("auto", "auto", "openvino precision=bf16"),
        ("auto", "fp32", "openvino precision=fp32"),
        ("auto", "bf16", "openvino precision=bf16"),
        ("openvino", "auto", "openvino precision=bf16"),
        ("tensorflow", "auto", "tensorflow precision=fp32"),
        ("tensorflow", "bf16", "tensorflow precision=bf16"),
    ],
)
def test_the_first_choice(version: Path, engine: str, precision: str, want: str) -> None:
    """auto is OpenVINO, in bf16 where the CPU has it; what is asked for by name is taken."""
    assert want in _running(_load(version, engine, precision))


def test_a_cpu_without_bf16_runs_fp32(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A precision that the machine lacks is passed over, unless it was asked for by name."""
    monkeypatch.setattr(FakeOpenVINO, "lacking", frozenset({"bf16"}))
    assert "openvino precision=fp32" in _running(_load(version))
    with pytest.raises(StatusError, match="openvino bf16: no bf16 here"):
        _load(version, "openvino", "bf16")


def test_auto_falls_back_and_says_why(
    version: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What OpenVINO refuses TensorFlow runs; the reason is one line of the log, told once."""
    caplog.set_level("INFO")
    monkeypatch.setattr(FakeOpenVINO, "refused", "it has strings")
    assert "tensorflow precision=fp32" in _running(_load(version))
    assert [record.message for record in caplog.records if "it has strings" in record.message] == [
        f"openvino bf16 does not run the SavedModel of {version}: it has strings"
    ]


def test_an_engine_asked_for_by_name_refuses(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no falling back from an engine that was asked for."""
    monkeypatch.setattr(FakeOpenVINO, "refused", "it has strings")
    with pytest.raises(StatusError, match="INVALID_ARGUMENT: openvino bf16: it has strings") as caught:
        _load(version, "openvino")
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_an_engine_that_is_not_installed_is_one_sentence(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing wheel is named, with the command that installs it."""
    monkeypatch.setitem(ENGINES, "openvino", "no_such_package.engine:Engine")
    with pytest.raises(StatusError, match=r"engine openvino is not installed .*: pip install openvino"):
        _load(version, "openvino")
    assert "tensorflow" in _running(_load(version))


def test_a_proven_model_says_so(version: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model that gives its recorded answers goes live, and the log says how many matched."""
    caplog.set_level("INFO")
    _record(version, 2.5)
    assert "openvino precision=bf16" in _running(_load(version))
    assert f"openvino bf16 gives the 1 recorded answers of {version}" in caplog.text


def test_a_precision_that_does_not_prove_itself_gives_way(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """auto takes the next precision, then the next engine; what was opened in vain is closed."""
    _record(version, 2.5)
    monkeypatch.setattr(FakeOpenVINO, "addends", {"bf16": 9.0})
    assert "openvino precision=fp32" in _running(_load(version))
    monkeypatch.setattr(FakeOpenVINO, "addends", {"bf16": 9.0, "fp32": 9.0})
    assert "tensorflow precision=fp32" in _running(_load(version))
    assert [engine.is_closed for engine in FakeOpenVINO.opened] == [True, False, True, True]


def test_a_model_that_nobody_gives_the_answers_of_is_not_loaded(version: Path) -> None:
    """When no engine gives the recorded answers, the load fails with what each one got."""
    _record(version, 7.0)
    with pytest.raises(Mismatch) as caught:
        _load(version)
    assert caught.value.code is Code.FAILED_PRECONDITION
    for attempt in ("openvino bf16", "openvino fp32", "tensorflow fp32"):
        assert f"{attempt}: warmup record 2 of {version}" in caught.value.message
    assert all(engine.is_closed for engine in FakeOpenVINO.opened + FakeTensorFlow.opened)


def test_a_request_that_cannot_be_replayed_fails_the_load(version: Path) -> None:
    """A recorded request that the model refuses fails the load, and names the record."""
    write_records(version, [recorded(predict_request("half_plus", {"nonsense": 1.0}))])
    with pytest.raises(StatusError, match=r"warmup record 1 of .* failed: input tensor alias not found"):
        _load(version)


def test_a_recorded_request_that_openvino_refuses_is_for_tensorflow(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto goes on to the engine that answers what is recorded, as TF Serving does; where none does, each says why."""
    _record(version, 2.5)
    monkeypatch.setattr(FakeOpenVINO, "unanswered", "not of that shape")
    assert "tensorflow precision=fp32" in _running(_load(version))
    assert [engine.is_closed for engine in FakeOpenVINO.opened] == [True]
    monkeypatch.setattr(FakeTensorFlow, "unanswered", "not of any shape")
    with pytest.raises(StatusError) as caught:
        _load(version)
    where = f"{version}/assets.extra/tf_serving_warmup_requests"
    assert str(caught.value) == (
        f"INVALID_ARGUMENT: openvino bf16: warmup record 1 of {where} failed: not of that shape; "
        f"tensorflow fp32: warmup record 1 of {where} failed: not of any shape"
    )


def test_warm_up_can_be_switched_off(version: Path) -> None:
    """Without warm-up nothing is compared."""
    _record(version, 7.0)
    servable.load("m", 1, version, LoadOptions(warm_up=False))


def test_random_weights_are_said(version: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model whose card says that its weights are random is warned of."""
    (version / "assets.extra").mkdir()
    card = version / "assets.extra" / "model_card.json"
    card.write_text(json.dumps({"source": "keras", "weights": {"kind": "random"}, "precision": "fp32"}))
    caplog.set_level("INFO")
    _load(version)
    assert "model card: source=keras weights=random precision=fp32" in caplog.text
    assert "has random weights: its predictions mean nothing" in caplog.text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "NOT_FOUND: Could not find SavedModel .pb or .pbtxt at supplied export directory path: "),
        (b"\xff\xff\xff", "INVALID_ARGUMENT: Can't parse "),
        (b"", "NOT_FOUND: Could not find meta graph def matching supplied tags: { serve }."),
    ],
)
def test_a_directory_that_is_no_saved_model(version: Path, content: bytes | None, text: str) -> None:
    """A missing, corrupt or empty saved_model.pb is told in TensorFlow's words."""
    (version / "saved_model.pb").unlink()
    if content is not None:
        (version / "saved_model.pb").write_bytes(content)
    with pytest.raises(StatusError) as caught:
        _load(version)
    assert str(caught.value).startswith(text)


def test_variables_that_cannot_be_looked_at(version: Path) -> None:
    """OpenVINO would end the process, and with it every other model."""
    shutil.rmtree(version / "variables")
    (version / "variables").symlink_to("variables")
    with pytest.raises(StatusError, match=r"NOT_FOUND: Could not read the SavedModel in .*variables\.index"):
        _load(version)


@pytest.mark.parametrize(("declared", "runs"), [(1, [1, 1]), (-1, [2])])
def test_a_signature_for_one_row_is_not_batched(declared: int, runs: list[int]) -> None:
    """What an export for one row declares keeps its requests apart, which it would refuse together."""
    signature = meta_graph_pb2.SignatureDef()
    for size in (declared, 1):
        signature.inputs["x"].tensor_shape.dim.add(size=size)
    seen: list[int] = []

    class _Engine:
        signatures: ClassVar[dict[str, Any]] = {"serving_default": signature}

        def run(self, name: str, inputs: Any, outputs: Any, deadline: float | None = None) -> dict[str, Any]:
            seen.append(len(inputs["x"]))
            return {"y": inputs["x"]}

    batcher = Batcher(BatchingParameters(max_batch_size=2, batch_timeout_micros=60_000_000))
    batcher.start()
    try:
        lane = batcher.lane("m", Path("/nowhere"))
        loaded = Servable("m", 1, _Engine(), lane, Recorder(), Trial())  # type: ignore[arg-type]
        call = Call("serving_default", {"x": np.ones((1, 1), np.float32)}, ("y",))
        with ThreadPoolExecutor(2) as pool:
            assert [each.shape for each in pool.map(lambda _: loaded.run(call, None)["y"], range(2))] == [(1, 1)] * 2
    finally:
        batcher.close()
    assert seen == runs


def test_an_answer_that_comes_too_late_is_none(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that does not let itself be broken off answers nobody: it counts as what the client is told."""
    loaded, answer = _load(version), FakeOpenVINO.run

    def late(*given: Any, **more: Any) -> Any:
        time.sleep(0.05)
        return answer(*given, **more)

    monkeypatch.setattr(FakeOpenVINO, "run", late)
    call = loaded.parse(predict_request("half_plus", {"x": np.ones((1, 1), np.float32)}))
    assert loaded.run(call, time.monotonic() + 10)["y"].shape == (1, 1)
    with pytest.raises(StatusError) as refused:
        loaded.run(call, time.monotonic() + 0.02)
    assert refused.value.code is Code.DEADLINE_EXCEEDED
