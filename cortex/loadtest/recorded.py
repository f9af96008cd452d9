"""Requests that were recorded: PredictionLog messages in a TFRecord file, TF Serving's own format for warm-up."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from cortex.errors import UserError
from cortex.loadtest.expect import TOLERANCE, UNREADABLE
from cortex.loadtest.payloads import Payload
from cortex.loadtest.tfserving import PROTOBUF, answered
from cortex.protos import predict_pb2, prediction_log_pb2, tensor_pb2
from cortex.tensors import Array, to_array
from cortex.tfrecord import CorruptedRecord, read_records

_SCALE = 0.001  # of the largest value: what every element of an output may be off
_IN_JSON = {"b": "b", "i": "iu", "u": "iu"}  # what kinds numpy makes of JSON's values for these; of others any number's


@dataclass(frozen=True)
class RecordedOutputs:
    """The outputs of a recorded answer, as a serialized PredictResponse, on the wire of gRPC."""

    response: bytes
    tolerance: float = TOLERANCE

    def accepts(self, answer: bytes) -> bool:
        got, want = answered(answer), predict_pb2.PredictResponse.FromString(self.response)
        return got is not None and all(
            alias in got.outputs and _same(got.outputs[alias], proto, self.tolerance)
            for alias, proto in want.outputs.items()
        )


@dataclass(frozen=True)
class RecordedJSON:
    """The same on the wire of REST, in column format: by name, or alone when there is only one."""

    response: bytes
    tolerance: float = TOLERANCE

    def accepts(self, answer: bytes) -> bool:
        want = predict_pb2.PredictResponse.FromString(self.response).outputs
        try:
            got = json.loads(answer.decode(errors="surrogateescape"))["outputs"]
            is_named = isinstance(got, dict) and set(want) <= set(got)  # also what an output filter left out is there
            named = got if is_named else dict.fromkeys(want, got)
            return all(
                _same_json(alias, named[alias], to_array(proto), self.tolerance) for alias, proto in want.items()
            )
        except (*UNREADABLE, LookupError, TypeError):
            return False


def recorded(path: Path, model: str | None, *, rest: bool, check: bool, tolerance: float = TOLERANCE) -> list[Payload]:
    """Return the requests of a file, for gRPC or for REST.

    ``model`` replaces the name of the model in them. With ``check`` they expect the answers recorded with them. Raises
    UserError for a file that cannot be used.
    """
    payloads = []
    for number, log in enumerate(_logs(path), start=1):
        where = f"{path}, record {number}"
        if not log.HasField("predict_log"):
            raise UserError(f"{where}: holds no Predict request; only those can be sent")
        if model:
            log.predict_log.request.model_spec.name = model
        try:
            payloads.append(_payload(where, log.predict_log, rest, check, tolerance))
        except ValueError as error:
            raise UserError(f"{where}: a malformed tensor ({error})") from error
        except TypeError as error:
            raise UserError(f"{where}: {error}; send it by gRPC") from error
    if not payloads:
        raise UserError(f"{path}: no records in it")
    return payloads


def _payload(where: str, log: prediction_log_pb2.PredictLog, rest: bool, check: bool, tolerance: float) -> Payload:
    if check and not log.response.outputs:
        raise UserError(f"{where}: no answer was recorded with the request, so none can be expected")
    request, name = log.request, f"record {where.rpartition(' ')[2]}"
    sizes = [proto.tensor_shape.dim[0].size for proto in request.inputs.values() if proto.tensor_shape.dim]
    kind: type[RecordedOutputs | RecordedJSON] = RecordedJSON if rest else RecordedOutputs
    expected = kind(log.response.SerializeToString(), tolerance) if check else None
    if not rest:
        return Payload(request.SerializeToString(), PROTOBUF, max(sizes, default=1), name, expected)
    body = {"signature_name": request.model_spec.signature_name or "serving_default", "inputs": _column(request.inputs)}
    return Payload(json.dumps(body).encode(), "application/json", max(sizes, default=1), name, expected)


def _column(tensors: Mapping[str, tensor_pb2.TensorProto]) -> Any:
    """Return tensors as REST's column format has them: by name, or alone when there is only one."""
    plain = {alias: _plain(to_array(proto).tolist()) for alias, proto in tensors.items()}
    return next(iter(plain.values())) if len(plain) == 1 else plain


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(each) for each in value]
    return value.decode(errors="surrogateescape")


def _same(got: tensor_pb2.TensorProto, want: tensor_pb2.TensorProto, tolerance: float) -> bool:
    try:
        ours, theirs = to_array(got), to_array(want)
    except ValueError:
        return False
    return ours.dtype == theirs.dtype and _close(ours, theirs, tolerance)


def _same_json(alias: str, got: Any, want: Array, tolerance: float) -> bool:
    """Compare an output with JSON, whose numbers have no dtype, and whose empty lists have no more shape.

    Strings are text in it, and base64 only where the name of the output ends in ``_bytes``.
    """
    if want.dtype.kind == "O":
        return bool(got == (_plain if alias.endswith("_bytes") else _text)(want.tolist()))
    ours = np.array(got)
    if not ours.size:
        return not want.size
    return ours.dtype.kind in _IN_JSON.get(want.dtype.kind, "iuf") and _close(ours, want, tolerance)


def _close(ours: Array, theirs: Array, tolerance: float) -> bool:
    if ours.shape != theirs.shape:
        return False
    if theirs.dtype.kind not in "fcV":
        return bool(np.array_equal(ours, theirs))
    wide = np.complex128 if theirs.dtype.kind == "c" else np.float64
    ours, theirs = ours.astype(wide), theirs.astype(wide)
    scale = _SCALE * float(np.max(np.abs(theirs[np.isfinite(theirs)]), initial=0.0))
    return bool(np.allclose(ours, theirs, rtol=tolerance, atol=scale, equal_nan=True))


def _logs(path: Path) -> Iterator[prediction_log_pb2.PredictionLog]:
    try:
        for record in read_records(path):
            yield prediction_log_pb2.PredictionLog.FromString(record)
    except CorruptedRecord as error:
        raise UserError(f"{error}: damaged, or not a TFRecord file") from error
    except DecodeError as error:
        raise UserError(f"{path}: a record of it is not a PredictionLog") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a TFRecord file of PredictionLog messages") from error
