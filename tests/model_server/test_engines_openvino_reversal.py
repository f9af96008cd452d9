"""Channels that a graph reverses: OpenVINO has to do it once, and nothing else may change."""

from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from cortex.model_server.engines.openvino_reversal import reverse_by_gathers

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3)).astype(np.uint8)
KERNEL = np.random.default_rng(1).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)

ELLIPSIS = {"ellipsis_mask": [1, 0], "begin_mask": [0, 1], "end_mask": [0, 1]}  # as TensorFlow writes [..., ::-1]
WIDTH = {"ellipsis_mask": [1, 0, 0], "begin_mask": [0, 1, 1], "end_mask": [0, 1, 1]}
OPEN = {"begin_mask": [1, 1, 1, 1], "end_mask": [1, 1, 1, 1]}


def sliced(given: Any, steps: list[int], begin: int = 0, **masks: list[int]) -> Any:
    """Return a slice; masks that are not stated are empty, and stand for zeros."""
    names = ("begin_mask", "end_mask", "new_axis_mask", "shrink_axis_mask", "ellipsis_mask")
    entries = np.zeros(len(steps), np.int64)
    return ops.strided_slice(given, entries + begin, entries, np.array(steps), *(masks.get(name, []) for name in names))


def parameter(*shape: int) -> Any:
    found = ops.parameter(list(shape), np.uint8, name="pictures")
    found.output(0).set_names({"pictures"})
    return found


def answer(model: Any) -> Any:
    return ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([PICTURES])[0]


def kinds(model: Any) -> set[str]:
    return {node.get_type_name() for node in model.get_ops()}


@pytest.mark.parametrize(("steps", "masks"), [([1, -1], ELLIPSIS), ([1, 1, 1, -1], OPEN)], ids=["ellipsis", "all axes"])
def test_a_reversal_goes_into_the_weights(steps: list[int], masks: dict[str, list[int]]) -> None:
    """What is compiled for a network has no reversal any more, and answers the same."""

    def network() -> Any:
        given = parameter(-1, 6, 5, 3)
        centred = ops.subtract(ops.convert(sliced(given, steps, **masks), "f32"), np.float32([104, 117, 124]))
        rows = ops.transpose(centred, np.array([0, 3, 1, 2]))
        return ov.Model([ops.convolution(rows, KERNEL, [1, 1], [0, 0], [0, 0], [1, 1])], [given])

    changed = network()
    reverse_by_gathers(changed)
    compiled = ov.compile_model(changed, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    run = {node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()}
    assert "Convolution" in run
    assert not run & {"StridedSlice", "Gather"}
    np.testing.assert_allclose(compiled([PICTURES])[0], answer(network()), rtol=1e-5, atol=1e-2)


def test_a_reversal_that_is_the_answer() -> None:
    """Its name stays, and so does what it means."""
    given = parameter(-1, -1, -1, 3)
    reversal = sliced(given, [1, -1], **ELLIPSIS)
    reversal.output(0).set_names({"bgr"})
    model = ov.Model([reversal], [given])
    reverse_by_gathers(model)
    assert kinds(model) == {"Parameter", "Constant", "Gather", "Result"}
    assert model.output("bgr").get_names() == {"bgr"}
    np.testing.assert_array_equal(answer(model), PICTURES[..., ::-1])


@pytest.mark.parametrize(
    ("channels", "steps", "begin", "masks"),
    [
        pytest.param(3, [1, -1, 1], 0, WIDTH, id="width"),
        pytest.param(3, [-1], 0, {"begin_mask": [1], "end_mask": [1]}, id="rows"),
        pytest.param(3, [1, 1, -1, -1], 0, OPEN, id="width and channels"),
        pytest.param(3, [1, -2], 0, ELLIPSIS, id="every other channel"),
        pytest.param(3, [1, -1], 1, {**ELLIPSIS, "begin_mask": [0, 0]}, id="from the second channel"),
        pytest.param(3, [1, -1], 0, {**ELLIPSIS, "new_axis_mask": [0, 1]}, id="a new axis"),
        pytest.param(3, [1, 1], 0, ELLIPSIS, id="nothing"),
        pytest.param(-1, [1, -1], 0, ELLIPSIS, id="any number of channels"),
    ],
)
def test_other_slices_stay(channels: int, steps: list[int], begin: int, masks: dict[str, list[int]]) -> None:
    """What is not the reversal of all channels, or not known to be, is left as it is."""

    def model() -> Any:
        given = parameter(-1, 6, 5, channels)
        return ov.Model([sliced(given, steps, begin, **masks)], [given])

    changed = model()
    reverse_by_gathers(changed)
    assert "Gather" not in kinds(changed)
    np.testing.assert_array_equal(answer(changed), answer(model()))


def test_steps_that_are_computed_stay() -> None:
    """Nobody knows before a request what such a slice does."""
    given = parameter(-1, 6, 5, 3)
    steps = ops.parameter([2], np.int64, name="steps")
    zeros = np.zeros(2, np.int64)
    slice_ = ops.strided_slice(given, zeros, zeros, steps, [0, 1], [0, 1], [], [], [1, 0])
    model = ov.Model([slice_], [given, steps])
    reverse_by_gathers(model)
    assert "Gather" not in kinds(model)
