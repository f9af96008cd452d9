"""Memory does not grow over reloads: the new version beside the old, then the old one away, again and again.

``CORTEX_RELOADS=200 pytest tests/model_server/test_reloads.py -s`` makes the full count and prints the figures.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cortex.protos import get_model_status_pb2, model_management_pb2
from tests.model_server.harness import Start, predict_request
from tests.waiting import until

RELOADS = int(os.environ.get("CORTEX_RELOADS", "20"))
SETTLED = 10
"""Reloads after which the allocators and caches of an engine hold what they will hold."""
GROWTH = 1.10
PICTURES = np.zeros((4, 12, 12, 3), np.uint8)


@pytest.mark.parametrize(
    ("model", "engine"),
    [
        ("saved_model", "openvino"),
        ("saved_model", "tensorflow"),
        ("onnx", "openvino"),
        ("onnx", "onnxruntime"),
        ("tflite", "tflite"),
    ],
)
def test_memory_does_not_grow(engine_models: Path, start: Start, tmp_path: Path, model: str, engine: str) -> None:
    """After many reloads, resident memory is within 10 % of where it was after the first ten."""
    base = tmp_path / "base"
    base.mkdir()
    for version in (1, 2):
        (base / str(version)).symlink_to(engine_models / model / "1")
    server = start(f"--engine={engine}", "--model_name=m", f"--model_base_path={base}")
    process = psutil.Process(server.process.pid)
    prediction, models = server.prediction, server.model
    held = []
    for number in range(RELOADS):
        _serve(models, base, 1 + number % 2)
        prediction.Predict(predict_request("m", {"pictures": PICTURES}))
        held.append(process.memory_info().rss / 1e6)
    settled, last = held[SETTLED - 1], held[-1]
    print(f"\n{engine} {model}: {held[0]:.1f} MB, after {SETTLED} {settled:.1f} MB, after {RELOADS} {last:.1f} MB")
    assert last <= GROWTH * settled, held


def _serve(models: Any, base: Path, version: int) -> None:
    """Ask for one version alone, and wait until it serves and the other one is gone."""
    request = model_management_pb2.ReloadConfigRequest()
    config = request.config.model_config_list.config.add(name="m", base_path=str(base), model_platform="tensorflow")
    config.model_version_policy.specific.versions.append(version)
    models.HandleReloadConfigRequest(request)
    ask = get_model_status_pb2.GetModelStatusRequest()
    ask.model_spec.name = "m"

    def is_done() -> bool:
        states = {each.version: each.state for each in models.GetModelStatus(ask).model_version_status}
        return all(state == (30 if number == version else 50) for number, state in states.items())

    until(is_done)
