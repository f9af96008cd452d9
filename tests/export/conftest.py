"""One real export through the command line, shared by every test that looks at an artifact."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def _environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | more


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
    output = tmp_path_factory.mktemp("models") / "resnet50"
    done = export_command("--weights", "random", "--output", output)
    assert done.returncode == 0, done.stderr
    return output / "1", done


@pytest.fixture(scope="session")
def artifact(exported: tuple[Path, "subprocess.CompletedProcess[str]"]) -> Path:
    return exported[0]
