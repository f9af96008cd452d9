"""TF Lite, the reference for its own format, by the LiteRT runtime (42 MB; TensorFlow is not executed).

An interpreter serves one thread at a time, so several share the work, as TF Serving's ``--num_tflite_pools`` has it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

from cortex.model_server.engines import tflite_file
from cortex.model_server.engines.base import (
    FP32,
    Array,
    Arrays,
    Description,
    EngineOptions,
    Unsupported,
    UnsupportedPrecision,
    fitted,
    one_line,
)
from cortex.model_server.engines.pool import Pool
from cortex.model_server.engines.ports import Port, signature
from cortex.model_server.engines.tflite_file import Tensors
from cortex.model_server.model_file import TFLITE, Model, ModelFile
from cortex.model_server.saved_model import Signatures
from cortex.model_server.status import invalid


class TFLite:
    """Run the signatures of a file on a pool of interpreters."""

    def __init__(self, signatures: Signatures, pool: "Pool[_Interpreter]", threads: int) -> None:
        self.signatures = signatures
        self._pool = pool
        self._threads = threads

    @classmethod
    def open(cls, model: Model, options: EngineOptions) -> Self:
        """Prepare a first interpreter. Raises Unsupported with LiteRT's own words."""
        if not isinstance(model, ModelFile) or model.format != TFLITE:
            raise Unsupported(f"TF Lite does not read {model.format} models")
        if options.precision != FP32:
            raise UnsupportedPrecision("TF Lite computes in the precision that the model was converted to")
        path, threads = model.path, options.cores
        stated = tflite_file.read(path)

        def make() -> _Interpreter:
            return _Interpreter(lambda: Interpreter(model_path=str(path), num_threads=threads), stated)

        pool = Pool(make, options.interpreters or options.cores)
        try:
            with pool.item(None) as first:
                return cls(first.signatures, pool, threads)
        except (ValueError, RuntimeError) as error:
            raise Unsupported(f"TF Lite cannot load {path.name}: {one_line(error)}") from error

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str], deadline: float | None = None
    ) -> Arrays:
        """Return the named outputs. The deadline bounds the wait for an interpreter, not its run."""
        with self._pool.item(deadline) as interpreter:
            return interpreter.run(signature, inputs, outputs)

    def describe(self) -> Description:
        """Return the threads of one interpreter."""
        return Description("tflite", FP32, self._threads)

    def close(self) -> None:
        """Let go of the interpreters."""
        del self._pool


class _Interpreter:
    """One interpreter, with each signature as what runs it and the aliases and shapes of its tensors.

    It is made anew, with its variables, after a run that failed: the texts of all errors pile up inside, and each error
    copies and tells them all.
    """

    def __init__(self, make: Callable[[], Any], stated: Mapping[str, Tensors]) -> None:
        self._make = make
        self._stated = stated
        self._runners = self._made()
        self.signatures = {
            key: signature(_ports(runner.get_input_details()), _ports(runner.get_output_details()))
            for key, runner in self._runners.items()
        }

    def run(self, key: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Arrays:
        infos = self.signatures[key].inputs
        arrays = {alias: _fitted(alias, array, infos[alias]) for alias, array in inputs.items()}
        try:
            values = self._runners[key](**arrays)
        except (ValueError, RuntimeError) as error:
            self._runners = self._made()
            raise invalid(one_line(error)) from error
        return {alias: values[alias] for alias in outputs}

    def _made(self) -> dict[str, Any]:
        interpreter = self._make()
        interpreter.allocate_tensors()
        return {
            key: interpreter.get_signature_runner(key) if tensors.is_stated else _Whole(interpreter)
            for key, tensors in self._stated.items()
        }


class _Whole:
    """The main graph of a file without signatures, called as a signature is."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter

    def get_input_details(self) -> dict[str, Any]:
        return {each["name"]: each for each in self._interpreter.get_input_details()}

    def get_output_details(self) -> dict[str, Any]:
        return {each["name"]: each for each in self._interpreter.get_output_details()}

    def __call__(self, **inputs: Array) -> Arrays:
        at = {name: each["index"] for name, each in self.get_input_details().items()}
        for name, array in inputs.items():
            self._interpreter.resize_tensor_input(at[name], array.shape)
        self._interpreter.allocate_tensors()
        for name, array in inputs.items():
            self._interpreter.set_tensor(at[name], array)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(each["index"]) for name, each in self.get_output_details().items()}


def _ports(details: Mapping[str, Any]) -> list[Port]:
    return [
        Port(alias, each["name"], _dtype(each["dtype"]), tuple(int(size) for size in each["shape_signature"]) or None)
        for alias, each in details.items()
    ]


def _dtype(kind: Any) -> np.dtype[Any]:
    return np.dtype(np.object_) if kind in (np.bytes_, np.str_) else np.dtype(kind)


def _fitted(alias: str, array: Array, info: Any) -> Array:
    """Return the array in the declared rank. Resizing to another fixed size would break the graph: it is refused."""
    if info.tensor_shape.unknown_rank:
        return array
    declared = [dim.size for dim in info.tensor_shape.dim]
    fit = fitted(array, len(declared))
    if fit.ndim != len(declared) or any(want not in (-1, size) for want, size in zip(declared, fit.shape, strict=True)):
        raise invalid(f"input {alias!r} has shape {list(array.shape)}, but the signature declares {declared}")
    return fit
