"""One real export through the command line, shared by every test that looks at an artifact."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shared import made_once

ROOT = Path(__file__).parents[2]

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def _environment(**more: str) -> dict[str, str]:
    """Return what a user's shell has. A test that has imported TensorFlow here has set its log level, too."""
    found = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return found | {"PYTHONPATH": str(ROOT)} | more


@pytest.fixture(scope="session")
def export_command() -> Command:
    """Run ``python -m export savedmodel ARGUMENTS`` to its end."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "export", "savedmodel", *map(str, arguments)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=240, env=_environment(**environment))

    return run


@pytest.fixture(scope="session")
def exported(
    export_command: Command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """The version directory of ResNet-50 with random weights, seed 0, and the command that made it."""

    def export(root: Path) -> None:
        done = export_command("--weights", "random", "--output", root / "resnet50")
        assert done.returncode == 0, done.stderr
        (root / "done").write_bytes(pickle.dumps(done))

    root = made_once(tmp_path_factory, "exported", export)
    return root / "resnet50" / "1", pickle.loads((root / "done").read_bytes())


@pytest.fixture(scope="session")
def artifact(exported: tuple[Path, "subprocess.CompletedProcess[str]"]) -> Path:
    return exported[0]
