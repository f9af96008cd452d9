"""The signature of a SavedModel that a client calls: which one, and what its inputs are."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cortex.errors import UserError
from cortex.protos import meta_graph_pb2
from cortex.tensors import type_name

_log = logging.getLogger("cortex")
_NOT_FOR_CALLERS = "__saved_model_init_op"  # every SavedModel of TensorFlow 2 may have it
_USUAL = ("predict", "serving_default")
"""What is called of several, the first that there is: Cortex's, and TF Serving's own (docs/decisions/0017)."""


@dataclass(frozen=True)
class Input:
    """One input of a signature. ``shape`` has -1 for what is not fixed, and is None when even the rank is not."""

    dtype: int
    shape: tuple[int, ...] | None

    @property
    def expectation(self) -> str:
        """Say in words which shape is expected."""
        if self.shape is None:
            return "can be of any rank and shape"
        return f"expected shape {list(self.shape)}" if self.shape else "expected to be a scalar"

    def describe(self) -> dict[str, Any]:
        """Return the shape and the type as Cortex shows them."""
        shape: list[Any] = ["unknown"] if self.shape is None else list(self.shape) or ["scalar"]
        return {"shape": shape, "type": type_name(self.dtype)}


@dataclass(frozen=True)
class Signature:
    """The signature that is called: its key, and its inputs by name."""

    key: str
    inputs: Mapping[str, Input]

    def describe(self) -> dict[str, Any]:
        """Return the inputs as Cortex shows them."""
        return {name: tensor.describe() for name, tensor in self.inputs.items()}


def choose_signature(
    signatures: Mapping[str, meta_graph_pb2.SignatureDef], configured: str | None, model: str
) -> Signature:
    """Return the configured signature, else the only one, else a usual one. Raises UserError when none of these is."""
    keys = sorted(key for key in signatures if key != _NOT_FOR_CALLERS)
    if not keys:
        raise UserError(f"unable to find signature defs in model '{model}'")
    key = _choose_key(keys, configured, model)
    inputs = {name: _input(info) for name, info in sorted(signatures[key].inputs.items())}
    if not inputs:
        raise UserError(f"unable to find 'inputs' in signature def '{key}' for model '{model}'")
    return Signature(key, inputs)


def _choose_key(keys: list[str], configured: str | None, model: str) -> str:
    if configured is not None:
        if configured not in keys:
            found = f"key{'s' if len(keys) > 1 else ''}: " + ", ".join(f"'{key}'" for key in keys)
            raise UserError(
                f"signature_key '{configured}' was not found in signature def map for model '{model}', "
                f"but found the following {found}"
            )
        return configured
    usual = keys if len(keys) == 1 else [key for key in _USUAL if key in keys]
    if not usual:
        raise UserError(
            f"signature_key was not configured by user, please specify one the following keys '{', '.join(keys)}' "
            f"for model '{model}' (found in the signature def map)"
        )
    key = usual[0]
    _log.info(
        "signature_key was not configured by user, using signature key '%s' for model '%s' "
        "(found in the signature def map)",
        key,
        model,
    )
    return key


def _input(info: meta_graph_pb2.TensorInfo) -> Input:
    unknown = info.tensor_shape.unknown_rank
    return Input(info.dtype, None if unknown else tuple(dim.size for dim in info.tensor_shape.dim))
