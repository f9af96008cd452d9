"""What ``python -m export gpu`` is asked for, and how far the artifact's answers may be off."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cortex.errors import UserError
from cortex.model_server.engines.base import FP32
from cortex.model_server.engines.onnxruntime_recipe import FP16, INT8, TENSORRT
from export.answers import Recorded
from export.model_card import FP32_TOLERANCE, Tolerance


@dataclass(frozen=True)
class Order:
    """One export: ``version`` is the source's, the newest if None; ``output`` is SOURCE_gpu if None.

    ``batches`` are the batch sizes that TensorRT tunes for and that it allows at most. ``calibration`` and
    ``subset_size`` are for int8.
    """

    source: Path
    output: Path | None = None
    version: int | None = None
    force: bool = False
    precision: str = FP16
    provider: str = TENSORRT
    batches: tuple[int, int] = (32, 128)
    calibration: str | None = None
    subset_size: int = 300

    def check(self) -> None:
        """Raise UserError for options that contradict each other."""
        best, most = self.batches
        if best > most:
            raise UserError(f"--best-batch {best} is larger than --max-batch {most}")
        if self.precision == INT8 and self.calibration is None:
            raise UserError(
                "--precision int8 needs --calibration: its scales come from what the model is to see in use"
            )
        if self.precision != INT8 and self.calibration is not None:
            raise UserError(f"--calibration is for --precision int8; {self.precision} has no use for it")


def tolerance(precision: str, recorded: Recorded) -> Tolerance:
    """Return how far an answer may be off: fp16 has 11 significant bits, int8 eight, over some fifty layers.

    The absolute part scales with the largest probability, since a model may spread a thousand of them evenly.
    """
    relative, scale = {FP32: (FP32_TOLERANCE.rtol, 0.0), FP16: (0.02, 0.01), INT8: (0.1, 0.1)}[precision]
    return Tolerance(relative, max(FP32_TOLERANCE.atol, scale * recorded.largest))
