"""An ONNX graph in int8: each convolution and matrix product between a Quantize and a Dequantize, with fixed scales.

The scales are in the graph, so TensorRT needs no calibration of its own, and every other provider computes the same.
It takes symmetric scales alone (zero points of 0), and biases in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cortex.errors import UserError
from export.calibration_records import Sample
from export.progress import reason

_OPERATIONS = ["Conv", "MatMul", "Add"]
_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "AddQDQPairToWeight": True,  # TensorRT folds weights itself, from float32
    "DedicatedQDQPair": True,  # one pair for each consumer, which it fuses
}


def quantize(path: Path, samples: Sequence[Sample]) -> None:
    """Replace the graph in float32 at ``path``.

    Raises UserError with ONNX Runtime's words when it cannot be done, and OSError when ``path`` cannot be written.
    """
    import onnx
    from onnxruntime import quantization

    target = path.with_suffix(".int8.onnx")
    try:
        with _quiet():
            quantization.quantize_static(
                onnx.load(path),  # from a path it would write beside it, and not see a full disk
                str(target),
                _Reader(samples),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=_OPERATIONS,
                extra_options=_OPTIONS,
            )
        target.replace(path)
    except OSError:
        raise
    except Exception as error:  # ONNX Runtime and onnx each raise their own
        problem = f"ONNX Runtime cannot quantize this model ({reason(error)})"
        raise UserError(f"{problem}: --precision fp16 may do") from error


class _Reader:
    """Hand the samples out one by one, as ONNX Runtime asks for them."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._rest = map(dict, samples)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._rest, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep its advice from the log: it is about graphs that were not optimized, and tf2onnx has optimized this one."""
    before, nowhere = logging.root.level, logging.NullHandler()
    logging.root.setLevel(logging.ERROR)
    logging.root.addHandler(nowhere)  # with none there, it would add one that prints what everybody logs, for good
    try:
        yield
    finally:
        logging.root.removeHandler(nowhere)
        logging.root.setLevel(before)
