"""How well a model's answers agree with those of what it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cortex.errors import UserError
from export.inference import Answer, Inputs, Outputs


@dataclass(frozen=True)
class Agreement:
    """What was measured over so many samples.

    ``same_first_class`` counts those of which every output with classes has its largest value at the same one; it is
    None for a model without such an output. ``max_difference`` is the largest between two decimals.
    """

    samples: int
    same_first_class: int | None
    max_difference: float

    @property
    def top1(self) -> float | None:
        """The share of the samples for which the first class is the same."""
        return None if self.same_first_class is None else self.same_first_class / self.samples

    def __str__(self) -> str:
        apart = f"no value differs by more than {self.max_difference:.2g}"
        if self.top1 is None:
            return f"{self.samples} samples: {apart}"
        return f"the first class is the same for {self.same_first_class} of {self.samples} ({self.top1:.1%}), {apart}"


def measure(answer: Answer, expected: Answer, samples: Iterable[Inputs]) -> Agreement:
    """Ask both about every sample, one after the other. A sample may have several rows: each of them counts."""
    count, same, apart = 0, [], 0.0
    for inputs in samples:
        got, want = answer(inputs), expected(inputs)
        rows = _same_first(got, want)
        count += 1 if rows is None else len(rows)
        same += [] if rows is None else [rows]
        apart = max(apart, difference(got, want))
    return Agreement(count, int(np.concatenate(same).sum()) if same else None, apart)


def difference(got: Outputs, want: Outputs) -> float:
    """Return the largest difference between two decimals of all outputs. Raises UserError where it is not finite."""
    decimals = [alias for alias, array in want.items() if array.dtype.kind == "f" and array.size]
    apart = [float(np.abs(got[alias] - want[alias]).max()) for alias in decimals]
    if not np.isfinite(apart).all():
        raise UserError("the artifact, or its source, does not answer with finite numbers")
    return max(apart, default=0.0)


def certainty(outputs: Outputs) -> float:
    """Return how far the second class is behind the first, in the row and output where that is least.

    It is 0 for a model without classes.
    """
    best = [np.sort(array, axis=1)[:, -2:] for array in outputs.values() if _has_classes(array)]
    return min((float((pair[:, 1] - pair[:, 0]).min(initial=np.inf)) for pair in best), default=0.0)


def _same_first(got: Outputs, want: Outputs) -> NDArray[np.bool_] | None:
    """Say for each row whether the largest value is at the same place in every output ``[rows, classes]``."""
    scores = [alias for alias, array in want.items() if _has_classes(array)]
    if not scores:
        return None
    same: NDArray[np.bool_] = np.logical_and.reduce([got[each].argmax(1) == want[each].argmax(1) for each in scores])
    return same


def _has_classes(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" and array.ndim == 2 and array.shape[1] > 1
