"""A small trained classifier, and the artifacts that the real command makes of it, shared by every test here."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shared import made_once

PRECISIONS = ("fp32", "bf16", "int8")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `build_classifier.py` writes; read it, never write to it."""
    argv = [sys.executable, str(Path(__file__).with_name("build_classifier.py"))]
    return made_once(
        tmp_path_factory,
        "trained",
        lambda root: subprocess.run([*argv, str(root)], check=True, capture_output=True, timeout=200),
    )


@pytest.fixture(scope="session")
def made(
    export_run: Run, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, "tuple[Path, subprocess.CompletedProcess[str]]"]:
    """The base directory of an artifact in each precision, and the command that made it."""
    shown = ("--calibration", trained / "pictures", "--subset-size", "100")

    def make(root: Path) -> None:
        for precision in PRECISIONS:
            output = root / f"classifier_{precision}"
            done = export_run("cpu", trained / "classifier", "--precision", precision, *shown, "--output", output)
            assert done.returncode == 0, done.stderr
            (root / precision).write_bytes(pickle.dumps(done))

    root = made_once(tmp_path_factory, "artifacts", make)
    return {
        precision: (root / f"classifier_{precision}", pickle.loads((root / precision).read_bytes()))
        for precision in PRECISIONS
    }


@pytest.fixture(scope="session")
def artifacts(made: dict[str, "tuple[Path, subprocess.CompletedProcess[str]]"]) -> dict[str, Path]:
    """The base directory of the artifact in each precision."""
    return {precision: base for precision, (base, _) in made.items()}
