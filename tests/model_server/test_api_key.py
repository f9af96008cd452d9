"""The optional API key, on both doors."""

import json
import signal
from pathlib import Path

import grpc
import numpy as np
import pytest

from cortex.model_server import api_key
from cortex.model_server.status import Code, StatusError
from tests.model_server.harness import Start, predict_request
from tests.waiting import until

X = {"x": np.ones((1, 1), np.float32)}
ROW = '{"instances": [[1]]}'
PATH = "/v1/models/half_plus:predict"


def test_both_doors_ask_for_the_key(start: Start, models: Path, tmp_path: Path) -> None:
    """With a key file, a request without one of its keys is 401 and UNAUTHENTICATED; the health pages need none."""
    keys = tmp_path / "keys"
    keys.write_text("# two keys, while one is replaced\nold-key\n\nnew-key\nschlüsselà\n", "utf-8")
    server = start(
        "--model_name=half_plus",
        f"--model_base_path={models / 'half_plus'}",
        f"--api_key_file={keys}",
        "--enable_grpc_healthcheck_service",
    )
    for headers in ({"Authorization": "Bearer old-key"}, {"authorization": "bearer new-key"}, {"X-Api-Key": "new-key"}):
        assert server.http("POST", PATH, ROW, headers)[0] == 200
        metadata = [(name.lower(), value) for name, value in headers.items()]
        assert server.prediction.Predict(predict_request("half_plus", X), metadata=metadata).outputs
    utf8 = "schlüsselà".encode().decode("latin-1")  # these bytes, as http.client is told of them
    assert server.http("POST", PATH, ROW, {"X-Api-Key": utf8})[0] == 200
    for headers in (
        {},
        {"X-Api-Key": "schlüsselà"},
        {"X-Api-Key": "new"},
        {"Authorization": "Basic new-key"},
        {"X-Api-Key": "n\xe9w-key"},
    ):
        status, text, answered = server.http("POST", PATH, ROW, headers)
        assert (status, answered["www-authenticate"]) == (401, "Bearer")
        assert json.loads(text)["error"].startswith("An API key is needed")
    for call in (server.prediction.Predict, server.model.GetModelStatus):
        with pytest.raises(grpc.RpcError) as caught:
            call(predict_request("half_plus", X), metadata=[("x-api-key", "nothing")])
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert server.http("GET", "/v1/models/half_plus")[0] == 401
    assert server.http("GET", "/metrics")[0] == 401
    assert server.http("GET", "/healthz")[0] == server.http("GET", "/readyz")[0] == 200
    assert server.http("OPTIONS", PATH, headers={"Origin": "https://example.org"})[0] == 200
    assert server.channel().unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"
    assert "old-key" not in server.log


def test_a_key_is_replaced_while_the_server_runs(start: Start, models: Path, tmp_path: Path) -> None:
    """On SIGHUP the file is read again; one without a key changes nothing, and so opens nothing."""
    keys = tmp_path / "keys"
    keys.write_text("old-key")
    server = start("--model_name=half_plus", f"--model_base_path={models / 'half_plus'}", f"--api_key_file={keys}")

    def answers(key: str) -> tuple[int, grpc.StatusCode]:
        asked = server.prediction.Predict.future(predict_request("half_plus", X), metadata=[("x-api-key", key)])
        return server.http("POST", PATH, ROW, {"X-Api-Key": key})[0], asked.code()

    welcome, refused = (200, grpc.StatusCode.OK), (401, grpc.StatusCode.UNAUTHENTICATED)
    assert (answers("old-key"), answers("new-key")) == (welcome, refused)
    keys.write_text("# nothing\n")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "The API keys stay as they were" in server.log)
    assert (answers("old-key"), answers("")) == (welcome, refused)
    keys.write_text("new-key")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: answers("new-key") == welcome)
    assert answers("old-key") == refused


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file the variable counts; without both the doors stand open."""
    monkeypatch.delenv(api_key.VARIABLE, raising=False)
    assert not api_key.read("")
    api_key.read("").check({})
    monkeypatch.setenv(api_key.VARIABLE, " secret\n")
    keys = api_key.read("")
    keys.check({"x-api-key": "secret"})
    assert "secret" not in repr(keys)
    with pytest.raises(StatusError) as caught:
        keys.check({"x-api-key": "Secret"})
    assert caught.value.code is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("content", "text"), [("", "holds no key"), ("# none\n", "holds no key"), (None, "cannot read")]
)
def test_a_file_without_keys_is_refused(tmp_path: Path, content: str | None, text: str) -> None:
    """A server that was meant to be closed never starts open."""
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StatusError, match=text):
        api_key.read(str(path))
