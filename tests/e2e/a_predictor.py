"""A predictor that is a class of a module, as a script imports it from a file of its own."""

import math
from typing import Any


class PythonPredictor:
    """Greet a number."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.greeting = config["greeting"]

    def predict(self, payload: float) -> str:
        """Return a greeting."""
        return f"{self.greeting} {math.floor(payload)}"
