"""The recorded requests of an artifact: which they are, how near an answer must be, and whether they hold.

The requests are those that the source has recorded for this signature, and of the samples that were held out from
calibration the ones it is least certain about: a certain answer stays 1.000 with a quarter of the weights gone. Where
there are neither, they are noise. The answers are the artifact's own, computed in fp32, which every processor has. So
they prove that what is loaded is what was exported; how near that is to the source is the agreement on the card.

An answer must be within ``atol + rtol * |recorded|``. In fp32 two machines differ by rounding alone. With weights in
bf16, or layers in int8, the same artifact answers differently by a few percent of the largest value, since it may be
computed in bf16, and since a value between two steps of int8 falls on one or the other; and a tolerance holds wherever
the artifact may be loaded. It is widened to twice what was seen here between fp32 and bf16 when that was more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from cortex.errors import UserError
from cortex.model_server import call, warmup, warmup_records
from cortex.model_server import model_card as served_card
from cortex.model_server.engines.base import Arrays
from cortex.model_server.engines.openvino import OpenVINO
from cortex.model_server.status import StatusError
from cortex.protos import predict_pb2, prediction_log_pb2
from cortex.tensors import to_proto
from export import recorded_requests
from export.agreement import certainty
from export.inference import Answer, Inputs, Outputs
from export.model_card import FP32_TOLERANCE, Tolerance

_TELLING = 5
_LOOKED_AT = 50  # samples, to find these


def requests_of(directory: Path) -> list[predict_pb2.PredictRequest]:
    """Return the requests recorded in a SavedModel that ask its signature ``serving_default`` to predict.

    Raises UserError when the file cannot be read.
    """
    return [log.predict_log.request for log in recorded_requests.read(directory) if recorded_requests.is_ours(log)]


def telling(samples: Iterable[Inputs], answer: Answer) -> list[predict_pb2.PredictRequest]:
    """Return, of the first 50 samples, the 5 with the least certain answers as requests."""
    seen = sorted(itertools.islice(samples, _LOOKED_AT), key=lambda sample: certainty(answer(sample)))
    return [
        predict_pb2.PredictRequest(inputs={alias: to_proto(array) for alias, array in sample.items()})
        for sample in seen[:_TELLING]
    ]


def inputs_of(request: predict_pb2.PredictRequest, engine: OpenVINO) -> Inputs:
    """Return the arrays of a request that the engine's model takes. Raises StatusError when it does not."""
    return call.parse(engine.signatures, request).inputs


def record(
    engine: OpenVINO, requests: Iterable[predict_pb2.PredictRequest], name: str, version: int
) -> list[prediction_log_pb2.PredictionLog]:
    """Return every request with the engine's answer, as model ``name``, ``version`` would have served it."""
    return [_log(engine, request, name, version) for request in requests]


def tolerance(precision: str, fp32: Sequence[Outputs], best: Sequence[Outputs]) -> Tolerance:
    """Return what answers recorded in fp32 may be off.

    ``best`` are the answers to the same requests in the best precision of this processor.
    """
    largest = max((_largest(outputs) for outputs in fp32), default=0.0)
    if precision == "fp32":
        return Tolerance(FP32_TOLERANCE.rtol, FP32_TOLERANCE.atol * max(1.0, largest))
    rtol = 0.05
    seen = max((_beyond(rtol, *pair) for pair in zip(fp32, best, strict=True)), default=0.0)
    return Tolerance(rtol, max(0.03 * largest, 2 * seen))


def replay(directory: Path, engine: OpenVINO, precision: str) -> int:
    """Do what a model server does before it serves: ask again, and compare. Returns how many answers were compared.

    Records of other signatures and kinds count as met. Raises StatusError for an answer that is out of tolerance.
    """
    allowed = warmup.tolerances(served_card.read(directory), precision)
    return warmup.replay(directory, _answering(engine), allowed)


def _answering(engine: OpenVINO) -> Callable[[prediction_log_pb2.PredictionLog], Arrays]:
    def run(asked: call.Call) -> Arrays:
        return engine.run(asked.signature, asked.inputs, asked.outputs)

    def answer(log: prediction_log_pb2.PredictionLog) -> Arrays:
        if not recorded_requests.is_ours(log):
            return dict(warmup_records.recorded(log))
        return dict(warmup_records.answer(log, engine.signatures, run))

    return answer


def _log(
    engine: OpenVINO, request: predict_pb2.PredictRequest, name: str, version: int
) -> prediction_log_pb2.PredictionLog:
    try:
        asked = call.parse(engine.signatures, request)
        outputs = engine.run(asked.signature, asked.inputs, asked.outputs)
    except StatusError as error:
        raise UserError(f"a recorded request cannot be answered: {error.message}") from error
    return recorded_requests.log_of(request, outputs, name, version)


def _largest(outputs: Outputs) -> float:
    decimals = [array[np.isfinite(array)] for array in outputs.values() if array.dtype.kind == "f"]
    return max((float(np.abs(array).max(initial=0.0)) for array in decimals), default=0.0)


def _beyond(rtol: float, recorded: Outputs, got: Outputs) -> float:
    """Return by how much an answer exceeds ``rtol * |recorded|`` at most."""
    decimals = [alias for alias, array in recorded.items() if array.dtype.kind == "f" and array.size]
    excess = [np.abs(got[each] - recorded[each]) - rtol * np.abs(recorded[each]) for each in decimals]
    return max((float(np.nan_to_num(each).max()) for each in excess), default=0.0)
