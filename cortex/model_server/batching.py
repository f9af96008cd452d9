"""Answer several small requests with one run of the model.

Requests wait in a queue until it holds a full batch, or until its oldest has waited ``batch_timeout_micros``; then one
of ``num_batch_threads`` threads joins them along the first dimension, runs the model once, and splits the answer.
There is a queue for every set of requests that can be joined: same model version, signature, outputs, dtypes and
shapes but for the first dimension. So requests of different shapes never spoil each other's batch.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from cortex.model_server.batching_parameters import BatchingParameters
from cortex.model_server.call import Call
from cortex.model_server.engines.base import Arrays
from cortex.model_server.status import Code, StatusError, invalid

Run = Callable[[Call, float | None], Arrays]


@dataclass(eq=False)
class _Task:
    """One request, or one piece of a large one, and its answer once there is one."""

    call: Call
    run: Run
    size: int
    due: float
    done: threading.Event = field(default_factory=threading.Event)
    outputs: Arrays = field(default_factory=dict)
    error: StatusError | None = None


class Batcher:
    """Own the batching threads, and the queues of every model; they are shared by all models, as in TF Serving."""

    def __init__(self, parameters: BatchingParameters) -> None:
        self._parameters = parameters
        self._queues: dict[Hashable, deque[_Task]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            for number in range(parameters.num_batch_threads)
        ]

    def start(self) -> None:
        """Start the threads that run batches."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop the threads once they have run what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def run(self, owner: Hashable, call: Call, run: Run, deadline: float | None) -> Arrays:
        """Run the call together with others of the same owner, signature and shapes, and return its own outputs.

        Raises UNAVAILABLE at once when too many batches wait, INVALID_ARGUMENT for a request that is larger than a
        batch (unless splitting is on), and DEADLINE_EXCEEDED; a request that is given up leaves the queue.
        """
        size = _size(call)
        if size is None:
            return run(call, deadline)
        tasks = [_Task(piece, run, count, self._due()) for piece, count in self._pieces(call, size)]
        key = (owner, _key(call))
        self._enqueue(key, tasks)
        return self._collect(key, tasks, deadline)

    def _due(self) -> float:
        return time.monotonic() + self._parameters.batch_timeout_micros / 1e6

    def _pieces(self, call: Call, size: int) -> Iterator[tuple[Call, int]]:
        limit = self._parameters.max_batch_size
        if size <= limit and not self._parameters.enable_large_batch_splitting:
            yield call, size
        elif not self._parameters.enable_large_batch_splitting:
            raise invalid(f"Task size {size} is larger than maximum input batch size {limit}")
        else:
            step = self._parameters.execution_size
            for start in range(0, size, step):
                rows = slice(start, start + step)
                inputs = {alias: array[rows] for alias, array in call.inputs.items()}
                yield Call(call.signature, inputs, call.outputs), min(step, size - start)

    def _enqueue(self, key: Hashable, tasks: Sequence[_Task]) -> None:
        with self._changed:
            waiting = self._queues.setdefault(key, deque())
            if self._closed or not self._has_room(waiting, tasks):
                if not waiting:
                    del self._queues[key]
                raise StatusError(
                    Code.UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full"
                )
            waiting.extend(tasks)
            self._changed.notify_all()

    def _has_room(self, waiting: Sequence[_Task], tasks: Sequence[_Task]) -> bool:
        if not waiting:
            return True
        room = self._parameters.max_enqueued_batches * self._parameters.execution_size
        return sum(task.size for task in (*waiting, *tasks)) <= room

    def _collect(self, key: Hashable, tasks: Sequence[_Task], deadline: float | None) -> Arrays:
        for task in tasks:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not task.done.wait(left):
                self._leave(key, tasks)
                raise StatusError(Code.DEADLINE_EXCEEDED, "Run() timeout exceeded while waiting in batching queue")
            if task.error is not None:
                self._leave(key, tasks)
                raise task.error
        if len(tasks) == 1:
            return tasks[0].outputs
        return {alias: np.concatenate([task.outputs[alias] for task in tasks]) for alias in tasks[0].call.outputs}

    def _leave(self, key: Hashable, tasks: Sequence[_Task]) -> None:
        with self._changed:
            waiting = self._queues.get(key)
            for task in tasks:
                if waiting and task in waiting:
                    waiting.remove(task)
            if waiting is not None and not waiting:
                del self._queues[key]

    def _work(self) -> None:
        while batch := self._next():
            _run_batch(batch, self._parameters)

    def _next(self) -> list[_Task]:
        """Wait for a batch that is full or due, and take it; an empty one means that there will be no more."""
        with self._changed:
            while True:
                now = time.monotonic()
                for key, waiting in self._queues.items():
                    if self._closed or waiting[0].due <= now or self._is_full(waiting):
                        return self._take(key, waiting)
                if self._closed:
                    return []
                due = min((waiting[0].due for waiting in self._queues.values()), default=None)
                self._changed.wait(None if due is None else due - now)

    def _is_full(self, waiting: Sequence[_Task]) -> bool:
        return sum(task.size for task in waiting) >= self._parameters.execution_size

    def _take(self, key: Hashable, waiting: deque[_Task]) -> list[_Task]:
        batch = [waiting.popleft()]
        size = batch[0].size
        while waiting and size + waiting[0].size <= self._parameters.execution_size:
            batch.append(waiting.popleft())
            size += batch[-1].size
        if waiting:
            self._queues[key] = self._queues.pop(key)  # to the back: no model starves the others
        else:
            del self._queues[key]
        return batch


def _size(call: Call) -> int | None:
    """Return the number of rows, or None for a call that cannot be joined with others."""
    if any(array.ndim == 0 for array in call.inputs.values()):
        return None
    sizes = {array.shape[0] for array in call.inputs.values()}
    return sizes.pop() if len(sizes) == 1 and sizes != {0} else None


def _key(call: Call) -> Hashable:
    kinds = tuple((alias, array.dtype.str, array.shape[1:]) for alias, array in sorted(call.inputs.items()))
    return call.signature, call.outputs, kinds


def _run_batch(batch: Sequence[_Task], parameters: BatchingParameters) -> None:
    size = sum(task.size for task in batch)
    try:
        joined = _joined(batch, parameters.padded(size) - size)
        outputs = batch[0].run(joined, None)
        _split(batch, outputs, parameters.padded(size))
    except Exception as error:  # noqa: BLE001 - an engine was called; each request gets the reason
        failure = error if isinstance(error, StatusError) else StatusError(Code.INTERNAL, type(error).__name__)
        for task in batch:
            task.error = failure
    finally:
        for task in batch:
            task.done.set()


def _joined(batch: Sequence[_Task], padding: int) -> Call:
    """Join the inputs, and repeat the first row until the batch has an allowed size."""
    first = batch[0].call
    if len(batch) == 1 and not padding:
        return first
    inputs: Arrays = {}
    for alias in first.inputs:
        rows = [task.call.inputs[alias] for task in batch]
        inputs[alias] = np.concatenate([*rows, *[rows[0][:1]] * padding])
    return Call(first.signature, inputs, first.outputs)


def _split(batch: Sequence[_Task], outputs: Arrays, size: int) -> None:
    for alias, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != size:
            raise StatusError(
                Code.FAILED_PRECONDITION,
                f"Batched output tensor {alias}'s 0th dimension does not equal the sum of the 0th dimension sizes of "
                "the input tensors",
            )
    start = 0
    for task in batch:
        task.outputs = {alias: array[start : start + task.size] for alias, array in outputs.items()}
        start += task.size
