"""Answers of a model, computed by the model server's own engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import openvino as ov
from numpy.typing import NDArray

from cortex.errors import UserError
from cortex.model_server.engines.base import BF16, FP32, EngineOptions, Unsupported
from cortex.model_server.engines.openvino import OpenVINO
from cortex.model_server.model_file import Model
from cortex.model_server.status import StatusError
from export.signature import SIGNATURE

Inputs = Mapping[str, NDArray[Any]]
Outputs = Mapping[str, NDArray[Any]]
Answer = Callable[[Inputs], Outputs]


def precisions() -> tuple[str, ...]:
    """Return the precisions that this processor computes in, fp32 first."""
    has_bf16 = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return (FP32, BF16) if has_bf16 else (FP32,)


@contextmanager
def opened(model: Model, precision: str) -> Iterator[OpenVINO]:
    """Yield the engine on a model, computing in a precision. Raises UserError when OpenVINO cannot run it."""
    try:
        engine = OpenVINO.open(model, EngineOptions(precision=precision))
    except Unsupported as error:
        raise UserError(f"{model.directory}: {error}") from error
    try:
        yield engine
    finally:
        engine.close()


def answer_of(engine: OpenVINO) -> Answer:
    """Return the signature as a function from all inputs to all outputs; it raises UserError for what is refused."""
    outputs = sorted(engine.signatures[SIGNATURE].outputs)

    def answer(inputs: Inputs) -> Outputs:
        try:
            return engine.run(SIGNATURE, inputs, outputs)
        except StatusError as error:
            raise UserError(f"the model cannot answer one of its samples: {error.message}") from error

    return answer
