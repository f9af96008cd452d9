"""Notebooks executed as Jupyter would, in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SETTINGS = ("WEIGHTS", "OUTPUT", "SECONDS", "PRECISION", "CORTEX_NEURON_PYTHON")
OF_TESTS = ("PYTEST_CURRENT_TEST", "TF_CPP_MIN_LOG_LEVEL")
"""What pytest has set, and an engine that another test imported."""

NO_DOWNLOADS = {
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "",
}
NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}

Execute = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def execute(tmp_path_factory: pytest.TempPathFactory) -> Execute:
    """Execute a whole notebook, and return its cells by their ids.

    There are no downloads, no GPU, and no settings but those given. The kernel does not know that it is tested: it
    would leave out what native code says, or let TensorFlow say all of it.
    """
    home = tmp_path_factory.mktemp("home")
    isolated = {"IPYTHONDIR": str(home / "ipython"), "KERAS_HOME": str(home / "keras")} | NO_DOWNLOADS | NO_GPU
    inherited = {name: value for name, value in os.environ.items() if name not in (*SETTINGS, *OF_TESTS)}

    def run(name: str, **settings: str) -> dict[str, Any]:
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("execute.py")), str(NOTEBOOKS)],
            input=nbformat.writes(notebook),
            capture_output=True,
            text=True,
            timeout=240,
            env=inherited | isolated | settings,
        )
        assert done.returncode == 0, done.stderr
        return {cell.id: cell for cell in nbformat.reads(done.stdout, as_version=4).cells}

    return run
