"""The images and what they are made from: in step with each other, and with the project itself."""

import re
import subprocess
from pathlib import Path

import pytest

import cortex
from cortex.environments.docker import images, packages
from cortex.environments.docker.compose import Images
from cortex.environments.docker.engine import Engine
from cortex.environments.docker.images import Shelf
from cortex.environments.project import Project
from cortex.errors import UserError
from cortex.spec import APISpec, Model, Predictor
from cortex.spec.config import read

ROOT = Path(__file__).parents[3]
_TENSORFLOW = Predictor(type="tensorflow", path="predictor.py", models=(Model(path="/models/iris"),))
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", re.MULTILINE)


def _pins(text: str) -> dict[str, str]:
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in _PIN.findall(text)}


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    """What the tests of this project ran with."""
    return _pins((ROOT / "requirements.txt").read_text())


@pytest.mark.parametrize("name", ["requirements-api.txt", "requirements-model-server.txt"])
def test_images_have_the_versions_that_were_tested(name: str, pinned: dict[str, str]) -> None:
    """Whatever both name is pinned alike, and every line is a pin."""
    text = (ROOT / "deploy" / name).read_text()
    found = _pins(text)
    assert len(found) == sum(1 for line in text.splitlines() if line and not line.startswith("#"))
    both = found.keys() & pinned.keys()
    assert {package: found[package] for package in both} == {package: pinned[package] for package in both}
    assert {"protobuf", "grpcio", "numpy", "uvicorn"} <= both


def test_what_the_images_share_is_the_same() -> None:
    api, server = (_pins((ROOT / f"deploy/requirements-{name}.txt").read_text()) for name in ("api", "model-server"))
    both = api.keys() & server.keys()
    assert {package: api[package] for package in both} == {package: server[package] for package in both}


def test_what_is_installed_beside_them_is_pinned_alike(pinned: dict[str, str]) -> None:
    """ONNX Runtime for an ONNX predictor; TensorFlow or ONNX Runtime on a GPU; what pages name as ENGINES."""
    assert _pins(packages.ONNX_RUNTIME) == {"onnxruntime": pinned["onnxruntime"]}
    assert set(re.findall(r'ENGINES="(.+)"', (ROOT / "deploy/Dockerfile.gpu").read_text())) == {
        f"tensorflow[and-cuda]=={pinned['tensorflow']}",  # with CUDA 12
        f"onnxruntime-gpu[cuda,cudnn]=={pinned['onnxruntime']}",  # with CUDA 13, and cuDNN in the same place
    }
    for page in ("deploy/Dockerfile", "docs/environments.md", "docs/model_server.md"):
        (engines,) = re.findall(r'ENGINES="(.+)"', (ROOT / page).read_text())
        assert _pins(engines.replace(" ", "\n")).items() <= pinned.items()


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_a_model_server_is_run_as_tensorflow_servings(name: str, tmp_path: Path) -> None:
    """By the variables of that image, and with flags of the user's own, of which the last counts."""
    text = (ROOT / "deploy" / name).read_text()
    assert 'ENTRYPOINT ["sh", "/opt/cortex/serve.sh"]' in text
    (told,) = re.findall(r"^ENV (MODEL_NAME=.*)", text, re.MULTILINE)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    command = ["env", "-i", f"PATH={tmp_path}:/usr/bin:/bin", *told.split(), "MODEL_NAME=half plus"]
    ran = subprocess.run([*command, "sh", ROOT / "deploy/serve.sh", "--port=9000"], capture_output=True, text=True)
    assert ran.stdout.splitlines() == [
        *("-P", "-m", "cortex.model_server", "--port=8500", "--rest_api_port=8501"),
        *("--grpc_socket_path=/run/cortex/model-server-0.sock", "--model_name=half plus"),
        *("--model_base_path=/models/half plus", "--port=9000"),
    ], ran.stderr


@pytest.mark.parametrize(
    ("device", "file"), [("", "Dockerfile"), ("-gpu", "Dockerfile.gpu"), ("-neuron", "Dockerfile.neuron")]
)
def test_an_image_that_is_missing_is_told_with_its_dockerfile(
    device: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has one of its own, whose head says how to build it."""
    monkeypatch.setattr(Engine, "good", lambda _, *words: image not in words)
    image, api = f"cortex-model-server{device}:{cortex.__version__}", APISpec(name="iris", predictor=_TENSORFLOW)
    monkeypatch.setattr(Shelf, "source", lambda _: None)
    with pytest.raises(UserError, match=f"{image} is not on this machine: build .* as deploy/{re.escape(file)} says"):
        images.provide(api, tmp_path, Shelf(), Engine("iris", tmp_path), Images(image, image), lambda _: None)
    assert f"-t {image.replace(cortex.__version__, 'VERSION')} " in (ROOT / "deploy" / file).read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").glob("*")), ids=lambda path: path.name)
def test_images_have_the_version_of_the_code(path: Path) -> None:
    """Wherever deploy/ names a version of the images, it is the one that `cortex deploy` asks for."""
    text = path.read_text()
    found = re.findall(r"^ARG VERSION=(\S+)", text, re.MULTILINE)
    found += re.findall(r"cortex-(?:api|model-server)[a-z-]*:(\d\S*)", text)
    assert set(found) <= {cortex.__version__}


def test_this_project_installs_nothing_into_its_image(tmp_path: Path) -> None:
    """Its requirements.txt is what it is developed with; the image has what its API needs."""
    config = read(ROOT / "cortex_cpu.yaml")
    project = Project.of(config, config.apis[0], tmp_path)
    assert set(project.tree.files) == {"predictor.py", "download.py", "export/imagenet_class_index.json"}
