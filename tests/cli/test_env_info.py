"""`cortex env info`: the machine for people, and as JSON."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cortex.environments import machine
from cortex.environments.devices import Device, Found
from cortex.environments.engines import EngineStatus
from cortex.environments.machine import Machine
from cortex.environments.processors import Memory, Processors

MACHINE = Machine(
    processors=Processors("Intel(R) Xeon(R)", cores=4, logical=8, features=("avx512", "vnni")),
    memory=Memory(total=16 * 2**30, available=2**30),
    gpus=Found((Device("0", "Tesla T4", 15360 * 2**20, "535.1"), Device("1"))),
    neuron=Found(problem="no AWS Inferentia device: neuron-ls is not on the PATH"),
    engines=(
        EngineStatus("openvino", "2026.1", ("CPU", "GPU")),
        EngineStatus("tflite", problem="not installed: pip install ai-edge-litert"),
    ),
)


@pytest.fixture(autouse=True)
def inspected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "inspect", lambda: MACHINE)


def test_for_people(cortex: Callable[..., Any]) -> None:
    """What is there, and why the rest is not."""
    assert cortex("env", "info").out == (
        "processor        Intel(R) Xeon(R)\n"
        "cores            4 to use (8 hardware threads in the machine)\n"
        "features         avx512, vnni\n"
        "memory           16.0 GiB (1.0 GiB free)\n"
        "gpus             0: Tesla T4, 15.0 GiB, driver 535.1; 1\n"
        "neuron devices   no AWS Inferentia device: neuron-ls is not on the PATH\n"
        "\n"
        "engine     version   computes on   state\n"
        "openvino   2026.1    CPU, GPU      can run here\n"
        "tflite     -         -             not installed: pip install ai-edge-litert\n"
    )


def test_as_json(cortex: Callable[..., Any]) -> None:
    out = cortex("env", "info", "-o", "json").out
    found = json.loads(out)
    assert out.count("\n") == 1
    assert found["gpus"]["devices"][0]["name"] == "Tesla T4"
    assert found["neuron"] == {"devices": [], "problem": "no AWS Inferentia device: neuron-ls is not on the PATH"}
    assert [engine["name"] for engine in found["engines"]] == ["openvino", "tflite"]
