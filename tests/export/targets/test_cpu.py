"""``python -m export cpu`` from the small model, which takes any number of pictures, none as well."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cortex.protos import prediction_log_pb2
from cortex.tensors import to_proto
from export import recorded_requests

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_an_empty_batch_alone_is_recorded(export_run: Run, tiny: Path, tmp_path: Path) -> None:
    """A source whose only recorded request has no picture in it is exported; there is nothing to agree about."""
    shutil.copytree(tiny, tmp_path / "tiny")
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs["input"].CopyFrom(to_proto(np.zeros((0, 224, 224, 3), np.uint8)))
    recorded_requests.write(tmp_path / "tiny" / "3", [log])
    done = export_run("cpu", tmp_path / "tiny", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    agreement = json.loads((tmp_path / "tiny_cpu/3/assets.extra/model_card.json").read_text())["agreement"]
    assert (agreement["images"], agreement["top1"]) == (0, None)
