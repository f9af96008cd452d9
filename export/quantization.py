"""Post-training quantization to int8 by NNCF."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any

from cortex.errors import UserError
from export.calibration_records import Sample
from export.progress import Step, reason

_TOLD = 100  # samples between two words about them


def check() -> None:
    """Raise UserError when NNCF is not installed."""
    if find_spec("nncf") is None:
        raise UserError("--precision int8 needs NNCF: pip install nncf")


def quantize(model: Any, samples: Sequence[Sample], step: Step) -> Any:
    """Return the ``openvino.Model`` with its convolutions and matrix products in int8.

    NNCF runs the model on the samples and takes the scale of every activation from what it sees; biases are corrected
    by the mean error. Raises UserError when NNCF or OpenVINO fails, or finds nothing to quantize.
    """
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use to its makers
    import nncf

    nncf.set_log_level(logging.ERROR)
    shown = 0

    def show(sample: Sample) -> Sample:
        nonlocal shown
        shown += 1
        if shown % _TOLD == 0:
            step(f"shown {shown} of {len(samples)} samples")
        return sample

    try:
        with redirect_stdout(io.StringIO()):  # its progress bars; results alone go to the standard output
            made = nncf.quantize(model, nncf.Dataset(samples, show), subset_size=len(samples))
    except Exception as error:  # NNCF and OpenVINO each raise their own
        raise UserError(f"NNCF cannot quantize this model ({reason(error)}): --precision bf16 may do") from error
    if not any(operation.get_type_name() == "FakeQuantize" for operation in made.get_ops()):
        raise UserError("nothing in this model can be computed in int8: pass --precision fp32 or bf16")
    return made
