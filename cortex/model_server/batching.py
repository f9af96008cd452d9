"""Answer several small requests with one run of the model.

Requests wait in a queue until it holds a full batch, or until its oldest has waited long enough; then one of
``num_batch_threads`` threads joins them along the first dimension, runs the model once, and splits the answer. There is
a queue for every set of requests that can be joined: same model version, signature, dtypes and shapes but for the first
dimension. So requests of different shapes never spoil each other's batch.
"""

import logging
import threading
import time
import weakref
from collections.abc import Hashable
from pathlib import Path

from cortex.model_server import batching_rows
from cortex.model_server.batching_lane import Lane
from cortex.model_server.batching_parameters import BatchingParameters, BatchingSource
from cortex.model_server.batching_queue import Piece, Queue, Run, Task
from cortex.model_server.call import Call
from cortex.model_server.engines.base import Arrays, timed_out
from cortex.model_server.request import QUEUE, Recorder, current
from cortex.model_server.status import Code, StatusError

_log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds for runs to end whose answers nobody waits for; native code may not let itself be broken off."""
_REASONS = {Code.CANCELLED: "cancelled", Code.DEADLINE_EXCEEDED: "timeout"}


class Batcher:
    """Own the batching threads, and the queues of every model; they are shared by all models, as in TF Serving."""

    def __init__(
        self, parameters: BatchingParameters, source: BatchingSource | None = None, recorder: Recorder | None = None
    ) -> None:
        self.parameters = parameters
        self.recorder = recorder or Recorder()
        self._source = source
        self._queues: dict[tuple[Lane, Hashable], Queue] = {}
        self._lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._changed = threading.Condition()  # guards queues, lanes, paces and threads
        self._closed = self._hurried = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads that run batches."""
        with self._changed:
            self._grow()

    def hurry(self) -> None:
        """Let no request wait for others any more, now and from here on: the process is about to stop."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop the threads once they have run what waits; `_PATIENCE` bounds the wait for them."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            threads = list(self._threads)
        end = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def lane(self, model: str, directory: Path) -> Lane | None:
        """Return the batching of one loaded version, or None for one that is not batched. Raises StatusError."""
        own = None
        if self._source is not None and self._source.per_model:
            own = self._source.own(directory)
            if own is None:
                return None
        lane = Lane(self, model, directory, own)
        with self._changed:
            self._lanes.add(lane)
        return lane

    def reload(self) -> None:
        """Read every parameters file again; what was read before stays where one is bad. Raises StatusError."""
        if self._source is None:
            return
        with self._changed:
            lanes = list(self._lanes)
        common = self._source.common()
        own = [(lane, self._source.own(lane.directory)) for lane in lanes if lane.own]
        self.configure(common)
        with self._changed:
            for lane, parameters in own:
                lane.own = parameters or lane.own
            self._changed.notify_all()

    def configure(self, parameters: BatchingParameters) -> None:
        """Batch by these parameters from now on; requests that wait are not lost."""
        if parameters == self.parameters:
            return
        _log.info("Batching with %s", parameters)
        with self._changed:
            self.parameters = parameters
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._grow()
            self._changed.notify_all()

    def run(self, lane: Lane, call: Call, run: Run, rows: int, deadline: float | None) -> Arrays:
        """Queue a call until a batch has answered it. See `Lane.run`."""
        key = (lane, batching_rows.kind(call, padded=lane.parameters.pad_variable_length_inputs))
        task = self._enqueue(key, Task(call, run, rows, deadline))

        with current().leaving(lambda: self._leave(key, task, _cancelled())):
            if not task.done.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
                self._leave(key, task, timed_out() if task.taken else _timed_out_in_queue())
        current().spent(QUEUE, task.waited)
        if task.error is not None and task.error.code in _REASONS:
            self.recorder.left_out(lane.model, _REASONS[task.error.code])
        return batching_rows.whole(task.answers(), padded=lane.parameters.pad_variable_length_inputs)

    def _enqueue(self, key: tuple[Lane, Hashable], task: Task) -> Task:
        lane = key[0]
        with self._changed:
            queue = self._queues.get(key) or Queue()
            room = lane.parameters.max_enqueued_batches * lane.parameters.execution_size
            if self._closed or (len(queue) and queue.rows + task.rows > room):
                self.recorder.left_out(lane.model, "full")
                raise StatusError(
                    Code.UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full"
                )
            lane.arrived(task)
            queue.add(task)
            self._queues[key] = queue
            self._changed.notify_all()
        return task

    def _leave(self, key: tuple[Lane, Hashable], task: Task, reason: StatusError) -> None:
        with self._changed:
            queue = self._queues.get(key)
            if queue is not None:
                queue.remove(task)
                if not len(queue):
                    del self._queues[key]
            if not task.taken:
                task.waited = time.monotonic() - task.since
        task.fail(reason)

    def _grow(self) -> None:
        """Start the threads that are missing, as far as the system has them to spare. Raises StatusError for none."""
        for number in range(len(self._threads), self.parameters.num_batch_threads):
            thread = threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if not self._threads:
                    raise StatusError(Code.RESOURCE_EXHAUSTED, f"no thread to run batches: {error}") from error
                _log.error("Batches run on %d threads: %s", len(self._threads), error)
                return
            self._threads.append(thread)

    def _work(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Run a batch, and keep nothing of it; False ends the thread."""
        if (taken := self._next()) is None:
            return False
        lane, batch = taken
        lane.execute(batch)
        return True

    def _next(self) -> tuple[Lane, list[Piece]] | None:
        """Wait for a batch that is full or due, and take it; None ends the thread."""
        with self._changed:
            while not self._is_surplus():
                now = time.monotonic()
                for key, queue in self._queues.items():
                    due = _due(key, queue)
                    if self._closed or self._hurried or due <= now or queue.rows >= key[0].size(queue.signature):
                        return key[0], self._take(key, queue)
                if self._closed:
                    return None
                first = min((_due(key, queue) for key, queue in self._queues.items()), default=None)
                self._changed.wait(None if first is None else min(first - now, threading.TIMEOUT_MAX))
            return None

    def _is_surplus(self) -> bool:
        """Say whether this thread is one too many since the parameters changed, and if so forget it."""
        if len(self._threads) <= self.parameters.num_batch_threads:
            return False
        self._threads.remove(threading.current_thread())
        return True

    def _take(self, key: tuple[Lane, Hashable], queue: Queue) -> list[Piece]:
        lane = key[0]
        batch = queue.take(lane.size(queue.signature), split=lane.parameters.enable_large_batch_splitting)
        del self._queues[key]
        if len(queue):
            self._queues[key] = queue  # to the back: no model starves the others
        return batch

    def measured(self, lane: Lane, signature: str, rows: int, seconds: float) -> None:
        """Tell a lane what a run took."""
        with self._changed:
            lane.ran(signature, rows, seconds)


def _due(key: tuple[Lane, Hashable], queue: Queue) -> float:
    """Return when the oldest request of a queue has waited long enough."""
    return queue.since + key[0].wait(queue.signature)


def _cancelled() -> StatusError:
    return StatusError(Code.CANCELLED, "the client cancelled the request")


def _timed_out_in_queue() -> StatusError:
    return StatusError(Code.DEADLINE_EXCEEDED, "Run() timeout exceeded while waiting in batching queue")
