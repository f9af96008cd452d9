"""What an artifact says about itself: ``assets.extra/model_card.json``."""

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from export import recorded_requests
from export.signature import CLASS_INDEX, CLASSES, IMAGE_SIZE, INPUT, OUTPUT, SHORT_SIDE, SIGNATURE
from export.weights import Weights

FILE = "assets.extra/model_card.json"
_TOOLS = ("tensorflow", "keras", "numpy")


@dataclass(frozen=True)
class Tolerance:
    """How far an answer may be from the recorded one: ``|answer - recorded| <= atol + rtol * |recorded|``."""

    rtol: float
    atol: float


@dataclass(frozen=True)
class Agreement:
    """How far the artifact's answers are from those of what it was made from, and over which samples that was seen.

    ``same_first_class`` counts those of which every output with classes has its largest value at the same one; it is
    None for a model without such an output. ``max_difference`` is the largest between two decimals.
    """

    with_: str
    images: int
    max_difference: float
    same_first_class: int | None
    over: str = "recorded requests"

    @property
    def top1(self) -> float | None:
        """The share of the samples for which the first class is the same; None where there are none to share."""
        return None if self.same_first_class is None or not self.images else self.same_first_class / self.images

    def __str__(self) -> str:
        apart = f"no value differs by more than {self.max_difference:.2g}"
        if self.top1 is None:
            return f"{self.images} samples: {apart}"
        return f"the first class is the same for {self.same_first_class} of {self.images} ({self.top1:.1%}), {apart}"

    def document(self) -> dict[str, Any]:
        """Return the agreement as a card has it."""
        facts = asdict(self)
        return {"with": facts.pop("with_"), "over": facts.pop("over"), **facts}


FP32_TOLERANCE = Tolerance(rtol=1e-3, atol=1e-5)
"""What two engines may differ by in float32; they do by about 1e-5, relatively."""


def card(weights: Weights, digest: str, agreement: Agreement) -> dict[str, Any]:
    """Return the card of a SavedModel that was just exported."""
    return {
        "model": "ResNet-50",
        "source": "keras.applications.ResNet50",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights": _weights(weights, digest),
        "precision": "fp32",
        "tolerance": asdict(FP32_TOLERANCE),
        "agreement": agreement.document(),
        "signature": _signature(),
        "resize": f"short side {SHORT_SIDE}, center crop {IMAGE_SIZE} x {IMAGE_SIZE}",
        "labels": f"assets.extra/{CLASS_INDEX.name}",
        "tools": {"python": platform.python_version()} | {name: version(name) for name in _TOOLS},
    }


def derived(
    source: Mapping[str, Any],
    made_from: Mapping[str, Any],
    target: str,
    precision: str,
    tolerance: Tolerance,
    tools: Mapping[str, str],
) -> dict[str, Any]:
    """Return the card of an artifact that was just made for a target: what its source's card says, with what changed.

    What was measured of the source is left out: it says nothing about the artifact.
    """
    kept = {key: value for key, value in source.items() if key != "agreement"}
    return kept | {
        "target": target,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_from": dict(made_from),
        "precision": precision,
        "tolerance": asdict(tolerance),
        "tools": dict(source.get("tools", {})) | dict(tools),
    }


def write(directory: Path, content: Mapping[str, Any]) -> None:
    """Write the card into the artifact in ``directory``."""
    path = directory / FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def copy_extra(source: Path, directory: Path) -> None:
    """Copy what the source keeps in its ``assets.extra``, as its labels, but for what an artifact has of its own."""
    extra = source / "assets.extra"
    if extra.is_dir():
        own = shutil.ignore_patterns(Path(FILE).name, Path(recorded_requests.FILE).name)
        shutil.copytree(extra, directory / "assets.extra", dirs_exist_ok=True, ignore=own)


def _weights(weights: Weights, digest: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": weights.kind, "sha256": digest}
    if weights.path is not None:
        facts["path"] = str(weights.path)
    if weights.kind == "random":
        facts |= {"seed": weights.seed, "note": "not trained: labels and probabilities mean nothing"}
    return facts


def _signature() -> dict[str, Any]:
    return {
        "name": SIGNATURE,
        "inputs": {INPUT: {"dtype": "uint8", "shape": [-1, IMAGE_SIZE, IMAGE_SIZE, 3], "color": "RGB"}},
        "outputs": {OUTPUT: {"dtype": "float32", "shape": [-1, CLASSES], "activation": "softmax"}},
    }
