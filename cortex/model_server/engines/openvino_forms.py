"""One signature compiled for what is asked of it: one row or any number, a request that is alone or several at once.

A graph compiled for latency gives all cores to one request; of several requests at once each waits for all cores, and
whatever else the machine does holds all of them up. A graph compiled for throughput gives each request cores of its
own, and a request that is alone leaves the others idle. Which of the two runs is chosen per request, by what is in
flight. The second form costs memory, so it is compiled when requests first meet.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import openvino as ov

from cortex.model_server.engines.base import Array, Arrays, Unsupported, fitted
from cortex.model_server.engines.coalescing import Coalescing
from cortex.model_server.engines.openvino_form import Form
from cortex.model_server.engines.openvino_graph import Graph, one_line
from cortex.model_server.engines.openvino_shapes import Shapes
from cortex.model_server.status import invalid

_log = logging.getLogger(__name__)


class Forms:
    """Run one graph. ``compile_together`` makes the second form; None where one core makes it pointless."""

    def __init__(self, graph: Graph, alone: Form, compile_together: Callable[[], Form] | None) -> None:
        self.alone = alone
        self._graph = graph
        self._shapes: Shapes | None = None
        self._together = alone
        self._compile_together = compile_together
        self._compiling: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], deadline: float | None, *, is_alone: bool
    ) -> Arrays:
        """Return the named outputs for inputs of shapes that the graph takes.

        A run that fails costs a compilation, so from the first one on shapes are tried before they are run.
        """
        form = self.alone if is_alone else self._for_several()
        given = {self._graph.inputs[alias]: array for alias, array in inputs.items()}
        try:
            if self._shapes is not None:
                self._shapes.check(given)
            answer = form.run(given, [self._graph.outputs[alias] for alias in outputs], deadline)
        except (RuntimeError, TypeError) as error:
            self._shapes = self._shapes or Shapes(self._graph.model)
            raise invalid(one_line(error)) from error
        if 0 in [array.size for array in inputs.values()] and any(array.size for array in answer):
            raise Unsupported("OpenVINO makes up what a model gives for an input that is empty")
        return dict(zip(outputs, answer, strict=True))

    def close(self) -> None:
        """Wait for a compilation under way, which native code cannot break off."""
        with self._lock:
            self._compile_together, compiling = None, self._compiling
        if compiling is not None:
            compiling.join()

    def _for_several(self) -> Form:
        with self._lock:
            if self._compile_together is not None:
                self._start(self._compile_together)
            return self._together

    def _start(self, compile_together: Callable[[], Form]) -> None:
        """Compile the second form, once, while the first goes on answering."""
        self._compile_together = None
        compiling = threading.Thread(target=self._compile, args=(compile_together,), name="openvino-compile")
        try:
            compiling.start()
        except RuntimeError as error:  # the system has no thread to spare
            _warn(error)
        else:
            self._compiling = compiling

    def _compile(self, compile_together: Callable[[], Form]) -> None:
        try:
            form = compile_together()
        except Exception as error:  # noqa: BLE001  the first form answers all that this one would have
            _warn(error)
            return
        self._together = form
        _log.info("several requests at once: %d streams on %d threads from now on", form.streams, form.threads)


class Signature:
    """Run one signature: by a graph of one row, where it has such, and by its own, which takes any number of rows.

    ``make`` compiles a graph. That of any number of rows computes shapes anew at every request, which can take a
    quarter of the time; it is compiled when the first request comes that has another number of rows than one.
    """

    def __init__(self, graph: Graph, make: Callable[[Graph], Forms]) -> None:
        self._graph = graph
        self._make = make
        self._making = threading.Lock()
        self._shapes = graph.shapes
        self._ranks = {alias: len(shape) if shape.rank.is_static else None for alias, shape in graph.shapes.items()}
        of_one_row = graph.of_one_row()
        sizes = of_one_row.shapes if of_one_row else {}
        self._one_row = {alias: tuple(shape.to_shape()) for alias, shape in sizes.items()}
        self._of_one_row = make(of_one_row) if of_one_row else None
        self._of_any = None if of_one_row else make(graph)
        self._coalescing = Coalescing(self.usual.alone.threads)

    @property
    def usual(self) -> Forms:
        """What runs a request of one row."""
        return self._of_one_row or self._any()

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str], deadline: float | None) -> Arrays:
        """Return the named outputs. Raises StatusError for inputs the signature does not take."""
        arrays = {alias: fitted(array, self._ranks[alias]) for alias, array in inputs.items()}
        if {alias: array.shape for alias, array in arrays.items()} == self._one_row:
            forms = self.usual
        else:
            self._check(arrays, inputs)
            forms = self._any()
        with self._coalescing.request(deadline) as is_alone:
            return forms.run(arrays, outputs, deadline, is_alone=is_alone)

    def close(self) -> None:
        """Wait for a compilation under way."""
        for forms in (self._of_one_row, self._of_any):
            if forms is not None:
                forms.close()

    def _any(self) -> Forms:
        with self._making:
            if self._of_any is None:
                self._of_any = self._make(self._graph)
            return self._of_any

    def _check(self, arrays: Mapping[str, Array], sent: Mapping[str, Array]) -> None:
        for alias, array in arrays.items():
            shape = self._shapes[alias]
            if not shape.compatible(ov.PartialShape(list(array.shape))):
                has = list(sent[alias].shape)
                raise invalid(f"input {alias!r} has shape {has}, but the signature declares {_declared(shape)}")


def _warn(error: Exception) -> None:
    _log.warning("requests go on sharing all cores, since no form with cores of their own could be made: %s", error)


def _declared(shape: Any) -> str:
    return str(shape).replace("?", "-1")
