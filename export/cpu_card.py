"""What a CPU artifact says about itself: the card of its source, with what changed."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from cortex.protos import meta_graph_pb2
from cortex.tensors import type_name
from export.model_card import Tolerance
from export.signature import SIGNATURE
from export.source import Source


def card(
    source: Source,
    digest: str,
    precision: str,
    tolerance: Tolerance,
    agreement: Mapping[str, Any],
    calibration: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the card of an artifact that was just made; ``digest`` is that of the source."""
    tools = ("openvino", "numpy") + (("nncf",) if precision == "int8" else ())
    content = {
        "source": str(source.base),
        "signature": signature(source.signature),
        **source.card,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_from": {
            "path": str(source.directory),
            "sha256": digest,
            "precision": source.card.get("precision", "as saved"),
            "tools": source.card.get("tools", {}),
        },
        "precision": precision,
        "tolerance": asdict(tolerance),
        "agreement": agreement,
        "calibration": calibration,
        "tools": {"python": platform.python_version()} | {name: version(name) for name in tools},
    }
    return {key: value for key, value in content.items() if value is not None}


def signature(declared: meta_graph_pb2.SignatureDef) -> dict[str, Any]:
    """Return the inputs and outputs of a signature, each with dtype and shape."""
    sides = {"inputs": declared.inputs, "outputs": declared.outputs}
    return {"name": SIGNATURE} | {
        side: {
            alias: {"dtype": type_name(info.dtype), "shape": [dim.size for dim in info.tensor_shape.dim]}
            for alias, info in sorted(infos.items())
        }
        for side, infos in sides.items()
    }
