"""What a graph computes before its matrix products stays exact in bf16: numbers there may be indices or positions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from openvino._offline_transformations import apply_moc_transformations

from cortex.model_server.engines.base import BF16, FP32, EngineOptions
from cortex.model_server.engines.openvino import OpenVINO
from cortex.model_server.model_file import IR, TFLITE, ModelFile

pytestmark = pytest.mark.skipif(
    "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this processor does not compute in bf16",
)

WIDTH = 16
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(0, 1, (WIDTH, WIDTH)).astype(np.float32)
TABLE = RANDOM.normal(0, 1, (3000, WIDTH)).astype(np.float32)


def product(given: Any) -> Any:
    return ops.matmul(given, ops.constant(WEIGHTS), False, False)


def waves(count: Any) -> Any:
    """Return the sines of ``count`` positions, as networks for text add them."""
    places = ops.convert(ops.range(ops.constant(0), count, ops.constant(1), "i32"), "f32")
    speeds = ops.constant(np.linspace(1, 2, WIDTH, dtype=np.float32))
    return ops.sin(ops.multiply(ops.unsqueeze(places, ops.constant(1)), speeds))


def rows_of(given: Any) -> Any:
    return ops.gather(ops.shape_of(given, "i32"), ops.constant(0), ops.constant(0))


def looked_up(given: Any) -> Any:
    return product(ops.gather(ops.constant(TABLE), ops.convert(given, "i32"), ops.constant(0)))


def centred(given: Any) -> Any:
    years = ops.convert(given, "f32")
    return product(ops.concat([ops.subtract(years, ops.constant(np.float32(2000 + each))) for each in range(WIDTH)], 1))


def placed(given: Any) -> Any:
    return product(waves(rows_of(given)))


def placed_behind_a_product(given: Any) -> Any:
    hidden = product(given)
    return product(ops.add(hidden, waves(rows_of(hidden))))


@pytest.mark.parametrize(
    ("build", "kind", "shape", "sent"),
    [
        (looked_up, "f32", [-1], np.array([257, 1001, 2999], np.float32)),
        (centred, "i32", [-1, 1], np.array([[2001], [2007], [2023]], np.int32)),
        (placed, "f32", [-1, WIDTH], np.zeros((600, WIDTH), np.float32)),
        (placed_behind_a_product, "f32", [-1, WIDTH], np.zeros((600, WIDTH), np.float32)),
    ],
)
def test_numbers_that_mean_something_are_exact_in_bf16(
    build: Callable[[Any], Any], kind: str, shape: list[int], sent: Any, tmp_path: Path
) -> None:
    """They were those of another row of a table, of another year or of another position."""
    given = ops.parameter(shape, getattr(ov.Type, kind), name="given")
    given.output(0).set_names({"given"})
    answer = build(given)
    answer.output(0).set_names({"answer"})
    model = ov.Model([answer], [given])
    apply_moc_transformations(model, cf=False)  # as whatever writes an IR does
    ov.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    written = ModelFile(tmp_path, IR, tmp_path / "model.xml")
    want, got = (ask(written, precision, sent) for precision in (FP32, BF16))
    assert 0 < np.abs(got - want).max() < 0.02 * np.abs(want).max()  # but the products are rounded


def test_weights_in_half_precision_stay_what_they_are(engine_models: Path) -> None:
    """Some became NaN, or others, where what is exact was said in another way."""
    sent = RANDOM.normal(0, 1, (2, 16, 16, 8)).astype(np.float32)
    model = ModelFile(engine_models / "half_tflite" / "1", TFLITE, engine_models / "half_tflite" / "1" / "model.tflite")
    want, got = (ask(model, precision, sent) for precision in (FP32, BF16))
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()


def ask(model: ModelFile, precision: str, sent: Any) -> Any:
    engine = OpenVINO.open(model, EngineOptions(precision=precision))
    (answer,) = engine.signatures["serving_default"].outputs
    try:
        assert engine.describe().precision == precision
        return engine.run("serving_default", {"given": sent}, [answer])[answer]
    finally:
        engine.close()
