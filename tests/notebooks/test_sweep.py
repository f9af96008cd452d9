"""The one picture that only a machine with a GPU draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from notebooks import figures, variants
from notebooks.variants import Speed


class Engine:
    """Answers at once, and remembers how many images it was shown."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def run(self, signature: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> dict[str, Any]:
        self.shown.append(len(inputs["input"]))
        return {name: np.zeros((len(inputs["input"]), 1000), np.float32) for name in outputs}


def test_every_batch_size_is_measured_after_a_warm_up() -> None:
    engine = Engine()
    speeds = variants.sweep(engine, np.zeros((1, 224, 224, 3), np.uint8), (1, 4), seconds=0)  # type: ignore[arg-type]
    assert engine.shown == [1, 1, 4, 4]
    assert list(speeds) == [1, 4]
    assert all(speed.images_per_second > 0 and speed.median_ms > 0 for speed in speeds.values())


def test_the_sweep_is_drawn() -> None:
    image = figures.sweep({1: Speed(100.4, 9.96), 32: Speed(2000.0, 16.0)}, "a GPU")
    assert image.data.startswith(b"\x89PNG")
    assert image.alt == "images per second by batch size: 1: 100, 32: 2000"
