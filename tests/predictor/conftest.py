"""The project's own predictor.py and download.py, imported as a worker imports them: from the root of the project."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _project_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def download() -> ModuleType:
    return importlib.import_module("download")


@pytest.fixture
def module() -> ModuleType:
    return importlib.import_module("predictor")


class RedMeter:
    """A client whose model finds class k most probable in a picture whose mean red is k, then k+1, k+2 and so on."""

    def __init__(self) -> None:
        self.inputs: list[npt.NDArray[np.uint8]] = []

    def predict_numpy(self, model_input: dict[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
        images = model_input["input"]
        self.inputs.append(images)
        scores = np.full((len(images), 1000), 1e-6, np.float32)
        for row, first in zip(scores, images[..., 0].mean(axis=(1, 2)).round().astype(int), strict=True):
            row[first : first + 5] = (0.5, 0.25, 0.125, 0.0625, 0.03125)
        return {"output": scores}


@pytest.fixture
def client() -> RedMeter:
    return RedMeter()


@pytest.fixture
def predictor(module: ModuleType, client: RedMeter, tmp_path: Path) -> Any:
    """The predictor, with labels ``class 0`` to ``class 999``, allowed to fetch from loopback."""
    index = tmp_path / "index.json"
    index.write_text(json.dumps({str(k): [f"n{k:08}", f"class {k}"] for k in range(1000)}))
    return module.TensorFlowPredictor(client, {"labels": str(index), "allow_private_urls": True})
