"""Samples in TFRecords: ImageNet's Examples, and the PredictionLogs of model servers.

An Example holds an encoded picture under ``image/encoded``, as the ImageNet data sets of TensorFlow's tools do. A
PredictionLog holds a request of Predict; its answer is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from cortex.errors import UserError
from cortex.model_server import call
from cortex.model_server.status import StatusError
from cortex.protos import example_pb2, meta_graph_pb2, prediction_log_pb2
from cortex.tfrecord import CorruptedRecord, read_records
from export import pictures
from export.pictures import BrokenPicture
from export.signature import SIGNATURE

Sample = Mapping[str, NDArray[Any]]

_MOST_FILES = 64  # open at once
_NAME = re.compile(r".*\.tfrecords?(-\d+-of-\d+)?|[^.]+-\d{5}-of-\d{5}|tf_serving_warmup_requests")
_ENCODED = "image/encoded"


def has_its_name(file: Path) -> bool:
    """Say whether a file is called as TFRecords are."""
    return _NAME.fullmatch(file.name) is not None


def samples(files: list[Path], signature: meta_graph_pb2.SignatureDef) -> Iterator[Sample | BrokenPicture]:
    """Yield the samples of the files in turn, one row at a time, and what is wrong with pictures that are broken.

    Of more than 64 files, 64 are read, evenly chosen. Raises UserError, naming file and record, for what is no
    TFRecord, neither kind of message, or no request of this signature.
    """
    chosen = np.linspace(0, len(files) - 1, min(len(files), _MOST_FILES)).astype(int)
    decode = _Decoder(signature)
    sources = [_of(files[index], decode) for index in chosen]
    while sources:
        for source in tuple(sources):
            try:
                yield next(source)
            except StopIteration:
                sources.remove(source)


class _Decoder:
    """Turn records into samples of a signature."""

    def __init__(self, signature: meta_graph_pb2.SignatureDef) -> None:
        self._signature = signature
        self._picture: Callable[[str, bytes], Sample] | None = None

    def rows(self, name: str, record: bytes) -> Iterator[Sample | BrokenPicture]:
        """Yield what is in a record. Raises ValueError and StatusError with the reason why it is no sample."""
        log = prediction_log_pb2.PredictionLog.FromString(record)
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            yield from self._requested(log)
        elif kind is not None:
            raise ValueError(f"a {kind}; only requests of Predict can be shown to the model")
        else:
            yield self._shown(name, record)

    def _requested(self, log: prediction_log_pb2.PredictionLog) -> Iterator[Sample]:
        asked = call.parse({SIGNATURE: self._signature}, log.predict_log.request)
        for alias, array in asked.inputs.items():
            _check_shape(alias, array, self._signature.inputs[alias])
        if not all(_is_batch(info) for info in self._signature.inputs.values()):
            yield asked.inputs
            return
        for row in range(min(len(array) for array in asked.inputs.values())):
            yield {alias: array[row : row + 1] for alias, array in asked.inputs.items()}

    def _shown(self, name: str, record: bytes) -> Sample | BrokenPicture:
        feature = example_pb2.Example.FromString(record).features.feature
        if _ENCODED not in feature or not feature[_ENCODED].bytes_list.value:
            raise ValueError(f"neither an Example with a picture in {_ENCODED} nor a PredictionLog")
        if self._picture is None:
            self._picture = pictures.reader(self._signature)
        try:
            return self._picture(name, feature[_ENCODED].bytes_list.value[0])
        except BrokenPicture as error:
            return error


def _of(file: Path, decoder: _Decoder) -> Iterator[Sample | BrokenPicture]:
    try:
        for number, record in enumerate(read_records(file), start=1):
            name = f"{file}, record {number}"
            try:
                yield from decoder.rows(name, record)
            except StatusError as error:
                raise UserError(f"{name}: {error.message}") from error
            except DecodeError:
                raise UserError(f"{name}: neither an Example nor a PredictionLog") from None
            except ValueError as error:
                raise UserError(f"{name}: {error}") from error
    except CorruptedRecord as error:
        raise UserError(f"--calibration: {error} (it must be a TFRecord file without compression)") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error


def _is_batch(info: meta_graph_pb2.TensorInfo) -> bool:
    return bool(info.tensor_shape.dim) and info.tensor_shape.dim[0].size == -1


def _check_shape(alias: str, array: NDArray[Any], info: meta_graph_pb2.TensorInfo) -> None:
    sizes = [dim.size for dim in info.tensor_shape.dim]
    fits = len(sizes) == array.ndim and all(size in (-1, got) for size, got in zip(sizes, array.shape, strict=False))
    if not info.tensor_shape.unknown_rank and not fits:
        raise ValueError(f"input {alias!r} has shape {list(array.shape)}, but the signature declares {sizes}")
