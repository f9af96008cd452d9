"""The file of ``--batching_parameters_file``: TF Serving's BatchingParameters as a text proto."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex.model_server import text_proto
from cortex.model_server.status import invalid

PER_MODEL_FILE = "batching_params.pbtxt"

_FIELDS = {
    "max_batch_size": "Int64Value",
    "batch_timeout_micros": "Int64Value",
    "max_enqueued_batches": "Int64Value",
    "num_batch_threads": "Int64Value",
    "thread_pool_name": "StringValue",
    "enable_large_batch_splitting": "BoolValue",
    "max_execution_batch_size": "Int64Value",
    "allowed_batch_sizes": "repeated int64",
    "pad_variable_length_inputs": "bool",
}


@dataclass(frozen=True)
class BatchingParameters:
    """When to stop waiting for more requests, and how many rows to run at once.

    ``latency_bound_micros`` is not of the file: when it is set, ``max_batch_size`` and ``batch_timeout_micros`` are
    limits, within which `batching_pace` chooses.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0
    pad_variable_length_inputs: bool = False
    latency_bound_micros: int = 0

    @property
    def execution_size(self) -> int:
        """The most rows that one run of the model gets."""
        if self.enable_large_batch_splitting and self.max_execution_batch_size:
            return self.max_execution_batch_size
        return self.max_batch_size

    def makes_only(self, size: int) -> bool:
        """Say whether every batch has this many rows, padding included."""
        return self.padded(1) == size == self.execution_size

    def padded(self, size: int) -> int:
        """Return the smallest allowed size that holds a batch of this size."""
        return min((allowed for allowed in self.allowed_batch_sizes if allowed >= size), default=size)


@dataclass(frozen=True)
class BatchingSource:
    """Where parameters are read from, and read again on a reload.

    ``file`` None stands for the defaults. With ``per_model``, a version brings its own parameters or is not batched.
    """

    file: Path | None = None
    per_model: bool = False
    latency_bound_micros: int = 0

    def common(self) -> BatchingParameters:
        """Return the parameters of the whole server. Raises StatusError (INVALID_ARGUMENT)."""
        return self._bounded(read(self.file) if self.file else BatchingParameters())

    def own(self, directory: Path) -> BatchingParameters | None:
        """Return the parameters of a version directory, or None without a file. Raises StatusError.

        Threads are shared by all models: what the file says of them is not used, as in TF Serving.
        """
        path = directory / PER_MODEL_FILE
        return self._bounded(read(path)) if path.is_file() else None

    def _bounded(self, parameters: BatchingParameters) -> BatchingParameters:
        return dataclasses.replace(parameters, latency_bound_micros=self.latency_bound_micros)


def read(path: Path) -> BatchingParameters:
    """Read a parameters file. Raises StatusError (INVALID_ARGUMENT) that names the file and the field."""
    message = text_proto.read(path, "BatchingParameters", _FIELDS)
    values: dict[str, Any] = {
        name: getattr(message, name).value
        for name, kind in _FIELDS.items()
        if kind.endswith("Value") and message.HasField(name)
    }
    parameters = BatchingParameters(
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        **values,
    )
    _check(parameters, path)
    return parameters


def _check(parameters: BatchingParameters, path: Path) -> None:
    for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
        if getattr(parameters, name) < 1:
            raise invalid(f"{path}: {name} must be positive, not {getattr(parameters, name)}")
    if parameters.batch_timeout_micros < 0:
        raise invalid(f"{path}: batch_timeout_micros must not be negative")
    if not 0 <= parameters.max_execution_batch_size <= parameters.max_batch_size:
        raise invalid(f"{path}: max_execution_batch_size must be between 0 and max_batch_size")
    sizes = parameters.allowed_batch_sizes
    if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1):
        raise invalid(f"{path}: allowed_batch_sizes entries must be positive and in ascending order")
    if sizes and sizes[-1] != parameters.execution_size:
        raise invalid(f"{path}: the last entry of allowed_batch_sizes must equal {parameters.execution_size}")
