"""How well a model's answers agree with those of what it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cortex.errors import UserError
from export.inference import Answer, Inputs, Outputs
from export.model_card import Agreement


def measure(answer: Answer, expected: Answer, samples: Iterable[Inputs], of: str, over: str) -> Agreement:
    """Ask both about every sample, one after the other. A sample may have several rows: each of them counts.

    ``of`` names what gave the expected answers, ``over`` what the samples are.
    """
    count, same, apart = 0, [], 0.0
    for inputs in samples:
        got, want = answer(inputs), expected(inputs)
        rows = _same_first(got, want)
        count += 1 if rows is None else len(rows)
        same += [] if rows is None else [rows]
        apart = max(apart, difference(got, want))
    return Agreement(of, count, apart, int(np.concatenate(same).sum()) if same else None, over)


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
