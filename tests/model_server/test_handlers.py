"""What the handlers promise when versions come and go while they answer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cortex.model_server import codec, routes
from cortex.model_server.config import ModelConfig, SpecificVersions
from cortex.model_server.crashes import Trial
from cortex.model_server.disconnect import Disconnect
from cortex.model_server.handlers import Handlers
from cortex.model_server.lifecycle import State
from cortex.model_server.repository import Repository, RepositoryOptions
from cortex.model_server.request import Recorder
from cortex.model_server.servable import Servable
from cortex.protos import meta_graph_pb2, types_pb2
from tests.model_server.harness import poll


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
        poll(lambda: (2, State.AVAILABLE, None) in repository.statuses("m"))
        return decoded

    def ask() -> bytes:
        request = routes.Request("POST", "/v1/models/m:predict", b'{"instances": [1]}', "application/json", 1000)
        return routes.dispatch(Handlers(repository), request, None, Recorder(), Disconnect()).body

    try:
        repository.start([first], lambda: False)
        monkeypatch.setattr(codec, "decode", decode_slowly)
        assert json.loads(ask()) == {"predictions": [1.0]}
        assert b"1.0" not in ask()  # by now the second version answers, in int32
    finally:
        repository.close()
