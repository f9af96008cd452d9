"""A model that this project has never seen, with a predictor by its own user: Cortex's rules, none of our code."""

import shutil
from pathlib import Path

import pytest

from tests.e2e.deployment import Cortex, post

pytestmark = pytest.mark.e2e

PREDICTOR = """
class TensorFlowPredictor:
    def __init__(self, tensorflow_client, config):
        self.client = tensorflow_client
        self.config = config

    def predict(self, payload, query_params):
        if query_params.get("as") == "numpy":
            arrays = self.client.predict_numpy(payload)
            return {name: arrays[name].tolist() for name in ("sum", "pairs", "rounded")}
        if query_params.get("as") == "signature":
            return self.client.input_signatures
        return self.client.predict(payload)
"""
YAML_018 = """
- name: foreign
  predictor:
    type: tensorflow
    path: predictor.py
    model_path: models/foreign
    signature_key: serving_default
    threads_per_process: 2
  compute:
    cpu: 1
"""
YAML_022 = """
- name: foreign
  kind: RealtimeAPI
  predictor:
    type: tensorflow
    path: predictor.py
    models:
      paths:
        - name: one
          model_path: models/foreign
        - name: two
          model_path: models/foreign
"""
MULTI = """
class TensorFlowPredictor:
    def __init__(self, tensorflow_client, config):
        self.client = tensorflow_client

    def predict(self, payload):
        return self.client.predict(payload["input"], payload.get("model"))
"""


@pytest.fixture
def project(tmp_path: Path, models: Path) -> Path:
    shutil.copytree(models / "foreign", tmp_path / "models/foreign")
    (tmp_path / "predictor.py").write_text(PREDICTOR)
    return tmp_path


@pytest.fixture
def endpoint(cortex: Cortex, project: Path) -> str:
    (project / "cortex.yaml").write_text(YAML_018)
    cortex("deploy", cwd=project)
    return str(cortex.get("foreign")["endpoint"])


def test_two_inputs_four_outputs(endpoint: str) -> None:
    """Lists come back flat, int64 as strings, strings as base64, whatever the shapes were."""
    answer = post(endpoint, {"x": [1.6, -2.0], "y": [0.5, 7.0]})
    assert answer.json() == {
        "sum": [2.1, 5.0],
        "pairs": [1.6, 0.5, -2.0, 7.0],
        "rounded": ["2", "-2"],
        "words": ["MQ==", "LTI="],
    }


def test_the_rank_of_an_input_may_be_off(endpoint: str) -> None:
    """Cortex's own iris example sends bare scalars to inputs of rank 1."""
    assert post(endpoint, {"x": 1.0, "y": 2.0}).json()["sum"] == [3.0]


def test_arrays_keep_their_shape(endpoint: str) -> None:
    """`predict_numpy` answers with what the model gave."""
    answer = post(f"{endpoint}?as=numpy", {"x": [1.0, 2.0], "y": [3.0, 4.0]}).json()
    assert answer == {"sum": [4.0, 6.0], "pairs": [[1.0, 3.0], [2.0, 4.0]], "rounded": [1, 2]}


def test_the_signature_is_known(endpoint: str) -> None:
    """`input_signatures` has Cortex's shape."""
    expected = {"x": {"shape": [-1], "type": "float64"}, "y": {"shape": [-1], "type": "float64"}}
    assert post(f"{endpoint}?as=signature", {}).json() == {"_cortex_default": expected}


def test_a_missing_input_is_the_callers_500(cortex: Cortex, endpoint: str) -> None:
    """The body is Cortex's; the cause is in the log, under the id that the response carries."""
    answer = post(endpoint, {"x": [1.0]}, headers={"x-request-id": "where-is-y"})
    assert (answer.status_code, answer.text) == (500, "internal server error")
    assert answer.headers["x-request-id"] == "where-is-y"
    shown = cortex("logs", "foreign", "--no-follow")
    assert "where-is-y" in shown
    assert "missing key 'y' for model '_cortex_default'" in shown


def test_several_models_by_name(cortex: Cortex, project: Path) -> None:
    """The dialect of 0.22, with models that are chosen per request."""
    (project / "cortex.yaml").write_text(YAML_022)
    (project / "predictor.py").write_text(MULTI)
    cortex("deploy", cwd=project)
    endpoint = str(cortex.get("foreign")["endpoint"])
    values = {"x": [1.0], "y": [2.0]}
    for name in ("one", "two"):
        assert post(endpoint, {"input": values, "model": name}).json()["sum"] == [3.0]
    assert post(endpoint, {"input": values}).status_code == 500
    assert "model_name was not specified, choose one of the following: ['one', 'two']" in cortex(
        "logs", "foreign", "--no-follow"
    )
