"""Real models, real processes on loopback: what every end-to-end test starts from."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.deployment import Cortex, copy_project
from tests.shared import made_once


@pytest.fixture(scope="module")
def cortex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cortex]:
    """A home for the tests of one module."""
    command = Cortex(tmp_path_factory.mktemp("home"))
    try:
        yield command
        command.clean()
    finally:
        for pid in command.family():
            psutil.Process(pid).kill()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the small SavedModels."""
    argv = [sys.executable, Path(__file__).with_name("make_models.py")]
    return made_once(
        tmp_path_factory, "e2e-models", lambda root: subprocess.run([*argv, root], check=True, capture_output=True)
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """The example's own project, with the small colour model where ResNet-50 would be."""
    return copy_project(tmp_path_factory.mktemp("project"), models / "colours")
