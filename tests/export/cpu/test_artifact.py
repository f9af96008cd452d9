"""CPU artifacts in the real model server: they answer in the SavedModel's place, and prove that they do."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortex.tfrecord import read_records
from tests.model_server.harness import Server, arrays, config_file, predict_request, starter
from tests.waiting import until

AGREE = {"fp32": 0.995, "bf16": 0.995, "int8": 0.98}  # the server computes in bf16 where the hardware has it
SMALLER = {"fp32": 1.01, "bf16": 0.55, "int8": 0.35}


@pytest.fixture(scope="module")
def tested(trained: Path) -> dict[str, Any]:
    """Pictures that the classifier was not trained on, their classes, and what TensorFlow answers."""
    with np.load(trained / "test.npz") as loaded:
        images = loaded["images"].repeat(7, axis=1).repeat(7, axis=2)
        return {"images": images, "labels": loaded["labels"], "answers": loaded["answers"]}


@pytest.fixture(scope="module")
def server(trained: Path, artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the SavedModel and of every artifact, in whichever precision it chooses by itself."""
    directory = tmp_path_factory.mktemp("server")
    models = {"source": trained / "classifier"} | artifacts
    started: list[Server] = []
    try:
        yield starter(directory, started)(f"--model_config_file={config_file(directory / 'models.config', models)}")
    finally:
        for each in started:
            each.stop()


def _answers(server: Server, model: str, images: np.ndarray) -> np.ndarray:
    parts = [
        arrays(server.prediction.Predict(predict_request(model, {"input": part}), timeout=60))["output"]
        for part in np.array_split(images, len(images) // 50)
    ]
    return np.concatenate(parts)


def test_the_boundaries_are_real(tested: dict[str, Any]) -> None:
    """The classifier has learnt its classes, and some pictures lie so near a boundary that agreement counts."""
    best = np.sort(tested["answers"], axis=1)
    assert (tested["answers"].argmax(1) == tested["labels"]).mean() > 0.8
    assert (best[:, -1] - best[:, -2] < 0.1).sum() >= 5


@pytest.mark.parametrize("precision", AGREE)
def test_agrees_with_tensorflow(server: Server, tested: dict[str, Any], precision: str) -> None:
    """Of pictures that neither training nor calibration has seen, bf16 tells 99.5 % and int8 98 % as fp32 does."""
    answers = _answers(server, precision, tested["images"])
    same = answers.argmax(1) == tested["answers"].argmax(1)
    assert same.mean() >= AGREE[precision]
    assert np.abs(answers - tested["answers"]).max() < 0.25


@pytest.mark.parametrize("precision", AGREE)
def test_signature_is_the_source_s(server: Server, precision: str) -> None:
    """The metadata of an artifact names the inputs and outputs of the SavedModel, with their dtypes and shapes."""
    source, artifact = (_ports(server, model) for model in ("source", precision))
    assert artifact == source
    assert source["inputs"] == {"input": ("DT_UINT8", ["-1", "224", "224", "3"])}


def _ports(server: Server, model: str) -> dict[str, Any]:
    signatures = server.json("GET", f"/v1/models/{model}/metadata")["metadata"]["signature_def"]["signature_def"]
    declared = signatures["serving_default"]
    return {
        side: {
            alias: (info["dtype"], [dim["size"] for dim in info["tensor_shape"]["dim"]])
            for alias, info in declared[side].items()
        }
        for side in ("inputs", "outputs")
    }


def test_weights_take_less_space(artifacts: dict[str, Path]) -> None:
    """bf16 halves the weights and int8 quarters them, up to biases and scales."""
    sizes = {precision: (base / "1" / "model.bin").stat().st_size for precision, base in artifacts.items()}
    for precision, share in SMALLER.items():
        assert sizes[precision] < share * sizes["fp32"]


@pytest.mark.parametrize("precision", AGREE)
def test_card_says_what_was_measured(artifacts: dict[str, Path], trained: Path, precision: str) -> None:
    """The card holds the source with its digest, the agreement over samples held out, the tolerance and the tools."""
    card = _card(artifacts[precision])
    calibrated = 100 if precision == "int8" else 0
    assert card["precision"] == precision
    assert card["made_from"]["path"] == str(trained / "classifier" / "1")
    assert len(card["made_from"]["sha256"]) == 64
    assert card["calibration"] == {
        "kind": "pictures",
        "path": str(trained / "pictures"),
        "calibrated_on": calibrated,
        "held_out": 100,
        "skipped": 0,
    }
    agreement = card["agreement"]
    assert (agreement["with"], agreement["over"], agreement["images"]) == ("fp32", "held-out samples", 100)
    assert agreement["top1"] == agreement["same_first_class"] / agreement["images"] >= AGREE[precision] - 0.01
    assert (agreement["max_difference"] == 0) == (precision == "fp32")
    assert card["tolerance"].keys() == {"rtol", "atol"}
    assert ("nncf" in card["tools"]) == (precision == "int8")
    assert card["signature"]["outputs"] == {"output": {"dtype": "float32", "shape": [-1, 6]}}


@pytest.mark.parametrize("precision", AGREE)
def test_server_replays_the_recorded_requests(server: Server, artifacts: dict[str, Path], precision: str) -> None:
    """Five samples were recorded, and the server has replayed them before it served."""
    path = artifacts[precision] / "1" / "assets.extra" / "tf_serving_warmup_requests"
    assert len(list(read_records(path))) == 5
    assert f"model at {path}. Number of warmup records read: 5" in server.log


def _erase(data: bytes, start: int, end: int) -> bytes:
    return data[:start] + bytes(end - start) + data[end:]


def _turn_around(data: bytes, start: int, end: int) -> bytes:
    """All the values are there, in the wrong places."""
    return data[:start] + data[start:end][::-1] + data[end:]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("tamper", [_erase, _turn_around])
def test_tampered_weights_do_not_go_live(
    artifacts: dict[str, Path], tmp_path: Path, precision: str, tamper: Any
) -> None:
    """With a quarter of its weights changed an artifact fails the self-check, and the server says by how much."""
    base = tmp_path / "copied"
    shutil.copytree(artifacts[precision], base)
    weights = base / "1" / "model.bin"
    data = weights.read_bytes()
    weights.write_bytes(tamper(data, len(data) // 4, len(data) // 2))
    started: list[Server] = []
    try:
        refused = starter(tmp_path, started)("--model_name=copied", f"--model_base_path={base}", ready=False)
        assert until(lambda: refused.process.poll()) == 255
        assert "output 'output' is out of tolerance" in refused.log
    finally:
        for each in started:
            each.stop()


def test_resnet50_keeps_what_its_card_says(artifact: Path, export_run: Any, tmp_path: Path) -> None:
    """The card's facts about the weights, the labels and the recorded requests of a source travel with the artifact."""
    before = {path: path.stat().st_mtime_ns for path in artifact.rglob("*")}
    done = export_run("cpu", artifact.parent, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "the source answers as recorded in it (4 requests)" in done.stderr
    card, source = _card(tmp_path / "out"), _card(artifact.parent)
    for fact in ("model", "source", "weights", "labels", "resize", "signature"):
        assert card[fact] == source[fact]
    assert card["precision"] == "bf16"
    assert card["agreement"]["over"] == "recorded requests"
    assert "calibration" not in card
    assert (tmp_path / "out" / "1" / card["labels"]).read_bytes() == (artifact / card["labels"]).read_bytes()
    assert (tmp_path / "out" / "1" / "model.bin").stat().st_size < 55e6
    assert {path: path.stat().st_mtime_ns for path in artifact.rglob("*")} == before


def _card(base: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((base / "1" / "assets.extra" / "model_card.json").read_text())
    return card
