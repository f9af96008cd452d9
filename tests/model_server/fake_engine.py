"""Engines of the tests, that answer and refuse what they are told to."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from cortex.model_server.engines.base import Description, EngineOptions, Unsupported, UnsupportedPrecision
from cortex.model_server.saved_model import SavedModel
from cortex.model_server.status import invalid


class FakeEngine:
    """Answer ``y = x / 2 + addend``; the addend and what is refused are set by precision, for all instances."""

    name: ClassVar[str] = "fake"
    addends: ClassVar[dict[str, float]] = {}
    refused: ClassVar[str] = ""
    unanswered: ClassVar[str] = ""
    lacking: ClassVar[frozenset[str]] = frozenset()
    opened: ClassVar[list["FakeEngine"]] = []

    def __init__(self, model: SavedModel, options: EngineOptions) -> None:
        self.signatures = model.signatures
        self.options = options
        self.is_closed = False

    @classmethod
    def open(cls, model: SavedModel, options: EngineOptions) -> "FakeEngine":
        if options.precision in cls.lacking:
            raise UnsupportedPrecision(f"no {options.precision} here")
        if cls.refused:
            raise Unsupported(cls.refused)
        engine = cls(model, options)
        cls.opened.append(engine)
        return engine

    def run(
        self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str], deadline: float | None = None
    ) -> dict[str, Any]:
        if self.unanswered:
            raise invalid(self.unanswered)
        addend = self.addends.get(self.options.precision, 2.0)
        return {name: (inputs["x"] / 2 + addend).astype("float32") for name in outputs}

    def describe(self) -> Description:
        return Description(self.name, self.options.precision, 1)

    def close(self) -> None:
        self.is_closed = True


class FakeOpenVINO(FakeEngine):
    """Stands in for OpenVINO."""

    name = "openvino"


class FakeTensorFlow(FakeEngine):
    """Stands in for TensorFlow."""

    name = "tensorflow"
