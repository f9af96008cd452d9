import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.model_server.harness import Server, Start, config_file, starter
from tests.shared import made_once

ENGINES = ("openvino", "tensorflow")


BUILDERS = ("build_engine_models", "build_models")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for each builder's models, made in one process: most of the time TensorFlow is imported."""
    script = "import sys\nfrom pathlib import Path\n"
    for name in BUILDERS:
        script += f"from tests.model_server import {name}\n{name}.main(Path(sys.argv[1], {name!r}))\n"

    def build(root: Path) -> None:
        for name in BUILDERS:
            (root / name).mkdir()
        command = [sys.executable, "-c", script, str(root)]
        subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=Path(__file__).parents[2])

    return made_once(tmp_path_factory, "model-server", build)


@pytest.fixture(scope="session")
def models(built: Path) -> Path:
    """The directory of the SavedModels of `build_models.py`; read it, never write to it."""
    return built / "build_models"


@pytest.fixture(scope="session")
def engine_models(built: Path) -> Path:
    """The directory of the models of `build_engine_models.py`; read it, never write to it."""
    return built / "build_engine_models"


@pytest.fixture
def copied(models: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a model to a place where a test may change it, and returns its base path."""

    def copy(name: str) -> Path:
        shutil.copytree(models / name, tmp_path / "copied" / name)
        return tmp_path / "copied" / name

    return copy


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a server and waits until it is ready; it is stopped after the test."""
    started: list[Server] = []
    try:
        yield starter(tmp_path, started)
    finally:
        for server in started:
            server.stop()


@pytest.fixture(scope="session")
def servers(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Return the server of an engine with every model that the engine runs: started once, it serves all modules."""
    started: list[Server] = []

    @cache
    def serving(engine: str) -> Server:
        directory = tmp_path_factory.mktemp("server")
        names = ["two_inputs", "types", "softmax", "slow", "half_plus"]
        if engine == "tensorflow":
            names += ["mixed", "estimator", "scorer"]
        config = config_file(directory / "models.config", {name: models / name for name in names})
        flags = f"--engine={engine}", f"--model_config_file={config}", "--precision=fp32"
        server = starter(directory, started)(*flags)
        server.engine = engine
        return server

    try:
        yield serving
    finally:
        for each in started:
            assert each.stop() == 0


@pytest.fixture(scope="session", params=ENGINES)
def server(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> Server:
    """A server of each engine; tests leave it as it is."""
    return servers(request.param)


@pytest.fixture(scope="session")
def reference(servers: Callable[[str], Server]) -> Server:
    """The server of the tensorflow engine, for what only it runs: int64, strings and tf.Examples."""
    return servers("tensorflow")
