"""What keeps a revision from being prepared is told by file, line and field, before anything is started."""

from pathlib import Path

import pytest

from cortex.environments import devices
from cortex.environments.devices import Device, Found
from cortex.environments.local.environment import LocalEnvironment
from cortex.environments.model_cache import ModelCache
from cortex.environments.preparation import device_notices, prepare
from cortex.environments.state import Home
from cortex.errors import UserError
from cortex.spec.config import Config, read

ONNX = b"\x08\x0a\x12\x07pytorch"
NO_GPU = Found(problem="no NVIDIA GPU: nvidia-smi failed: driver/library version mismatch (exit code 18)")


def project(root: Path, predictor: str = "", compute: str = "") -> Config:
    """Write an API with an ONNX model, and read its yaml."""
    (root / "models/m/1").mkdir(parents=True)
    (root / "models/m/1/model.onnx").write_bytes(ONNX)
    (root / "predictor.py").write_text("class TensorFlowPredictor: ...")
    text = "- name: a\n  predictor:\n    type: tensorflow\n    path: predictor.py\n    model_path: models/m\n"
    (root / "cortex.yaml").write_text(f"{text}    {predictor}\n  compute: {{{compute}}}\n")
    return read(root / "cortex.yaml")


@pytest.mark.parametrize(
    ("key", "value", "reads"),
    [
        ("engine", "tensorflow", "SavedModel"),
        ("engine", "tflite", "TF Lite"),
        ("model_server", "tensorflow_model_server", "SavedModel"),
    ],
)
def test_a_model_that_the_chosen_engine_does_not_read(key: str, value: str, reads: str, tmp_path: Path) -> None:
    """One sentence: where, which version, what it is, what would be read, and which key says so."""
    config = project(tmp_path, f"{key}: {value}")
    [result] = LocalEnvironment(tmp_path / "home", {}).deploy(config, force=False, progress=lambda line: None)
    assert result.error == (
        f"{config.path}:5: a: predictor.model_path: models/m: version 1: ONNX is not what {value} reads ({reads}); "
        f"change predictor.{key}"
    )


@pytest.mark.parametrize(
    ("found", "asked", "notice"),
    [
        (NO_GPU, 1, f"a will run without gpu access: {NO_GPU.problem}"),
        (Found((Device("0"),)), 2, "a asks for 2 gpus, and this machine has 1"),
        (Found((Device("0"),)), 1, None),
    ],
)
def test_gpus_that_are_missing_are_a_notice(
    found: Found, asked: int, notice: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API runs without them, and its owner is told why."""
    monkeypatch.setattr(devices, "nvidia", lambda: found)
    config, home = project(tmp_path, compute=f"gpu: {asked}"), Home(tmp_path / "home")
    prepared = prepare(
        config,
        config.apis[0],
        home,
        ModelCache(home.model_cache),
        lambda line: None,
        notices=device_notices(config.apis[0]),
    )
    assert prepared.notices == ((notice,) if notice else ())


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (
            Found(problem="no AWS Inferentia device: none"),
            "inf compute resources cannot be used locally: no AWS Inferentia device: none; deploy this target on an",
        ),
        (Found((Device("0", cores=2),)), "1 means 4 NeuronCores, and this machine has 2"),
    ],
)
def test_inferentia_that_is_missing_is_an_error(
    found: Found, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model for NeuronCores runs nowhere else; what was looked for is told, and what to do."""
    monkeypatch.setattr(devices, "neuron", lambda: found)
    config = project(tmp_path, compute="inf: 1")
    [result] = LocalEnvironment(tmp_path / "home", {}).deploy(config, force=False, progress=lambda line: None)
    assert result.error.startswith(f"{config.path}:7: a: compute.inf: {problem}")


def test_the_local_environment_takes_no_settings_but_its_fronts(tmp_path: Path) -> None:
    """A setting of another environment is refused, with those that there are."""
    with pytest.raises(UserError, match=r"the local environment has no setting 'context' \(there are: tls_port, "):
        LocalEnvironment(tmp_path, {"context": "x"})
