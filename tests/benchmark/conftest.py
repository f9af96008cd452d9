"""The `benchmark` package stands at the root of the project and is not installed."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.shared import made_once

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _project_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the classifier of eight colors in every form; `build_classifiers` names them."""
    argv = [sys.executable, Path(__file__).with_name("build_classifiers.py")]
    return made_once(
        tmp_path_factory,
        "classifiers",
        lambda directory: subprocess.run([*argv, directory], check=True, capture_output=True, timeout=120),
    )


@pytest.fixture(scope="session")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of eight solid colors, four of each in a folder of its own, as JPEG and PNG of several sizes."""
    directory = tmp_path_factory.mktemp("colors")
    for number, color in enumerate(itertools.product((40, 220), repeat=3)):
        (directory / f"color{number}").mkdir()
        for copy, suffix in enumerate(("jpg", "png", "jpg", "png")):
            path = directory / f"color{number}" / f"{copy}.{suffix}"
            Image.new("RGB", (60 + 20 * copy, 50), color).save(path)
    return directory


@pytest.fixture(scope="session")
def records(colors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of `colors` as TFRecords, in three files."""
    directory = tmp_path_factory.mktemp("records")
    argv = [sys.executable, "-m", "benchmark", "tfrecords", colors, directory, "--files", "3"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60, cwd=ROOT)
    return directory


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run ``launch_benchmark.py ARGUMENTS`` to its end, with the test's directory for its logs."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, str(ROOT / "benchmark" / "launch_benchmark.py")]
        argv = [*program, "--output-dir", str(tmp_path / "out"), *map(str, arguments)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, env=os.environ | environment)

    return run
