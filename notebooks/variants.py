"""One model computed in several ways: how well each agrees with the recorded answers, and how fast it is here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

import numpy as np

from benchmark.machine import this_machine
from cortex.model_server.engines.base import Engine
from export.answers import Answer, Recorded, measure
from export.model_card import Agreement, Tolerance
from export.recorded_requests import Images
from export.signature import INPUT, OUTPUT, SIGNATURE

BATCH = 8
"""Images at once, for the second of the two speeds."""


@dataclass(frozen=True)
class Speed:
    """What one caller gets who sends the next request when the last is answered."""

    images_per_second: float
    median_ms: float


@dataclass(frozen=True)
class Variant:
    """A way to compute the model: its agreement, and its speed by one image and by ``BATCH`` images at once."""

    name: str
    agreement: Agreement
    single: Speed
    batched: Speed

    def __str__(self) -> str:
        name, same, images = " ".join(self.name.split()), self.agreement.same_first_class, self.agreement.images
        return (
            f"{name}: {self.single.median_ms:.1f} ms for one image, {self.batched.images_per_second:.1f} images/s "
            f"by {BATCH}, first class as recorded {same} of {images} times"
        )


def measured(name: str, engine: Engine, recorded: Recorded, seconds: float) -> Variant:
    """Ask an engine what was recorded, then the first picture over and over, for so many seconds by each batch size."""
    agreement = measure(recorded, answer_of(engine), Tolerance(0.0, np.inf), "the recorded answers").agreement
    return Variant(
        name,
        agreement,
        *sweep(engine, recorded.requests[0], (1, BATCH), seconds).values(),
    )


def sweep(engine: Engine, picture: Images, batches: Sequence[int], seconds: float) -> dict[int, Speed]:
    """Return an engine's speed by batch size, from one picture ``[1, 224, 224, 3]`` over and over."""
    answer = answer_of(engine)
    return {batch: _speed(partial(answer, np.repeat(picture, batch, axis=0)), batch, seconds) for batch in batches}


def answer_of(engine: Engine) -> Answer:
    """Return an engine as a function from images to probabilities."""
    return lambda images: engine.run(SIGNATURE, {INPUT: images}, [OUTPUT])[OUTPUT]


def where() -> str:
    """Say on what, and when, figures are measured now."""
    machine = this_machine()
    return f"{machine.cores} cores of {machine.cpu}, {date.today().isoformat()}"


def _speed(run: Callable[[], object], images: int, seconds: float) -> Speed:
    run()  # the first one of a shape makes an engine choose its kernels
    took: list[float] = []
    while not took or sum(took) < seconds:
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return Speed(images * len(took) / sum(took), 1000 * statistics.median(took))
