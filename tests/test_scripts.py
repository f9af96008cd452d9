"""The scripts: what pytest is told, and what is said where nothing can be tested."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Make what scripts/install takes for an environment that is up to date; its python prints its arguments."""
    wanted = [(ROOT / name).read_bytes() for name in ("requirements.txt", "requirements-dev.txt", "pyproject.toml")]
    (tmp_path / ".wanted").write_text(f"{hashlib.sha256(b''.join(wanted)).hexdigest()}  -\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "bin/python").chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "shared"),
    [
        ([], True),
        (["-k", "drain"], True),
        (["tests/api"], False),
        (["tests/test_pid.py::test_a", "-x"], False),
        (["tests/no_such_test.py"], False),
    ],
)
def test_all_are_shared_by_workers_and_a_named_path_is_not(venv: Path, arguments: list[str], shared: bool) -> None:
    """Nor one that does not exist: pytest says so, but where workers look for it, nobody does."""
    command = [str(ROOT / "scripts/test"), *arguments]
    environment = os.environ | {"CORTEX_VENV": str(venv)}
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.split()
    assert said[:2] == ["-m", "pytest"]
    assert said[len(said) - len(arguments) :] == arguments
    assert ("-n" in said) == shared


def test_containers_are_not_tested_where_docker_does_not_answer(venv: Path) -> None:
    """It is no failure, and the reason is Docker's own."""
    (venv / "bin/docker").write_text("#!/bin/sh\necho 'Is the daemon running?' >&2\nexit 1\n")
    (venv / "bin/docker").chmod(0o755)
    path = f"{venv / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | {"CORTEX_VENV": str(venv), "PATH": path, "CORTEX_TEST_CONTAINERS": ""}
    done = subprocess.run([str(ROOT / "scripts/test-containers")], capture_output=True, text=True, env=environment)
    told = "test-containers: NOT RUN: the Docker engine does not answer: Is the daemon running?\n"
    assert (done.returncode, done.stderr) == (0, told)
