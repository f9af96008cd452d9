"""``python -m export gpu --engine tensorflow``, with a stand-in for the TensorFlow that has TF-TRT."""

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

_TENSORFLOW = '''
"""Stands in for TensorFlow 2.17 with TF-TRT: it writes down what it is told, and copies the model."""
import json, os, shutil
import numpy as np

class _Tensor:
    def __init__(self, array): self.array = array
    def numpy(self): return self.array

def constant(array): return _Tensor(array)

class _Namespace:
    def __init__(self, **names): self.__dict__.update(names)

class Converter:
    def __init__(self, **told): self.told = told
    def convert(self):
        if "NO_TRT" in os.environ: raise RuntimeError("Tensorflow has not been built with TensorRT support.")
    def build(self, input_fn): self.batches = [value.array.shape[0] for (value,) in input_fn()]
    def save(self, target):
        shutil.copytree(self.told["input_saved_model_dir"], target, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("assets.extra"))
        with open(os.environ["TOLD"], "w") as file:
            json.dump({**self.told, "batches": self.batches}, file)

class _Loaded:
    """Answers from the file that the test has recorded, off by as much as it asks for."""
    def __init__(self, directory):
        import cortex.tfrecord, cortex.protos, cortex.tensors
        from pathlib import Path
        logs = [cortex.protos.prediction_log_pb2.PredictionLog.FromString(each).predict_log
                for each in cortex.tfrecord.read_records(Path(os.environ["RECORDS"]))]
        self.answers = {cortex.tensors.to_array(log.request.inputs["input"]).tobytes():
                        cortex.tensors.to_array(log.response.outputs["output"]) for log in logs}
        self.signatures = {"serving_default": self.serve}
    def serve(self, input):
        answer = np.concatenate([self.answers[image.tobytes()] for image in input.array])
        return {"output": _Tensor(answer + np.float32(os.environ.get("OFF", "0")))}

experimental = _Namespace(tensorrt=_Namespace(Converter=Converter))
saved_model = _Namespace(load=_Loaded)
'''


@pytest.fixture
def old_tensorflow(tmp_path: Path, tiny: Path) -> dict[str, str]:
    """The environment of a process that sees the stand-in where TensorFlow is looked for."""
    site = tmp_path / "site"
    (site / "tensorflow").mkdir(parents=True)
    (site / "tensorflow/__init__.py").write_text(_TENSORFLOW)
    real = importlib.util.find_spec("tensorflow")
    assert real is not None
    assert real.origin is not None
    for name in ("core", "compiler"):  # the message classes are there
        (site / "tensorflow" / name).symlink_to(Path(real.origin).with_name(name))
    (site / "tensorflow-2.17.1.dist-info").mkdir()
    (site / "tensorflow-2.17.1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.17.1\n"
    )
    root = Path(__file__).parents[3]
    return {
        "PYTHONPATH": f"{site}:{root}",
        "TOLD": str(tmp_path / "told.json"),
        "RECORDS": str(tiny / "3/assets.extra/tf_serving_warmup_requests"),
    }


def test_engines_are_built_for_the_batches(
    export_run: Run, tiny: Path, tmp_path: Path, old_tensorflow: dict[str, str]
) -> None:
    """TF-TRT is asked for fp16 and dynamic shapes, and shown each batch size; the proof goes along."""
    output = tmp_path / "trt"
    done = export_run(
        *("gpu", tiny, "--engine", "tensorflow", "--best-batch", "8", "--max-batch", "16", "--output", output),
        **old_tensorflow,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["batches"] == [1, 8, 16]
    assert told["precision_mode"] == "FP16"
    assert (told["use_dynamic_shape"], told["input_saved_model_signature_key"]) == (True, "serving_default")
    card = json.loads((output / "3/assets.extra/model_card.json").read_text())
    assert (card["precision"], card["engines"]["by"]) == ("fp16", "TF-TRT")
    assert card["tools"]["tensorflow"] == "2.17.1"
    for name in ("tf_serving_warmup_requests", "imagenet_class_index.json"):
        assert (output / "3/assets.extra" / name).read_bytes() == (tiny / "3/assets.extra" / name).read_bytes()
    assert (output / "3/saved_model.pb").is_file()


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({"OFF": "0.5"}, [], "the artifact is out of tolerance: the answer to request 1 is off by 0.5"),
        ({"NO_TRT": "1"}, [], "here: Tensorflow has not been built with TensorRT support."),
        ({}, ["--precision", "fp32"], "--engine tensorflow makes fp16, not fp32"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    export_run: Run,
    tiny: Path,
    tmp_path: Path,
    old_tensorflow: dict[str, str],
    environment: dict[str, str],
    arguments: list[str],
    message: str,
) -> None:
    """Wrong answers, a TensorFlow without TensorRT, and another precision: refused, and nothing is left."""
    done = export_run(
        *("gpu", tiny, "--engine", "tensorflow", "--output", tmp_path / "trt", *arguments),
        **old_tensorflow,
        **environment,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(message)
    assert not (tmp_path / "trt" / "3").exists()
