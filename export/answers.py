"""An ONNX artifact's answers to the requests recorded with its source, and how far they are from the recorded ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cortex.errors import UserError
from cortex.protos import prediction_log_pb2
from cortex.tfrecord import CorruptedRecord, read_records
from export import recorded_requests
from export.model_card import Agreement, Tolerance
from export.recorded_requests import Answers, Images
from export.signature import INPUT, OUTPUT

Answer = Callable[[Images], Answers]


@dataclass(frozen=True)
class Recorded:
    """What was asked, request by request, and what was answered."""

    requests: tuple[Images, ...]
    answers: tuple[Answers, ...]

    @property
    def largest(self) -> float:
        """The largest probability among the answers."""
        return max(float(answers.max()) for answers in self.answers)


@dataclass(frozen=True)
class Measured:
    """The agreement of an artifact with the recorded answers, and the first request that is out of tolerance."""

    agreement: Agreement
    outside: str

    def document(self) -> dict[str, Any]:
        """Return the agreement as a model card has it."""
        facts = asdict(self.agreement)
        return {"with": facts.pop("with_"), **facts}


def read(directory: Path) -> Recorded:
    """Return the requests and answers of a version directory. Raises UserError for none, or for other signatures'."""
    path = directory / recorded_requests.FILE
    try:
        logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in read_records(path)]
    except FileNotFoundError:
        raise UserError(f"{directory} has no recorded requests ({recorded_requests.FILE}) to check with") from None
    except (OSError, CorruptedRecord, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    usable = [
        log for log in logs if INPUT in log.predict_log.request.inputs and OUTPUT in log.predict_log.response.outputs
    ]
    if not usable or len(usable) != len(logs):
        raise UserError(f"{path}: every record must be a Predict of {INPUT!r} with its answer in {OUTPUT!r}")
    return Recorded(
        tuple(recorded_requests.images_of(log) for log in usable),
        tuple(recorded_requests.answers_of(log) for log in usable),
    )


def measure(recorded: Recorded, answer: Answer, allowed: Tolerance, of: str) -> Measured:
    """Send every recorded request, and compare; ``of`` names what gave the recorded answers."""
    worst, same, outside = 0.0, 0, ""
    for number, (images, want) in enumerate(zip(recorded.requests, recorded.answers, strict=True), start=1):
        got = answer(images)
        difference = np.abs(got - want) if got.shape == want.shape else np.full(want.shape, np.inf)
        if not np.all(difference <= allowed.atol + allowed.rtol * np.abs(want)):
            outside = outside or f"the answer to recorded request {number} is off by {float(difference.max()):.2g}"
        worst = max(worst, float(difference.max()))
        same += int((got.argmax(1) == want.argmax(1)).sum()) if got.shape == want.shape else 0
    return Measured(Agreement(of, sum(map(len, recorded.answers)), worst, same), outside)
