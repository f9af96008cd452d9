"""What the API worker asks of a client, whichever predictor it is for."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

Progress = Callable[[str], None]
"""Called with one line for a person each time what is awaited changes."""

Timed = Callable[[], AbstractContextManager[object]]
"""Makes a context around each prediction of a client, in the thread that asked for it: for whoever measures them."""


class ModelClient(Protocol):
    """Reach the models of one API. Safe to use from several threads."""

    @property
    def input_signatures(self) -> Mapping[str, Any]:
        """Describe the inputs: ``{model: {input: {"shape": [...], "type": "float32"}}}``; empty when nobody knows."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Describe every version of every model under ``name-version``."""

    def healthy(self) -> bool:
        """Say whether a prediction sent now could be answered. Blocks for a second at most."""

    def close(self) -> None:
        """Let go of the models. No call may follow."""
