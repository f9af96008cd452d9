"""Model servers that echo, each a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FAKE = Path(__file__).parent / "fake_model_server.py"


@pytest.fixture(scope="module")
def start_model_server(tmp_path_factory):
    """Start model servers from a config and an encoding; return the address of each. They die with the module."""
    processes = []

    def start(config, encoding="typed"):
        folder = tmp_path_factory.mktemp("model-server")
        (folder / "config.json").write_text(json.dumps(config))
        command = [sys.executable, FAKE, folder / "grpc.sock", folder / "config.json", encoding]
        processes.append(subprocess.Popen(command))
        return f"unix:{folder / 'grpc.sock'}"

    yield start
    for process in processes:
        process.kill()
        process.wait()
