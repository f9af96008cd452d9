"""An artifact's answers to the requests recorded with its source, and how far they are from the recorded ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cortex.errors import UserError
from cortex.protos import prediction_log_pb2
from export import recorded_requests
from export.model_card import Agreement, Tolerance
from export.recorded_requests import Answers, Images
from export.signature import IMAGE, INPUT, OUTPUT

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


def read(directory: Path) -> Recorded:
    """Return the requests and answers of a version directory: the first image, and all others as one request.

    So both one image and several are asked for. Records of other signatures are left out, as those signatures are.
    Raises UserError for no requests, or for others than of pictures.
    """
    path = directory / recorded_requests.FILE
    logs = [log for log in recorded_requests.read(directory) if recorded_requests.is_ours(log)]
    if not logs:
        missing = f"has no recorded requests ({recorded_requests.FILE}) to check with"
        raise UserError(f"{directory} {missing}: python -m export cpu needs none")
    pairs = [_pair(path, log) for log in logs]
    images, answers = (np.concatenate(side) for side in zip(*pairs, strict=True))
    cuts = [1] if len(images) > 1 else []
    return Recorded(tuple(np.split(images, cuts)), tuple(np.split(answers, cuts)))


def _pair(path: Path, log: prediction_log_pb2.PredictionLog) -> tuple[Images, Answers]:
    asked = log.predict_log
    if INPUT not in asked.request.inputs or OUTPUT not in asked.response.outputs:
        raise UserError(f"{path}: every record must be a Predict of {INPUT!r} with its answer in {OUTPUT!r}")
    try:
        images, answers = recorded_requests.images_of(log), recorded_requests.answers_of(log)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if images.shape[1:] != IMAGE or answers.shape[:1] != images.shape[:1] or not answers.size:
        raise UserError(f"{path}: images of shape {list(images.shape)} have answers of shape {list(answers.shape)}")
    return images, answers


def answered(samples: Iterable[Mapping[str, Images]], answer: Answer) -> Recorded:
    """Return samples with a model's answers to them, to compare another one's with."""
    requests = tuple(sample[INPUT] for sample in samples)
    return Recorded(requests, tuple(answer(images) for images in requests))


def measure(
    recorded: Recorded, answer: Answer, allowed: Tolerance, of: str, over: str = "recorded requests"
) -> Measured:
    """Send every request, and compare; ``of`` names what gave the answers, ``over`` what the requests are."""
    worst, same, outside = 0.0, 0, ""
    for number, (images, want) in enumerate(zip(recorded.requests, recorded.answers, strict=True), start=1):
        got = answer(images)
        difference = np.abs(got - want) if got.shape == want.shape else np.full(want.shape, np.inf)
        if not np.all(difference <= allowed.atol + allowed.rtol * np.abs(want)):
            outside = outside or f"the answer to request {number} is off by {float(difference.max()):.2g}"
        worst = max(worst, float(difference.max()))
        same += int((got.argmax(1) == want.argmax(1)).sum()) if got.shape == want.shape else 0
    return Measured(Agreement(of, sum(map(len, recorded.answers)), worst, same, over), outside)
