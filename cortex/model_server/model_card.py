"""What an artifact says about itself: ``assets.extra/model_card.json`` of a version directory."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)
_LONGEST = 2**20


@dataclass(frozen=True)
class ModelCard:
    """The parts of a card that a server acts on or reports. ``rtol`` and ``atol`` are None when none are stated."""

    source: str = ""
    weights: str = ""
    precision: str = ""
    rtol: float | None = None
    atol: float | None = None

    def __str__(self) -> str:
        said = {"source": self.source, "weights": self.weights, "precision": self.precision}
        return " ".join(f"{name}={value}" for name, value in said.items() if value) or "says nothing"


def read(directory: Path) -> ModelCard | None:
    """Return the card of a version directory, or None; one that cannot be read is warned of and ignored."""
    path = directory / "assets.extra" / "model_card.json"
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > _LONGEST:
            raise ValueError(f"larger than {_LONGEST} bytes")
        return _card(json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("Ignoring the model card %s: %s", path, error)
        return None


def _card(card: Any) -> ModelCard:
    if not isinstance(card, dict):
        raise ValueError("not a JSON object")
    tolerance = _object(card, "tolerance")
    return ModelCard(
        source=_text(card, "source"),
        weights=_text(_object(card, "weights"), "kind"),
        precision=_text(card, "precision"),
        rtol=_number(tolerance, "rtol"),
        atol=_number(tolerance, "atol"),
    )


def _object(parent: dict[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _text(parent: dict[str, Any], key: str) -> str:
    value = parent.get(key)
    return " ".join(value.split())[:200] if isinstance(value, str) else ""


def _number(parent: dict[str, Any], key: str) -> float | None:
    value = parent.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"tolerance.{key} must be a number that is not negative, not {value!r}")
    return float(value)
