"""``python -m export`` as a command, and one real export that every test shares which looks at an artifact."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shared import made_once

ROOT = Path(__file__).parents[2]

SET_HERE = ("TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES")
"""What a test that has imported TensorFlow leaves in the environment, and a user's shell does not have."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def export_run() -> Run:
    """Run ``python -m export ARGUMENTS`` to its end, with these variables in the environment."""

    def run(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        kept = {name: value for name, value in os.environ.items() if name not in SET_HERE}
        argv = [sys.executable, "-m", "export", *map(str, arguments)]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=240, env=kept | {"PYTHONPATH": str(ROOT)} | environment
        )

    return run


@pytest.fixture(scope="session")
def exported(
    export_run: Run, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """The version directory of ResNet-50 with random weights, seed 0, and the command that made it."""

    def export(root: Path) -> None:
        done = export_run("savedmodel", "--weights", "random", "--output", root / "resnet50")
        assert done.returncode == 0, done.stderr
        (root / "done").write_bytes(pickle.dumps(done))

    root = made_once(tmp_path_factory, "exported", export)
    return root / "resnet50" / "1", pickle.loads((root / "done").read_bytes())


@pytest.fixture(scope="session")
def artifact(exported: tuple[Path, "subprocess.CompletedProcess[str]"]) -> Path:
    return exported[0]
