"""What a version directory holds: a SavedModel, or a graph in one file of another format."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cortex.model_server import saved_model
from cortex.model_server.saved_model import SAVED_MODEL, SavedModel
from cortex.model_server.status import invalid

IR, ONNX, TFLITE = "OpenVINO IR", "ONNX", "TF Lite"
FORMATS = (SAVED_MODEL, IR, ONNX, TFLITE)
"""The formats, in the order in which they are preferred when a directory holds several."""

_SUFFIXES = {IR: ".xml", ONNX: ".onnx", TFLITE: ".tflite"}


@dataclass(frozen=True)
class ModelFile:
    """One version directory, the format of the graph in it, and its file. Its signatures only an engine can tell."""

    directory: Path
    format: str
    path: Path


Model = SavedModel | ModelFile


def find(
    directory: Path, tags: frozenset[str], formats: Collection[str] = FORMATS, *, prefer_tflite: bool = False
) -> tuple[Model, ...]:
    """Return every model of these formats in a version directory, the preferred one first.

    A format other than SavedModel is ``model.SUFFIX``, or the only file with that suffix. Raises StatusError: in
    TensorFlow's words when there is no model at all or the SavedModel is broken, INVALID_ARGUMENT for several files.
    """
    order = sorted(FORMATS, key=lambda each: each != TFLITE) if prefer_tflite else FORMATS
    found = [model for each in order if each in formats and (model := _find(directory, each, tags))]
    if found:
        return tuple(found)
    if SAVED_MODEL in formats:
        return (saved_model.read(directory, tags),)  # raises: there is none
    endings = " or ".join(_SUFFIXES[each] for each in formats)
    raise invalid(f"Could not find a {endings} file, which the engine asked for reads, in {directory}")


def _find(directory: Path, kind: str, tags: frozenset[str]) -> Model | None:
    if kind == SAVED_MODEL:
        return saved_model.read(directory, tags) if saved_model.is_in(directory) else None
    suffix = _SUFFIXES[kind]
    if (usual := directory / f"model{suffix}").is_file():
        return ModelFile(directory, kind, usual)
    files = sorted(path for path in directory.glob(f"*{suffix}") if path.is_file())
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise invalid(f"{directory} holds several {kind} files ({names}): call the one to serve model{suffix}")
    return ModelFile(directory, kind, files[0]) if files else None
