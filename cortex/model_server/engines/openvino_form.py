"""A compiled graph of OpenVINO and its infer requests, replaced by a new one where a run has spoilt it.

A graph that leaves sizes open keeps those of its last run inside, for each stream. After a run that failed or was
cancelled half-way they are those of two runs, and what is asked next gets an error, or numbers of whoever asked before
(OpenVINO 2025 and 2026). So a run of such a graph is never cancelled; one that fails is the last of its compiled model;
and no request is handed to a stream before it is known how the one before it ended.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from cortex.model_server.engines.base import Array
from cortex.model_server.engines.openvino_request import InferRequest
from cortex.model_server.engines.pool import Pool
from cortex.model_server.status import StatusError

_AHEAD = 2
"""Infer requests beyond those that compute: they are filled and emptied meanwhile."""


class _Compiled:
    """A compiled model and its infer requests, as many as it computes at once and, where it is static, a few ahead."""

    def __init__(self, model: Any, *, is_static: bool) -> None:
        self.model = model
        self.streams = int(model.get_property("NUM_STREAMS"))
        self.requests = Pool(partial(InferRequest, model, may_cancel=is_static), self.streams + _AHEAD * is_static)
        self.is_spoilt = False


class Form:
    """Run what ``compile_model`` compiles; ``is_static`` says that all of its sizes are known beforehand."""

    def __init__(self, compile_model: Callable[[], Any], *, is_static: bool) -> None:
        self._compile = compile_model
        self._is_static = is_static
        self._renewing = threading.Lock()
        self._compiled = _Compiled(compile_model(), is_static=is_static)
        self.streams = self._compiled.streams
        self.threads = int(self.model.get_property("INFERENCE_NUM_THREADS"))

    @property
    def model(self) -> Any:
        """The `openvino.CompiledModel`."""
        return self._compiled.model

    def run(self, inputs: Mapping[int, Array], outputs: Sequence[int], deadline: float | None) -> list[Array]:
        """Return the outputs with these indices, for the inputs by theirs.

        Raises RuntimeError or TypeError for arrays that the model does not take, and StatusError at the deadline.
        """
        while True:
            compiled = self._compiled
            with compiled.requests.item(deadline) as request:
                if not compiled.is_spoilt:
                    try:
                        return request.run(inputs, outputs, deadline)
                    except StatusError:
                        raise
                    except BaseException:
                        compiled.is_spoilt = not self._is_static  # before anybody else gets this request
                        raise
            self._renew(compiled)

    def _renew(self, spoilt: _Compiled) -> None:
        with self._renewing:
            if self._compiled is spoilt:
                self._compiled = _Compiled(self._compile(), is_static=self._is_static)
