"""The notebooks, executed from top to bottom with the real ResNet-50, on a machine without a GPU and without downloads.

A stand-in takes the place of AWS's compiler. One SavedModel serves all: making it takes half of the time.
"""

import base64
import io
import json
import re
import sys
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.notebooks.conftest import NOTEBOOKS, Execute

MODELS = "Generating Resnet50 Models.ipynb"
GPU = "Generating GPU Resnet50 Model.ipynb"

COMPILER = f"""#!{sys.executable}
import json, shutil, sys
if sys.argv[2] != "--check":
    told = json.loads(sys.argv[2])
    shutil.copytree(told["model"], told["target"])
    print(json.dumps({{"share": 0.875, "tools": {{"neuron-cc": "a stand-in"}}}}))
"""

Cells = dict[str, Any]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def models(execute: Execute, output: Path) -> Cells:
    """The first notebook, with a stand-in for AWS's compiler."""
    compiler = output.with_name("python")
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    return execute(MODELS, OUTPUT=str(output), SECONDS="0", CORTEX_NEURON_PYTHON=str(compiler))


@pytest.fixture(scope="module")
def again(execute: Execute, output: Path, models: Cells, tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """The first notebook without that compiler, where the SavedModel is there already: to make one takes longest."""
    there = tmp_path_factory.mktemp("again")
    (there / "resnet50").symlink_to(output / "resnet50")
    return execute(MODELS, OUTPUT=str(there), SECONDS="0")


@pytest.fixture(scope="module")
def gpu(execute: Execute, output: Path, models: Cells) -> Cells:
    """The second notebook, with the SavedModel of the first."""
    assert (output / "resnet50/1/saved_model.pb").is_file(), errors(models)
    return execute(GPU, OUTPUT=str(output), SECONDS="0")


@pytest.fixture
def cells(request: pytest.FixtureRequest) -> Cells:
    """The executed cells of the notebook that a test names."""
    executed: Cells = request.getfixturevalue(request.param)
    return executed


@pytest.mark.parametrize(("cells", "name"), [("models", MODELS), ("again", MODELS), ("gpu", GPU)], indirect=["cells"])
def test_every_cell_succeeds(cells: Cells, name: str) -> None:
    """All, from top to bottom, without an error; and only Keras' download speaks on the standard error stream."""
    code = [cell.id for cell in nbformat.read(NOTEBOOKS / name, as_version=4).cells if cell.cell_type == "code"]
    assert [cells[each].execution_count for each in code] == list(range(1, len(code) + 1))
    assert errors(cells) == []
    said = [out.text for cell in cells.values() for out in cell.get("outputs", ()) if out.get("name") == "stderr"]
    assert [text for text in said if not text.startswith("Downloading data from")] == []


@pytest.mark.parametrize("cells", ["models", "again", "gpu"], indirect=True)
@pytest.mark.parametrize("drawn", ["cat", "graph", "variants"])
def test_pictures_are_drawn(cells: Cells, drawn: str) -> None:
    """As a PNG that is not blank, with words for those who cannot see it."""
    (shown,) = [out for out in cells[drawn].outputs if "image/png" in out.get("data", {})]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.data["image/png"]))).convert("RGB"))
    assert pixels.shape[0] > 200
    assert pixels.shape[1] > 800
    assert pixels.std() > 10
    assert shown.metadata["image/png"]["alt"]


@pytest.mark.parametrize(
    ("cells", "cell", "what", "reason"),
    [
        ("again", "neuron", "compiling for Inferentia", "CORTEX_NEURON_PYTHON names no Python"),
        ("again", "placement", "the placement", "Only the compiler knows"),
        ("gpu", "device", "building TensorRT's engines", "CUDA_VISIBLE_DEVICES=-1 hides every GPU"),
        ("gpu", "sweep", "speed by batch size on the GPU", "CUDA_VISIBLE_DEVICES=-1 hides every GPU"),
        ("gpu", "tftrt", "TF-TRT", "has no TensorRT"),
    ],
    indirect=["cells"],
)
def test_what_lacks_its_hardware_is_skipped_with_a_reason(cells: Cells, cell: str, what: str, reason: str) -> None:
    assert f"Skipped: {what}" in boxes(cells[cell])
    assert reason in boxes(cells[cell])


def test_random_weights_are_said_loudly(models: Cells, gpu: Cells, output: Path) -> None:
    """Why there are no others, and on every page and picture that they make meaningless."""
    assert "No trained weights: random ones are used instead" in boxes(models["savedmodel"])
    assert "cannot get the ImageNet weights" in boxes(models["savedmodel"])
    for told, cells in (("card", models), ("export", gpu)):
        assert "These weights are RANDOM" in boxes(cells[told])
        assert "RANDOM weights" in cells["cat"].outputs[-1].metadata["image/png"]["alt"]
    assert card(output / "resnet50/1")["weights"]["kind"] == "random"


def test_the_artifacts_are_those_of_the_exporters(gpu: Cells, output: Path) -> None:
    """They lie where OUTPUT says, complete."""
    made = {path.relative_to(output).as_posix() for path in output.glob("*/*")}
    assert made == {"resnet50/1", "resnet50_gpu/1", "resnet50_neuron/1"}
    assert (output / "resnet50_gpu/1/model.onnx").is_file()
    assert card(output / "resnet50_gpu/1")["precision"] == "fp16"


def test_the_variants_agree(models: Cells, gpu: Cells) -> None:
    """Every one has the recorded first class for each of the four pictures."""
    for cells, at_least in ((models, 2), (gpu, 2)):
        alt = cells["variants"].outputs[-1].metadata["image/png"]["alt"]
        assert alt.count("first class as recorded 4 of 4 times") == alt.count(";") + 1 >= at_least


def test_with_a_compiler_the_placement_is_drawn(models: Cells, output: Path) -> None:
    """As the compiler reports it, and as the model card keeps it."""
    assert card(output / "resnet50_neuron/1")["placement"] == {"chip": "inf1", "share_on_device": 0.875}
    assert models["placement"].outputs[0].metadata["image/png"]["alt"] == "87.5% of the operations run on the device"


def test_what_is_there_is_kept(again: Cells) -> None:
    """A model that took a download, or hours, is not overwritten by a second walk."""
    assert "is there already" in boxes(again["savedmodel"])


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_repository_holds_them_plain(path: Path) -> None:
    """Valid, for any Python 3, without outputs and without a trace of the machine that they were written on."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert re.findall(r"/(?:home|root|Users|work|tmp)/|[A-Z]:\\\\", path.read_text()) == []


def test_both_are_there() -> None:
    assert sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")) == [GPU, MODELS]


def errors(cells: Cells) -> list[str]:
    outputs = [(name, out) for name, cell in cells.items() for out in cell.get("outputs", ())]
    return [f"{name}: {out.ename}: {out.evalue}" for name, out in outputs if out.output_type == "error"]


def boxes(cell: Any) -> str:
    return unescape("\n".join(out.data["text/html"] for out in cell.outputs if "text/html" in out.get("data", {})))


def card(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "assets.extra/model_card.json").read_text())
    return content
