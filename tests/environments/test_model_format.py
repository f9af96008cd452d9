"""Models in other formats than SavedModel: what our model server serves can be deployed, and nothing else."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cortex.environments import model_format
from cortex.environments.model_format import FORMATS, READS, SUFFIXES, gpu_engine, unreadable
from cortex.environments.model_layout import arrange
from cortex.errors import UserError
from cortex.model_server import model_file
from cortex.model_server.engines import selection

IR_TEXT = b'<?xml version="1.0"?><net name="m" version="11"></net>'
CONTENT = {".xml": IR_TEXT, ".bin": b"weights", ".onnx": b"\x08\x0a\x12\x07pytorch", ".tflite": b"\x1c\0\0\0TFL3rest"}


def write(root: Path, *names: str, **contents: bytes) -> Path:
    """Write files whose content is as their suffix says."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents.get(path.suffix.lstrip("."), CONTENT.get(path.suffix, b"x")))
    return root


def test_the_rules_are_those_of_the_model_server() -> None:
    """What is accepted here is what is served there: the same formats, files and engines."""
    assert FORMATS == model_file.FORMATS
    assert dict(SUFFIXES) == model_file._SUFFIXES
    engines = {name: selection.formats(name) for name in (selection.AUTO, *selection.ENGINES)}
    assert {name: tuple(formats) for name, formats in engines.items()} == {
        name: formats for name, formats in READS.items() if name != "tensorflow_model_server"
    }


@pytest.mark.parametrize(
    ("names", "path", "found"),
    [
        (["1/model.onnx"], ".", {"1/model.onnx"}),
        (["1/resnet.onnx", "1/resnet.onnx.data"], ".", {"1/resnet.onnx", "1/resnet.onnx.data"}),
        (["1/model.xml", "1/model.bin", "1/assets.extra/model_card.json"], ".", None),
        (["1/model.tflite", "3/model.tflite"], ".", {"1/model.tflite", "3/model.tflite"}),
        (["1/model.onnx", "1/other.onnx"], ".", None),
        (["m/model.tflite"], "m", {"1/model.tflite"}),
        (["7/model.xml", "7/model.bin"], "7", {"7/model.xml", "7/model.bin"}),
        (["1/model.onnx", "stray.onnx"], ".", {"1/model.onnx"}),
    ],
)
def test_where_a_graph_in_one_file_is_found(
    tmp_path: Path, names: list[str], path: str, found: set[str] | None
) -> None:
    """In version directories, or in the directory itself; files beside the graph come along."""
    write(tmp_path, *names)
    assert set(arrange(tmp_path / path, "tensorflow").files) == (set(names) if found is None else found)


@pytest.mark.parametrize(
    ("names", "contents", "message"),
    [
        (["1/a.onnx", "1/b.onnx"], {}, "1/a.onnx, 1/b.onnx: several ONNX files; call the one to serve model.onnx"),
        (["1/model.onnx"], {"onnx": b""}, "1/model.onnx is empty"),
        (["1/model.onnx"], {"onnx": b"<html>404"}, "1/model.onnx is not an ONNX model"),
        (["1/model.onnx"], {"onnx": b"version https://git-lfs.github.com"}, "1/model.onnx is a Git LFS pointer"),
        (["1/model.xml"], {}, "there is no 1/model.bin, the weights of 1/model.xml"),
        (["1/model.xml", "1/model.bin"], {"xml": b"net"}, "1/model.xml is not an OpenVINO IR"),
        (["1/model.tflite"], {"tflite": b"TFL3"}, "1/model.tflite is not a TF Lite model"),
        (["1/model.h5"], {}, "invalid TensorFlow export directory: there is no 1/saved_model.pb\nexpected:\n"),
        (["1/model.onnx", "2/notes.txt"], {}, "invalid TensorFlow export directory: there is no 2/saved_model.pb"),
    ],
)
def test_rubbish_is_refused(tmp_path: Path, names: list[str], contents: dict[str, bytes], message: str) -> None:
    write(tmp_path, *names, **contents)
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        arrange(tmp_path, "tensorflow")


def test_neuron_cores_run_saved_models_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^invalid Neuron TensorFlow export directory: there is no 1/saved_model\.pb"):
        arrange(write(tmp_path, "1/model.onnx"), "neuron")


@pytest.mark.parametrize("engine", sorted(READS))
@pytest.mark.parametrize("kind", FORMATS)
def test_an_engine_that_does_not_read_a_format_says_so(
    kind: str, engine: str, tmp_path: Path, write_saved_model: Callable[..., Path]
) -> None:
    """One sentence names the format, the engine, and what that reads."""
    if kind == model_format.SAVED_MODEL:
        write_saved_model(tmp_path)
    else:
        write(tmp_path, f"model{SUFFIXES[kind]}", "model.bin")
    wrong = unreadable(tmp_path, engine)
    expected = f"{kind} is not what {engine} reads ({', '.join(READS[engine])})"
    assert wrong == ("" if kind in READS[engine] else expected)


@pytest.mark.parametrize(
    ("models", "engine"),
    [
        ([["1/model.onnx"]], "onnxruntime"),
        ([["1/saved_model.pb", "1/model.onnx"]], "onnxruntime"),
        ([["1/saved_model.pb", "1/x"], ["1/model.onnx"]], "tensorflow"),
        ([["1/saved_model.pb", "2/model.onnx"]], "onnxruntime"),
        ([["model.onnx"]], "onnxruntime"),
        ([[]], "tensorflow"),
        ([], "tensorflow"),
    ],
)
def test_what_runs_models_on_a_gpu(tmp_path: Path, models: list[list[str]], engine: str) -> None:
    """TensorFlow, unless every model that would answer has an ONNX graph; one that is not there is a SavedModel."""
    paths = [write(tmp_path / str(index), *names) for index, names in enumerate(models)]
    assert gpu_engine(paths) == engine
