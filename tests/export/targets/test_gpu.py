"""``python -m export gpu``: the ONNX artifact, its proof, and what it says on a machine without a GPU."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cortex.model_server import servable
from cortex.model_server.engines import onnxruntime_recipe
from cortex.model_server.servable import LoadOptions
from cortex.model_server.status import StatusError
from cortex.protos import saved_model_pb2
from cortex.tensors import to_proto
from export import answers, gpu_device, gpu_order, onnx_int8, recorded_requests
from export.model_card import Tolerance
from tests.waiting import DEADLINE

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Program = Callable[[str, str], Path]

ROOT = Path(__file__).parents[3]
WITHIN = Tolerance(0.0, 1e-4)


@pytest.fixture(scope="module")
def left_by_a_killed_run(tiny: Path) -> list[str]:
    """What is in the output after kill -9, once the copied SavedModel looks as if it could be served."""
    output = tiny.with_name("tiny_gpu")
    argv = [sys.executable, "-m", "export", "gpu", str(tiny)]
    export = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        deadline = time.monotonic() + DEADLINE
        while not (output / ".exporting-3" / "saved_model.pb").exists():
            assert export.poll() is None, "the export ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        export.kill()
        export.wait()
    return [path.name for path in output.iterdir()]


@pytest.fixture(scope="module")
def done(export_run: Run, tiny: Path, left_by_a_killed_run: list[str]) -> "subprocess.CompletedProcess[str]":
    """The export, run where another one was killed."""
    done = export_run("gpu", tiny, PATH=_path_without_driver())
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def artifact(done: "subprocess.CompletedProcess[str]", tiny: Path) -> Path:
    return tiny.with_name("tiny_gpu") / "3"


@pytest.fixture(scope="module")
def card(artifact: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((artifact / "assets.extra/model_card.json").read_text())
    return document


def _path_without_driver() -> str:
    found = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join(each for each in found if not (Path(each) / "nvidia-smi").exists())


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", _path_without_driver())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_graph_answers_as_the_savedmodel_does(artifact: Path, tmp_path: Path) -> None:
    """Every recorded answer is met within 1e-4 by ONNX Runtime on the CPU, one image and several at once."""
    shutil.copy(artifact / "model.onnx", tmp_path / "model.onnx")
    recorded = answers.read(artifact)
    with gpu_device.on_cpu(tmp_path / "model.onnx") as answer:
        measured = answers.measure(recorded, answer, WITHIN, "the SavedModel")
        swapped = answers.measure(recorded, lambda images: answer(images[..., ::-1]), WITHIN, "the SavedModel")
    assert not measured.outside
    assert (measured.agreement.images, measured.agreement.same_first_class) == (4, 4)
    assert re.fullmatch(r"the answer to request \d is off by .+", swapped.outside)


@pytest.mark.skipif("CORTEX_TEST_RESNET" not in os.environ, reason="a minute: set CORTEX_TEST_RESNET=1 to run it")
def test_resnet_answers_as_its_savedmodel_does(export_run: Run, exported: Any, tmp_path: Path) -> None:
    """The real network agrees within 1e-4, which the export itself insists on."""
    done = export_run("gpu", exported[0].parent, "--output", tmp_path / "gpu", PATH=_path_without_driver())
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "gpu/1/assets.extra/model_card.json").read_text())
    assert card["conversion"]["max_difference"] < 1e-4
    assert card["conversion"]["same_first_class"] == card["conversion"]["images"] == 4


def test_a_killed_run_leaves_nothing_to_serve(left_by_a_killed_run: list[str], artifact: Path) -> None:
    """kill -9 leaves no version, and the next run works and cleans up."""
    assert left_by_a_killed_run == [".exporting-3"]
    assert [path.name for path in artifact.parent.iterdir()] == ["3"]


def test_it_takes_the_place_of_the_savedmodel(artifact: Path, tiny: Path) -> None:
    """Everything of the source is there, its own labels too, so what only reads SavedModels serves the artifact too."""
    for path in (path.relative_to(tiny / "3") for path in (tiny / "3").rglob("*") if path.is_file()):
        same = (artifact / path).read_bytes() == (tiny / "3" / path).read_bytes()
        assert same != (path.name == "model_card.json"), path


def test_the_graph_has_names_and_a_free_batch(artifact: Path) -> None:
    """Inputs and outputs have the signature's names, and uint8 is cast first: TensorRT takes it nowhere else."""
    graph = onnx.load(artifact / "model.onnx").graph
    (given,), (taken,) = graph.input, graph.output
    assert (given.name, taken.name) == ("input", "output")
    assert [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim] == ["batch", 224, 224, 3]
    assert [node.op_type for node in graph.node if "input" in node.input] == ["Cast"]


def test_what_is_printed(done: "subprocess.CompletedProcess[str]", artifact: Path) -> None:
    """The result is on standard output; the steps say that it ran on the CPU, and why engines were not built."""
    made, following = done.stdout.splitlines()
    assert re.fullmatch(rf"{re.escape(str(artifact))}  \d+ MB", made)
    assert following.startswith(f"next: set model_path to {artifact.parent} in cortex_gpu.yaml")
    assert "engines were not built: there is no nvidia-smi" in done.stderr
    assert all(re.match(r" *\d+\.\d s  \S", line) for line in done.stderr.splitlines())


def test_the_card_says_what_was_and_was_not_done(card: dict[str, Any]) -> None:
    """Engines that were not built, the agreement and where it was measured; what the source's card says stays."""
    assert card["engines"] == {"built": False, "reason": _Matching(r"engines were not built: there is no nvidia-smi.*")}
    assert (card["target"], card["precision"], card["weights"]) == ("gpu", "fp16", {"kind": "random"})
    assert card["agreement"]["over"] == card["conversion"]["over"] == "recorded requests"
    assert "calibration" not in card
    assert card["agreement"]["computed_in"] == "fp32"  # the CPU's, not the artifact's fp16
    assert card["agreement"]["device"].startswith("cpu (fell back: there is no nvidia-smi")
    assert card["conversion"]["max_difference"] <= 1e-4
    assert card["tools"].keys() >= {"tf2onnx", "onnx", "keras"}
    assert card["made_from"]["version"] == 3


def test_the_recipe_is_complete(artifact: Path) -> None:
    """The artifact states its providers, its precision and the batches that engines are built for."""
    recipe = onnxruntime_recipe.read(artifact)
    assert recipe is not None
    assert (recipe.providers, recipe.precision) == (("tensorrt", "cuda"), "fp16")
    profile = recipe.profiles["input"]
    assert [profile.least[0], profile.best[0], profile.most[0]] == [1, 32, 128]
    assert profile.least[1:] == (224, 224, 3)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("graph_alone", [True, False])
def test_model_servers_load_it(
    artifact: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, engine: str, graph_alone: bool
) -> None:
    """ONNX Runtime and OpenVINO serve it after it has proved itself, from the graph alone too."""
    caplog.set_level("INFO")
    directory = artifact
    if graph_alone:
        directory = tmp_path / "3"
        shutil.copytree(artifact / "assets.extra", directory / "assets.extra")
        shutil.copy(artifact / "model.onnx", directory)
    loaded = servable.load("m", 3, directory, LoadOptions(engine=engine, precision="fp32"))
    loaded.close()
    assert "gives the 4 recorded answers" in caplog.text
    if engine == "onnxruntime":
        assert "was made for a GPU, and runs on cpu: there is no nvidia-smi" in caplog.text
        assert "device=cpu (fell back: there is no nvidia-smi" in str(loaded.description)


def test_a_changed_graph_is_not_served(artifact: Path, tmp_path: Path) -> None:
    """Weights that are off keep the artifact from going live, whatever its precision allows for."""
    directory = tmp_path / "3"
    shutil.copytree(artifact, directory)
    model = onnx.load(directory / "model.onnx")
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = np.frombuffer(largest.raw_data, np.float32)
    largest.raw_data = np.roll(values, 1000).tobytes()
    onnx.save(model, directory / "model.onnx")
    with pytest.raises(StatusError, match="warmup record 1"):
        servable.load("m", 3, directory, LoadOptions(engine="onnxruntime"))


def test_int8_has_its_scales_in_the_graph(export_run: Run, tiny: Path, tmp_path: Path) -> None:
    """Convolutions and matrix products are quantized symmetrically, and the answers stay in tolerance."""
    done = export_run(
        *("gpu", tiny, "--precision", "int8", "--calibration", "random", "--subset-size", "8"),
        *("--provider", "cpu", "--output", tmp_path / "int8"),
    )
    assert done.returncode == 0, done.stderr
    artifact = tmp_path / "int8" / "3"
    model = onnx.load(artifact / "model.onnx")
    points = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    zeros = [onnx.numpy_helper.to_array(each) for each in model.graph.initializer if each.name in points]
    assert zeros
    assert not any(each.any() for each in zeros)
    card = json.loads((artifact / "assets.extra/model_card.json").read_text())
    assert (card["precision"], card["engines"]["reason"]) == (
        "int8",
        "engines were not built: TensorRT was not asked for",
    )
    assert card["agreement"] | {"max_difference": 0.0, "same_first_class": 8} == {
        "with": "the graph in fp32, on the CPU",
        "over": "held-out samples of noise",
        "images": 8,
        "max_difference": 0.0,
        "same_first_class": 8,
        "computed_in": "int8",
        "device": "cpu",
    }
    assert card["agreement"]["max_difference"] > 0
    assert (card["calibration"]["calibrated_on"], card["calibration"]["held_out"]) == (8, 8)
    assert card["calibration"]["note"].startswith("noise")
    loaded = servable.load("m", 3, artifact, LoadOptions(engine="onnxruntime"))
    assert (loaded.description.precision, "fell back" in str(loaded.description)) == ("int8", False)
    loaded.close()


def test_quantizing_leaves_the_log_as_it_was(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime logs in a way that makes Python print every later warning of anybody."""
    monkeypatch.setattr(logging.root, "handlers", [])
    graph = shutil.copy(artifact / "model.onnx", tmp_path)
    onnx_int8.quantize(Path(graph), [{"input": np.zeros((1, 224, 224, 3), np.uint8)}])
    assert logging.root.handlers == []


def test_a_full_disk_is_told_as_such(artifact: Path, tmp_path: Path) -> None:
    """Nothing else is written beside the graph, and no other precision is named as the remedy."""
    graph = shutil.copy(artifact / "model.onnx", tmp_path)
    (tmp_path / "model-inferred.onnx").mkdir()  # where ONNX Runtime would write without looking at what comes of it
    (tmp_path / "model.int8.onnx").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        onnx_int8.quantize(Path(graph), [{"input": np.zeros((1, 224, 224, 3), np.uint8)}])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int8"], r"--precision int8 needs --calibration: its scales come from what"),
        (["--calibration", "random"], r"--calibration is for --precision int8; fp16 has no use for it"),
        (["--best-batch", "64", "--max-batch", "32"], r"--best-batch 64 is larger than --max-batch 32"),
        (["--engine", "tensorflow"], r"TensorFlow 2\.\d+\S* has no TensorRT: 2\.17 was the last that had\. Leave"),
        (["--engine", "tensorflow", "--provider", "cuda"], r"--provider has no effect with --engine tensorflow$"),
        (["--provider", "cuda", "--best-batch", "8"], r"--best-batch has no effect without --provider tensorrt$"),
        (["--provider", "cpu", "--max-batch", "256"], r"--max-batch has no effect without --provider tensorrt$"),
        (["--subset-size", "8"], r"--subset-size has no effect without --precision int8$"),
        (["--version", "9"], r"\S+tiny: has no version 9"),
    ],
)
def test_refusals_are_one_line_at_once(export_run: Run, tiny: Path, arguments: list[str], message: str) -> None:
    """What cannot be done is said in one line, before anything is converted, and nothing is left behind."""
    done = export_run("gpu", tiny, "--output", tiny.with_name("refused"), *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert re.match(f"error: {message}", line)
    assert not tiny.with_name("refused").exists()


@pytest.mark.parametrize(
    ("target", "option"),
    [("savedmodel", "--output"), ("accelerator", "--output"), ("cpu", "--calibration"), ("gpu", "--calibration")],
)
def test_an_empty_text_is_no_path(export_run: Run, target: str, option: str) -> None:
    """A variable that is not set does not make the working directory an output, or pictures of it samples."""
    done = export_run(target, option, "")
    assert done.returncode == 2
    assert f"Invalid value for '{option}': expected a path, not an empty text" in done.stderr


def test_a_source_without_recorded_requests_is_refused(export_run: Run, tiny: Path, tmp_path: Path) -> None:
    """What cannot be checked is not made."""
    shutil.copytree(tiny, tmp_path / "bare", ignore=shutil.ignore_patterns("assets.extra"))
    done = export_run("gpu", tmp_path / "bare")
    assert done.returncode == 1
    assert "has no recorded requests (assets.extra/tf_serving_warmup_requests) to check with" in done.stderr


@pytest.mark.parametrize("target", ["cpu", "gpu", "accelerator"])
def test_an_artifact_is_no_source(export_run: Run, artifact: Path, target: str) -> None:
    """Its card, with target, precision and engines, would go on into a card of which nothing of that is true."""
    done = export_run(target, artifact.parent)
    assert (done.returncode, done.stdout) == (1, "")
    message = "is an artifact for the gpu; name the SavedModel that it was made from"
    assert done.stderr == f"error: {artifact}: {message}\n"


def test_other_signatures_prove_nothing_here(export_run: Run, tiny: Path, tmp_path: Path) -> None:
    """Requests recorded of a signature that the graph does not have are neither compared nor kept in the artifact."""
    source = tmp_path / "two" / "3"
    shutil.copytree(tiny / "3", source)
    model = source / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(model.read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    signatures["logits"].CopyFrom(signatures["serving_default"])
    model.write_bytes(saved.SerializeToString())
    records = recorded_requests.read(source)
    other = type(records[0]).FromString(records[0].SerializeToString())
    other.predict_log.request.model_spec.signature_name = "logits"
    other.predict_log.response.outputs["output"].CopyFrom(to_proto(np.full((1, 1000), -7, np.float32)))
    recorded_requests.write(source, [other, *records])
    done = export_run("gpu", source.parent, "--provider", "cpu", PATH=_path_without_driver())
    assert done.returncode == 0, done.stderr
    artifact = tmp_path / "two_gpu" / "3"
    assert recorded_requests.read(artifact) == records
    servable.load("m", 3, artifact, LoadOptions(engine="onnxruntime")).close()
    (source / recorded_requests.FILE).unlink()
    recorded_requests.write(source, [other])
    done = export_run("gpu", source.parent, "--force")
    assert (done.returncode, "has no recorded requests" in done.stderr) == (1, True)


def test_a_source_is_never_its_own_artifact(export_run: Run, tiny: Path) -> None:
    """Neither the directory of the versions nor a version takes an artifact, even by force."""
    for output in (tiny, tiny / "3"):
        done = export_run("gpu", tiny, "--output", output, "--force")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"error: --output {output}: holds the SavedModel itself; name another directory\n"


@pytest.mark.parametrize("target", ["gpu", "accelerator"])
@pytest.mark.parametrize("change", ["two inputs", "two outputs", "another size", "a fixed batch"])
def test_other_signatures_are_refused(export_run: Run, tiny: Path, tmp_path: Path, target: str, change: str) -> None:
    """What does not take and give what ResNet-50 does is refused in one line, before anything is converted."""
    shutil.copytree(tiny, tmp_path / "other")
    path = tmp_path / "other/3/saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    declared = saved.meta_graphs[0].signature_def["serving_default"]
    if change == "two inputs":
        declared.inputs["more"].CopyFrom(declared.inputs["input"])
    elif change == "two outputs":
        declared.outputs["more"].CopyFrom(declared.outputs["output"])
    else:
        declared.inputs["input"].tensor_shape.dim[0 if change == "a fixed batch" else 1].size = 299
    path.write_bytes(saved.SerializeToString())
    done = export_run(target, tmp_path / "other")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "this target is for models that take input uint8 [-1, 224, 224, 3] and give output float32" in line
    assert [each.name for each in tmp_path.iterdir()] == ["other"]


def test_tolerances_follow_the_precision(artifact: Path) -> None:
    """fp32 is held to the fp32 tolerance; fp16 and int8 are allowed more, in this order."""
    recorded = answers.read(artifact)
    fp32, fp16, int8 = (gpu_order.tolerance(precision, recorded) for precision in ("fp32", "fp16", "int8"))
    assert fp32.rtol < fp16.rtol < int8.rtol
    assert fp32.atol < fp16.atol < int8.atol < recorded.largest


class _Matching(str):
    """Equal to every text that the pattern matches."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(str(self), other) is not None

    __hash__ = str.__hash__
