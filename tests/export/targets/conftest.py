"""A small model with the contract of the ResNet-50 artifacts, and programs that stand in for others."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shared import made_once

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small model, whose only version is 3."""

    def build(root: Path) -> None:
        argv = [sys.executable, str(Path(__file__).with_name("build_tiny.py")), str(root / "tiny" / "3")]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=env)
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "targets", build) / "tiny"


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    """Make an executable of this name in a directory of its own, and return it."""

    def make(name: str, text: str) -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    return make
