"""ONNXClient: predictions from ONNX models inside this process, by ONNX Runtime."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cortex import onnx_file, threads
from cortex.errors import NotStarted, UserError
from cortex.model_client.base import Progress, Timed
from cortex.model_client.models import LATEST, choose_name, choose_version, versions_on_disk
from cortex.spec import Model

Array = NDArray[Any]

_NUMPY_TYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


@dataclass(frozen=True)
class _Version:
    """One version of a model: its file, ONNX Runtime's session, and why no input of it may be empty, if none may."""

    path: Path
    session: Any
    why_not_empty: str


class ONNXClient:
    """Run the models of one API in this process. Safe to use from several threads."""

    def __init__(self, models: Mapping[str, Mapping[int, _Version]], timed: Timed = nullcontext) -> None:
        self._models = models
        self._timed = timed

    @classmethod
    def load(cls, models: tuple[Model, ...], progress: Progress, timed: Timed = nullcontext) -> "ONNXClient":
        """Load every version of every model.

        Raises UserError for a missing wheel or file, NotStarted for a model that does not load.
        """
        paths = {model.name: _files(Path(model.path)) for model in models}
        progress("loading the models")
        loaded = {name: {number: _version(path) for number, path in rows.items()} for name, rows in paths.items()}
        return cls(loaded, timed)

    def predict(self, model_input: Any, model_name: str | None = None, model_version: str = LATEST) -> list[Any]:
        """Return the outputs in the model's order, as ONNX Runtime's ``session.run([], ...)`` does.

        ``model_input`` maps each input to an array or a list; the bare value will do for a model with one input. Values
        are cast and reshaped to the model's inputs. Raises UserError for an input that is missing, does not convert, or
        is empty where that would end the process.
        """
        name, version = self._chosen(model_name, model_version)
        with self._timed():
            inputs = _inputs(version.session, model_input, name)
            if version.why_not_empty and not all(array.size for array in inputs.values()):
                raise UserError(f"model '{name}': {version.why_not_empty}")
            outputs: list[Any] = version.session.run([], inputs)
        return outputs

    def get_model(self, model_name: str | None = None, model_version: str = LATEST) -> dict[str, Any]:
        """Return what Cortex 0.22 said of a model: ``session``, ``signatures`` and ``input_signatures``.

        They are ONNX Runtime's own session, its inputs, and these as ``{input: {"shape": [...], "type": "..."}}``.
        """
        session = self._chosen(model_name, model_version)[1].session
        return {"session": session, "signatures": session.get_inputs(), "input_signatures": _describe(session)}

    @property
    def input_signatures(self) -> dict[str, Any]:
        """Describe the inputs of each model's latest version: ``{model: {input: {"shape": [...], "type": "..."}}}``."""
        return {name: _describe(versions[max(versions)].session) for name, versions in self._models.items()}

    @property
    def metadata(self) -> dict[str, Any]:
        """Describe every version under ``name-version``. The values survive JSON."""
        return {
            f"{name}-{number}": {
                "disk_path": str(version.path),
                "input_signatures": _describe(version.session),
                "timestamp": int(version.path.stat().st_mtime) if version.path.exists() else None,
            }
            for name, versions in self._models.items()
            for number, version in sorted(versions.items())
        }

    def healthy(self) -> bool:
        """Say yes: the models are part of this process."""
        return True

    def close(self) -> None:
        """Do nothing: the sessions end with the process."""

    def _chosen(self, model_name: str | None, model_version: str) -> tuple[str, _Version]:
        """Return the name and the version of the model that is meant. Raises UserError when there is none."""
        name = choose_name(list(self._models), model_name)
        return name, self._models[name][choose_version(self._models[name], model_version, name)]


def _files(path: Path) -> dict[int, Path]:
    return {number: _file(version) for number, version in versions_on_disk(path).items()}


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.onnx"))
    if len(found) != 1:
        raise UserError(f"{path}: expected exactly one file ending in .onnx, found {len(found)}")
    return found[0]


def _version(path: Path) -> _Version:
    return _Version(path, _session(path), onnx_file.why_not_empty(path))


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("ONNX predictors need ONNX Runtime: pip install onnxruntime") from error
    wanted, available = ("CUDAExecutionProvider", "CPUExecutionProvider"), onnxruntime.get_available_providers()
    providers = [name for name in wanted if name in available]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.available()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # an engine: its own exception types derive from Exception alone
        raise NotStarted(f"{path}: ONNX Runtime cannot load the model: {error}") from error


def _describe(session: Any) -> dict[str, Any]:
    return {
        tensor.name: {"shape": list(tensor.shape), "type": _NUMPY_TYPES.get(tensor.type, tensor.type)}
        for tensor in session.get_inputs()
    }


def _inputs(session: Any, model_input: Any, model: str) -> dict[str, Array]:
    tensors = session.get_inputs()
    if len(tensors) == 1 and not isinstance(model_input, Mapping):
        return {tensors[0].name: _array(tensors[0], model_input, model)}
    if not isinstance(model_input, Mapping):
        keys = ", ".join(f'"{tensor.name}"' for tensor in tensors)
        raise UserError(f"expected model_input to be a dictionary with keys '{keys}' for model '{model}'")
    for tensor in tensors:
        if model_input.get(tensor.name) is None:
            raise UserError(f"missing key '{tensor.name}' for model '{model}'")
    return {tensor.name: _array(tensor, model_input[tensor.name], model) for tensor in tensors}


def _array(tensor: Any, value: Any, model: str) -> Array:
    if tensor.type not in _NUMPY_TYPES:
        raise UserError(f"key '{tensor.name}' for model '{model}': numpy has no arrays of {tensor.type}")
    wanted = np.dtype(_NUMPY_TYPES[tensor.type])
    shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
    try:
        array = _cast(value, wanted)
        return array.reshape(shape) if shape.count(-1) <= 1 else array
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"key '{tensor.name}' for model '{model}': failed to convert to numpy array for model '{model}': {error}"
        ) from error


def _cast(value: Any, wanted: np.dtype[Any]) -> Array:
    if not isinstance(value, np.ndarray):
        return np.array(value, wanted)
    if np.issubdtype(value.dtype, np.number) != np.issubdtype(wanted, np.number):
        raise ValueError(f"expected dtype '{wanted}' but found '{value.dtype}'")
    return value.astype(wanted, copy=False)
