"""The model server with an engine that dies or hangs as native code does, where the version directory tells it to.

``python -m tests.model_server.aborting_server FLAGS``: a version with a file ``abort_on_load`` aborts the process while
it is loaded, one with ``abort_on_run`` at a request; one with ``hang_on_run`` or ``hang_on_close`` never returns.
"""

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from cortex.model_server.engines.base import EngineOptions
from cortex.model_server.engines.selection import ENGINES
from cortex.model_server.saved_model import SavedModel
from cortex.model_server.server import main
from tests.model_server.fake_engine import FakeEngine


class AbortingEngine(FakeEngine):
    """Answer as FakeEngine does, or end the process."""

    name = "aborting"

    def __init__(self, model: SavedModel, options: EngineOptions) -> None:
        super().__init__(model, options)
        self._directory = model.directory
        self._abort_if("abort_on_load")

    def run(
        self, signature: str, inputs: Mapping[str, Any], outputs: Sequence[str], deadline: float | None = None
    ) -> dict[str, Any]:
        self._abort_if("abort_on_run")
        self._hang_if("hang_on_run")
        return super().run(signature, inputs, outputs, deadline)

    def close(self) -> None:
        self._hang_if("hang_on_close")

    def _abort_if(self, name: str) -> None:
        if (self._directory / name).exists():
            os.abort()

    def _hang_if(self, name: str) -> None:
        if (self._directory / name).exists():
            threading.Event().wait()


if __name__ == "__main__":
    ENGINES["tensorflow"] = "tests.model_server.aborting_server:AbortingEngine"
    sys.exit(main())
