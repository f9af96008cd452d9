"""Replay the requests recorded beside a model, and compare the answers recorded with them.

TF Serving's warm-up file is ``assets.extra/tf_serving_warmup_requests``: a TFRecord file of PredictionLog messages. It
replays the requests to warm the model. Here a record that also holds a response proves the model: an answer out of
tolerance keeps the version from going live.

Tolerance, per element, against a recorded value v of an output whose largest recorded magnitude is m:

- what the model card states: ``atol + rtol * |v|``;
- without a card: ``0.01 * |v| + 0.001 * m``. It scales with the output, so that a thousand near-equal probabilities
  of 0.001 are still told apart from noise;
- in bf16, whatever the card of a model made in another precision states, at least ``0.05 * |v| + 0.03 * m``: bf16 has 8
  significant bits (0.4 % a step), and some fifty layers add up to a few percent of the largest value.

Integers, booleans and strings must be equal. Of classifications the labels and scores are compared, of regressions the
values.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from cortex.model_server import warmup_records
from cortex.model_server.engines.base import BF16, Array
from cortex.model_server.model_card import ModelCard
from cortex.model_server.request import current
from cortex.model_server.status import Code, StatusError, invalid
from cortex.protos import prediction_log_pb2
from cortex.tfrecord import CorruptedRecord, read_records

_log = logging.getLogger(__name__)

MAX_RECORDS = 1000

Answer = Callable[[prediction_log_pb2.PredictionLog], Mapping[str, Array]]


class Mismatch(StatusError):
    """Say which recorded answer the model does not give, and by how much it is off."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.FAILED_PRECONDITION, message)


class Refused(StatusError):
    """Say which recorded request the engine does not answer; another engine may."""


@dataclass(frozen=True)
class Tolerance:
    """How far an element may be off: ``atol + rtol * |value| + scale * (largest |value| of the output)``."""

    rtol: float = 0.01
    atol: float = 1e-6
    scale: float = 0.001

    def allowed(self, want: Array) -> Array:
        """Return the error allowed for each element of a recorded output."""
        size = np.where(np.isfinite(want), np.abs(want), 0)  # infinities and NaN have to be met exactly
        allowed: Array = self.atol + self.rtol * size + self.scale * np.max(size, initial=0)
        return allowed


_DEFAULT = Tolerance()
_IN_BF16 = Tolerance(rtol=0.05, scale=0.03)


def tolerances(card: ModelCard | None, precision: str) -> tuple[Tolerance, ...]:
    """Return the tolerances of a model that runs in this precision; an element need only be within one of them."""
    stated = _DEFAULT
    if card is not None and (card.rtol is not None or card.atol is not None):
        stated = Tolerance(rtol=card.rtol or 0.0, atol=card.atol or 0.0, scale=0.0)
    if precision == BF16 and (card is None or card.precision not in (BF16, "bfloat16")):
        return (stated, _IN_BF16)
    return (stated,)


def replay(directory: Path, answer: Answer, allowed: tuple[Tolerance, ...], iterations: int = 1) -> int:
    """Send every recorded request of a version directory, and compare the recorded answers. Returns how many matched.

    Raises StatusError for a file that cannot be used, for a request that fails what ``answer`` raises, and Mismatch for
    a wrong answer.
    """
    path = directory / "assets.extra" / "tf_serving_warmup_requests"
    if not path.is_file():
        _log.info("No warmup data file found at %s", path)
        return 0
    _log.info("Starting to read warmup data for model at %s", path)
    started = time.monotonic()
    read = compared = 0
    for number, log in enumerate(_logs(path), start=1):
        compared += _replay_one(f"warmup record {number} of {path}", log, answer, allowed, iterations)
        read = current().warmed = number
    _log.info(
        "Finished reading warmup data for model at %s. Number of warmup records read: %d. "
        "Elapsed time (microseconds): %d.",
        path,
        read,
        (time.monotonic() - started) * 1e6,
    )
    return compared


def _records(path: Path) -> Iterator[bytes]:
    try:
        yield from read_records(path)
    except CorruptedRecord as error:
        text = f"{error}. Please verify your warmup data is in TFRecord format."
        raise StatusError(Code.DATA_LOSS, text) from error


def _logs(path: Path) -> Iterable[prediction_log_pb2.PredictionLog]:
    for number, record in enumerate(_records(path), start=1):
        if number > MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
        try:
            yield prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError as error:
            raise invalid(f"Failed to parse warmup record: number {number} from {path}: {error}") from error


def _replay_one(
    where: str,
    log: prediction_log_pb2.PredictionLog,
    answer: Answer,
    allowed: tuple[Tolerance, ...],
    iterations: int,
) -> bool:
    try:
        warmup_records.check(log)
        for _ in range(iterations):
            got = answer(log)
    except StatusError as error:
        raise type(error)(error.code, f"{where} failed: {error.message}") from error
    try:
        recorded = warmup_records.recorded(log)
    except ValueError as error:
        raise invalid(f"{where}: the recorded answer is malformed: {error}") from error
    for name, want in sorted(recorded.items()):
        _compare(f"{where}: output {name!r}", got.get(name), want, allowed)
    return bool(recorded)


def _compare(where: str, got: Array | None, want: Array, allowed: tuple[Tolerance, ...]) -> None:
    if got is None:
        raise Mismatch(f"{where} was recorded, but the model does not return it")
    if got.shape != want.shape or got.dtype != want.dtype:
        raise Mismatch(
            f"{where} is {got.dtype.name}{list(got.shape)}, but {want.dtype.name}{list(want.shape)} was recorded"
        )
    if want.dtype.kind not in "fcV":  # V: bfloat16 and its kin are void to numpy
        if not np.array_equal(got, want):
            raise Mismatch(f"{where} differs from the recorded answer {_first_difference(got, want)}")
        return
    _compare_floats(where, _wide(got), _wide(want), allowed)


def _compare_floats(where: str, got: Array, want: Array, allowed: tuple[Tolerance, ...]) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.nan_to_num(np.abs(got - want), nan=np.inf, posinf=np.inf)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    limit = np.maximum.reduce([tolerance.allowed(want) for tolerance in allowed])
    if np.all(same | (error <= limit)):
        return
    excess = np.where(same, -np.inf, error - limit)
    worst = np.unravel_index(int(np.argmax(excess)), want.shape)
    raise Mismatch(
        f"{where} is out of tolerance: largest error {error[worst]:.4g} at {[int(index) for index in worst]} "
        f"(recorded {want[worst]:.6g}, got {got[worst]:.6g}, allowed {limit[worst]:.4g})"
    )


def _wide(array: Array) -> Array:
    return array if array.dtype.kind == "c" else array.astype(np.float64)


def _first_difference(got: Array, want: Array) -> str:
    worst: Any = np.argwhere(got != want)[0]
    index = tuple(int(part) for part in worst)
    return f"at {list(index)} (recorded {want.item(index)!r}, got {got.item(index)!r})"
