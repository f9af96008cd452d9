"""The batching of one loaded version: which of its requests are joined, how many, how long they wait, and their run."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cortex.model_server import batching_rows
from cortex.model_server.batching_pace import Pace
from cortex.model_server.batching_parameters import BatchingParameters
from cortex.model_server.batching_queue import Piece, Run, Task
from cortex.model_server.call import Call
from cortex.model_server.engines.base import Arrays
from cortex.model_server.request import Recorder
from cortex.model_server.status import Code, StatusError, guarded, invalid

_log = logging.getLogger(__name__)

_WARN_EVERY = 120.0
"""Seconds between two warnings that requests run alone."""


class Batches(Protocol):
    """What all lanes share, and hand their requests to: a `Batcher`."""

    @property
    def parameters(self) -> BatchingParameters: ...

    @property
    def recorder(self) -> Recorder: ...

    def run(self, lane: "Lane", call: Call, run: Run, rows: int, deadline: float | None) -> Arrays:
        """Queue a call until a batch has answered it."""

    def measured(self, lane: "Lane", signature: str, rows: int, seconds: float) -> None:
        """Hear what a run of a lane took."""


class Lane:
    """The batching of one loaded version: its parameters, and the pace of each signature when they are automatic.

    The batcher serializes the calls of all but `run` and `execute`.
    """

    def __init__(self, batcher: Batches, model: str, directory: Path, own: BatchingParameters | None) -> None:
        self.model = model
        self.directory = directory
        self.own = own
        self._batcher = batcher
        self._paces: dict[str, Pace] = {}
        self._warned = -_WARN_EVERY

    @property
    def parameters(self) -> BatchingParameters:
        """The parameters of this version: its own, or the server's."""
        return self.own or self._batcher.parameters

    def size(self, signature: str) -> int:
        """Return the rows of a full batch."""
        pace, limit = self._pace(signature), self.parameters.execution_size
        return min(pace.size, limit) if pace else limit

    def run(self, call: Call, run: Run, deadline: float | None, fixed: int | None = None) -> Arrays:
        """Run the call together with others of the same signature and shapes, and return its own outputs.

        A call whose inputs have no rows in common runs alone, and so does one of a signature that takes a ``fixed``
        number of rows, unless all batches are padded to that. Raises UNAVAILABLE at once when too many batches wait,
        INVALID_ARGUMENT for a request of more rows than ``max_batch_size`` (which runs alone when nobody has set that),
        DEADLINE_EXCEEDED, and CANCELLED; a request that is given up leaves the queue.
        """
        rows = batching_rows.count(call)
        if rows is None or (fixed is not None and not self.parameters.makes_only(fixed)):
            self._warn(call, fixed)
            self._batcher.recorder.left_out(self.model, "alone")
            return run(call, deadline)
        limit = self.parameters.max_batch_size
        if rows <= limit:
            return self._batcher.run(self, call, run, rows, deadline)
        if self.parameters.latency_bound_micros:
            return run(call, deadline)
        raise invalid(f"Task size {rows} is larger than maximum input batch size {limit}")

    def wait(self, signature: str) -> float:
        """Return how many seconds a request may wait for others."""
        pace = self._pace(signature)
        return pace.wait if pace else self.parameters.batch_timeout_micros / 1e6

    def arrived(self, task: Task) -> None:
        """Note that a request has come."""
        if pace := self._pace(task.call.signature):
            pace.arrived(task.rows, task.since)

    def ran(self, signature: str, rows: int, seconds: float) -> None:
        """Note what a run took."""
        if pace := self._pace(signature):
            pace.ran(rows, seconds)

    def execute(self, batch: Sequence[Piece]) -> None:
        """Run a batch, and answer its tasks, with the reason if it failed.

        Where that is what somebody sent, each runs by itself: nobody else is refused, or told what another one sent.
        """
        started = time.monotonic()
        sizes = tuple(piece.rows for piece in batch)
        size = self.parameters.padded(sum(sizes))
        for piece in batch:
            piece.task.waited = max(piece.task.waited, started - piece.task.since)
        try:
            with guarded():
                outputs = batch[0].task.run(batching_rows.joined(batch, size - sum(sizes)), _deadline(batch))
                self._record(batch, sizes, size, started)
                batching_rows.split(batch, outputs, size)
        except StatusError as failure:
            for piece in batch:
                if failure.code is Code.INVALID_ARGUMENT and len(batch) > 1:
                    self.execute([piece])
                else:
                    piece.task.fail(failure)

    def _record(self, batch: Sequence[Piece], sizes: tuple[int, ...], size: int, started: float) -> None:
        seconds = time.monotonic() - started
        if self.parameters.latency_bound_micros:
            self._batcher.measured(self, batch[0].task.call.signature, size, seconds)
        pool, recorder = self.parameters.thread_pool_name, self._batcher.recorder
        recorder.batched(self.model, pool, sizes, size - sum(sizes), seconds)
        for piece in batch:
            recorder.queued(self.model, pool, piece.task.waited)

    def _pace(self, signature: str) -> Pace | None:
        """Return the pace of a signature, if it has one; what its rows cost says nothing of another's."""
        bound = self.parameters.latency_bound_micros
        if bound and signature not in self._paces:
            self._paces[signature] = Pace(bound / 1e6)
        return self._paces.get(signature)

    def _warn(self, call: Call, fixed: int | None) -> None:
        now = time.monotonic()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            shapes = {alias: list(array.shape) for alias, array in call.inputs.items()}
            _log.warning(
                "A request of %s (signature %s, input shapes %s) %s and runs alone",
                *(self.model, call.signature, shapes),
                "has no rows to batch by" if fixed is None else f"is for {fixed} rows at a time",
            )


def _deadline(batch: Sequence[Piece]) -> float | None:
    """Return the latest deadline of the tasks; nobody waits for the batch any more once it is over."""
    deadlines = [piece.task.deadline for piece in batch if piece.task.deadline is not None]
    return max(deadlines) if len(deadlines) == len(batch) else None
