"""The stacks that are measured side by side, each started when it is first asked for."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from psutil import Process

from benchmark import project
from benchmark.asker import Asker, ask
from benchmark.cells import API, ENGINE, FLASK, FP32, GRPC, ONE_PROCESS, TENSORFLOW, Cell, Run
from benchmark.payloads import payload
from benchmark.subjects import Subject
from benchmark.systems import Deployment, FlaskAPI, OneProcess, OneProcessGrpc, Reference
from benchmark.usage import Meter
from cortex.errors import UserError
from cortex.loadtest import HTTP, ClosedLoop, Load, Payload, Result, run
from export.progress import Step

_WARM_UP = 1.0  # seconds
_WARM_UP_REQUESTS = 3  # of each client, however long they take: Keras compiles at the first ones
_MODEL = "_cortex_default"
"""The name of an API's only model inside its model server."""

T = TypeVar("T")


@dataclass(frozen=True)
class Answered:
    """The result of an HTTP load, and the processors that others took meanwhile."""

    result: Result
    taken: float

    @property
    def load(self) -> float:
        """Processors that the load generator used."""
        client, seconds = self.result.client, self.result.seconds
        return client.cpu_seconds / seconds if client and seconds else 0.0


class Stacks:
    """All stacks of some models. What was started runs on, so that runs can take turns, until the context is left.

    The load comes from processes that are kept on one ``processor``; None lets them run anywhere.
    """

    def __init__(self, subjects: Mapping[str, Subject], step: Step, processor: int | None = None) -> None:
        self._subjects = subjects
        self._step = step
        self._processor = processor
        self._running = ExitStack()
        self._known: dict[tuple[Any, ...], Any] = {}

    def __enter__(self) -> "Stacks":
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start(self, cell: Cell) -> float:
        """Start what a cell needs, unless it runs, and return the seconds until it was up."""
        began = time.monotonic()
        if cell.stack == ENGINE:
            self._engine(cell.precision, cell.clients)
        elif cell.asks_the_model:
            self._clients(cell)
        else:
            self._api(cell)
        return time.monotonic() - began

    def warm_up(self, cell: Cell) -> None:
        """Put a cell under its load for a while."""
        if cell.stack == ENGINE or cell.asks_the_model:
            self.run(cell, _WARM_UP)
        else:
            load = ClosedLoop(threads=cell.clients, samples=_WARM_UP_REQUESTS)
            _closed(cell, self.http(self._api(cell), load, payload(cell.form, cell.picture)))

    def run(self, cell: Cell, seconds: float) -> Run:
        """Put a cell under its load. Raises UserError when a request fails: a stack with errors has no throughput."""
        if cell.stack == ENGINE:
            askers = [self._engine(cell.precision, cell.clients)]
            meter = Meter(askers[0].processes)
        elif cell.asks_the_model:
            askers = self._clients(cell)
            meter = Meter(lambda: self.processes(cell), lambda: [p for a in askers for p in a.processes()])
        else:
            load = ClosedLoop(threads=cell.clients, seconds=seconds)
            return _closed(cell, self.http(self._api(cell), load, payload(cell.form, cell.picture)))
        with meter.running():
            asked = ask(askers, seconds)
        return Run(asked.rate, asked.p50, meter.usage.load, meter.usage.taken)

    def http(self, system: Deployment | Reference, load: Load, sent: Payload) -> Answered:
        """Load an HTTP API. Raises KeyboardInterrupt when it was interrupted.

        There is no warm-up before: the rate would lose what was under way at its end.
        """
        meter = Meter(system.processes)
        with meter.running(), self._pinned():
            result = run(load, HTTP(system.url), sent)
        if result.interrupted:
            raise KeyboardInterrupt
        return Answered(result, meter.usage.taken)

    def processes(self, cell: Cell) -> list[Process]:
        """Return the processes of the stack of a cell."""
        if cell.stack == ENGINE:
            return self._engine(cell.precision, cell.clients).processes()
        return self._api(cell).processes()

    def deployment(self, precision: str, engine: str = "openvino", admitted: int | None = None) -> Deployment:
        """Return the API with a model, deployed with `cortex deploy`. It takes ``admitted`` requests at once."""
        subject = self._subjects[precision]

        def start() -> Deployment:
            predictor = {"model_path": str(subject.base_path.resolve()), "engine": engine}
            changes: dict[str, dict[str, Any]] = {"predictor": {**predictor, "precision": subject.computed_in}}
            if admitted is not None:
                changes["autoscaling"] = {"max_replica_concurrency": admitted}
            self._step(f"deploying {precision} with engine {engine}")
            folder = self._running.enter_context(tempfile.TemporaryDirectory(prefix="cortex-benchmark-"))
            return self._running.enter_context(Deployment(project.write(Path(folder), changes)))

        return self._once((API, precision, engine, admitted), start)

    def _api(self, cell: Cell) -> Deployment | Reference:
        if cell.stack == FLASK:
            return self._flask()
        if cell.stack == ONE_PROCESS:
            return self._one_process(cell)
        return self.deployment(cell.precision, "tensorflow" if cell.stack == TENSORFLOW else "openvino")

    def _flask(self) -> FlaskAPI:
        def start() -> FlaskAPI:
            self._step("starting Flask with Keras")
            return self._running.enter_context(FlaskAPI())

        return self._once((FLASK, FP32), start)

    def _one_process(self, cell: Cell) -> Reference:
        subject = self._subjects[cell.precision]

        def start() -> Reference:
            self._step(f"starting {cell}")
            if cell.form == GRPC:
                return self._running.enter_context(OneProcessGrpc(subject.directory, subject.computed_in))
            return self._running.enter_context(OneProcess(subject.directory, subject.computed_in, cell.clients))

        return self._once((ONE_PROCESS, cell), start)

    def _engine(self, precision: str, threads: int) -> Asker:
        subject = self._subjects[precision]

        def start() -> Asker:
            self._step(f"starting the engine with {precision} and {threads} thread{'s' * (threads > 1)}")
            arguments = (str(subject.directory.resolve()), subject.computed_in, str(threads))
            return self._running.enter_context(Asker("benchmark.bare_engine", *arguments))

        return self._once((ENGINE, precision, threads), start)

    def _clients(self, cell: Cell) -> list[Asker]:
        """Return clients of the model server of a deployment, on its own socket, or of one process."""

        def start() -> list[Asker]:
            api = self._api(cell)
            target = api.url if isinstance(api, Reference) else f"unix:{api.model_server_socket()}"
            self._step(f"starting {cell.clients} clients, {cell.form}")
            with self._pinned():
                arguments = (target, _MODEL, cell.form)
                askers = [Asker("benchmark.model_server_client", *arguments) for _ in range(cell.clients)]
                return [self._running.enter_context(each) for each in askers]

        return self._once(("clients", cell), start)

    def _once(self, key: tuple[Any, ...], start: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = start()
        found: T = self._known[key]
        return found

    @contextmanager
    def _pinned(self) -> Iterator[None]:
        """Let processes that this thread starts meanwhile run on the load's processor only."""
        if self._processor is None:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._processor})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def _closed(cell: Cell, answered: Answered) -> Run:
    result = answered.result
    if result.errors or not result.latency:
        raise UserError(f"{cell}: requests failed: {dict(result.errors)}")
    return Run(result.requests_per_second, result.latency.p50, answered.load, answered.taken)
