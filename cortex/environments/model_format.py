"""The formats of graphs that a model server reads, told by their files; and which engine reads which.

The rules are those of `cortex.model_server.model_file` and its engines, which nothing here may import: tests hold that
both say the same.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from cortex.environments.saved_model import GRAPH, refuse_pointer
from cortex.environments.tree import plainly
from cortex.errors import UserError

SAVED_MODEL, IR, ONNX, TFLITE = "SavedModel", "OpenVINO IR", "ONNX", "TF Lite"
SUFFIXES: Mapping[str, str] = {IR: ".xml", ONNX: ".onnx", TFLITE: ".tflite"}
"""Of the formats that are one file: ``model`` and the suffix, or the only file that ends so."""
FORMATS = (SAVED_MODEL, *SUFFIXES)
READS: Mapping[str, tuple[str, ...]] = {
    "auto": FORMATS,
    "openvino": FORMATS,
    "tensorflow": (SAVED_MODEL,),
    "onnxruntime": (ONNX,),
    "tflite": (TFLITE,),
    "tensorflow_model_server": (SAVED_MODEL,),
}
"""What each engine reads, and TF Serving itself, which is an engine in this respect."""
_ONNX_TAGS = bytes([0x08, 0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72, 0xA2, 0xCA])
"""What an ONNX file can begin with: the tags of a ModelProto's fields."""


def formats(directory: Path) -> tuple[str, ...]:
    """Return the formats in which a version directory has a graph, the preferred one first; looks at names only."""
    with plainly("cannot read the directory"):
        single = tuple(kind for kind, suffix in SUFFIXES.items() if _files(directory, suffix))
        return (SAVED_MODEL, *single) if (directory / GRAPH).is_file() else single


def check(directory: Path, kind: str, within: str) -> None:
    """Raise UserError, in one line, when the file of a format is not what it is called.

    ``within`` is what errors put before the names of files. A SavedModel has a check of its own:
    `cortex.environments.saved_model.check`.
    """
    file = graph(directory, kind, within)
    name = within + file.name
    refuse_pointer(file, name)
    with plainly("cannot read"), file.open("rb") as stream:
        start = stream.read(64)
    if kind == IR and not start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<?xml", b"<net")):
        raise UserError(f"{name} is not an OpenVINO IR: it does not begin like one")
    if kind == IR and not file.with_suffix(".bin").is_file():
        raise UserError(f"there is no {within}{file.with_suffix('.bin').name}, the weights of {name}")
    if kind == ONNX and start[0] not in _ONNX_TAGS:
        raise UserError(f"{name} is not an ONNX model: it does not begin like one")
    if kind == TFLITE and start[4:8] != b"TFL3":
        raise UserError(f"{name} is not a TF Lite model: it does not begin like one")


def graph(directory: Path, kind: str, within: str = "") -> Path:
    """Return the file of a format other than SavedModel. UserError when several could be it."""
    suffix = SUFFIXES[kind]
    files = _files(directory, suffix)
    usual = directory / f"model{suffix}"
    if usual in files:
        return usual
    if len(files) > 1:
        names = ", ".join(within + file.name for file in files)
        raise UserError(f"{names}: several {kind} files; call the one to serve model{suffix}")
    return files[0]


def unreadable(directory: Path, engine: str) -> str:
    """Say which format a version directory has when the engine does not read it; empty when it reads one."""
    found = formats(directory)
    if not found or set(found) & set(READS[engine]):
        return ""
    return f"{' and '.join(found)} is not what {engine} reads ({', '.join(READS[engine])})"


def gpu_engine(paths: Iterable[Path]) -> str:
    """Return what runs these models on a GPU: ONNX Runtime where each has an ONNX graph, else TensorFlow."""
    versions = [newest(path) for path in paths]
    return "onnxruntime" if versions and all(v and ONNX in formats(v) for v in versions) else "tensorflow"


def newest(path: Path) -> Path | None:
    """Return the version that answers: the directory of the highest number, or the path itself when it has a graph."""
    if not path.is_dir():
        return None
    if formats(path):
        return path
    numbered = [entry for entry in path.iterdir() if entry.name.isdecimal() and entry.is_dir()]
    return max(numbered, key=lambda entry: int(entry.name), default=None)


def _files(directory: Path, suffix: str) -> list[Path]:
    return sorted(file for file in directory.glob(f"*{suffix}") if file.is_file())
