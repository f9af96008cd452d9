"""What the handlers promise when versions come and go while they answer."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortex.model_server import codec, routes
from cortex.model_server.config import LoggingConfig, ModelConfig, SpecificVersions
from cortex.model_server.crashes import Trial
from cortex.model_server.handlers import Handlers
from cortex.model_server.lifecycle import State
from cortex.model_server.repository import Repository, RepositoryOptions
from cortex.model_server.request import Recorder
from cortex.model_server.request_log import RequestLog
from cortex.model_server.servable import Servable
from cortex.model_server.status import StatusError
from cortex.protos import meta_graph_pb2, types_pb2
from cortex.tfrecord import read_records
from tests.model_server.harness import predict_request
from tests.waiting import until


class _Engine:
    """Answer ``y = x``; the first version takes float32, the second int32."""

    def __init__(self, version: int) -> None:
        dtype = types_pb2.DT_FLOAT if version == 1 else types_pb2.DT_INT32
        signature = meta_graph_pb2.SignatureDef()
        signature.inputs["x"].dtype = signature.outputs["y"].dtype = dtype
        self.signatures = {"serving_default": signature}

    def run(
        self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str], deadline: float | None = None
    ) -> dict[str, Any]:
        return {"y": inputs["x"]}

    def close(self) -> None:
        pass


def _load(name: str, version: int, directory: Path) -> Servable:
    return Servable(name, version, _Engine(version), None, Recorder(), Trial())  # type: ignore[arg-type]


def test_what_a_request_is_decoded_for_answers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that takes another dtype comes while JSON is being read: the one that it is read for answers."""
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
    first, second = (ModelConfig("m", tmp_path, SpecificVersions(frozenset({number}))) for number in (1, 2))
    repository = Repository(_load, RepositoryOptions(poll_interval=0))
    decode = codec.decode

    def decode_slowly(*arguments: Any) -> Any:
        decoded = decode(*arguments)
        repository.reload([second])
        until(lambda: (2, State.AVAILABLE, None) in repository.statuses("m"))
        return decoded

    def ask() -> bytes:
        request = routes.Request("POST", "/v1/models/m:predict", b'{"instances": [1]}', "application/json", 1000)
        return routes.dispatch(Handlers(repository), request, None, Recorder(), Future()).body

    try:
        repository.start([first], lambda: False)
        monkeypatch.setattr(codec, "decode", decode_slowly)
        assert json.loads(ask()) == {"predictions": [1.0]}
        assert b"1.0" not in ask()  # by now the second version answers, in int32
    finally:
        repository.close()


def test_a_reload_whose_new_model_fails_logs_as_it_asks(tmp_path: Path) -> None:
    """The new list counts for what serves, whatever becomes of the models that are new to it; so do its logs."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    model = ModelConfig("m", tmp_path / "m")
    repository, log = Repository(_load, RepositoryOptions(poll_interval=0)), RequestLog()
    handlers = Handlers(repository, log=log)
    try:
        repository.start([model], lambda: False)
        logged = replace(model, logging=LoggingConfig(str(tmp_path / "logs" / "m"), 1.0))
        with pytest.raises(StatusError, match="CANCELLED"):
            handlers.apply([logged, ModelConfig("never", tmp_path / "never")], lambda: True)
        handlers.predict(predict_request("m", {"x": np.ones(1, np.float32)}), None)
    finally:
        repository.close()
        log.close()
    assert [len(list(read_records(file))) for file in (tmp_path / "logs").iterdir()] == [1]
