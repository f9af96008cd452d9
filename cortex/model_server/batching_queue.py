"""Requests that wait to be run together, and the pieces of them that make up one batch."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cortex.model_server.call import Call
from cortex.model_server.engines.base import Arrays
from cortex.model_server.status import StatusError

Run = Callable[[Call, float | None], Arrays]


class Task:
    """One request, and its answer once there is one.

    ``taken`` rows went into batches; several threads may run pieces of a large task. ``waited`` is the time in seconds
    until the last of them began.
    """

    def __init__(self, call: Call, run: Run, rows: int, deadline: float | None) -> None:
        self.call = call
        self.run = run
        self.rows = rows
        self.deadline = deadline
        self.since = time.monotonic()
        self.waited = 0.0
        self.taken = 0
        self.error: StatusError | None = None
        self.done = threading.Event()
        self._answers: dict[int, Arrays] = {}
        self._answered = 0
        self._lock = threading.Lock()

    def answer(self, start: int, rows: int, outputs: Arrays) -> None:
        """Give the outputs of some of the rows; the last ones complete the task."""
        with self._lock:
            self._answers[start] = outputs
            self._answered += rows
            if self._answered < self.rows:
                return
        self.done.set()

    def fail(self, error: StatusError) -> None:
        """Give up; the first reason stands, and an answer that is complete does too."""
        with self._lock:
            if self.done.is_set() or self.error is not None:
                return
            self.error = error
        self.done.set()

    def answers(self) -> list[Arrays]:
        """Return the answers to the pieces, in order. Raises the error that the task failed with."""
        if self.error is not None:
            raise self.error
        return [self._answers[start] for start in sorted(self._answers)]


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of a task."""

    task: Task
    start: int
    rows: int


class Queue:
    """The tasks that may share a batch, oldest first. The caller serializes the calls."""

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        self.rows = 0

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def since(self) -> float:
        """When the oldest task came."""
        return self._tasks[0].since

    @property
    def signature(self) -> str:
        """What all of its tasks ask for."""
        return self._tasks[0].call.signature

    def add(self, task: Task) -> None:
        """Put a task at the end."""
        self._tasks.append(task)
        self.rows += task.rows

    def remove(self, task: Task) -> None:
        """Take out what is left of a task, if anything is."""
        if task in self._tasks:
            self._tasks.remove(task)
            self.rows -= task.rows - task.taken

    def take(self, size: int, *, split: bool) -> list[Piece]:
        """Take a batch of up to ``size`` rows; a task larger than that goes alone, unless it may be split."""
        batch: list[Piece] = []
        room = size
        while self._tasks and room > 0:
            task = self._tasks[0]
            left = task.rows - task.taken
            if left > room and batch and not split:
                break
            rows = min(left, room) if split else left
            batch.append(Piece(task, task.taken, rows))
            task.taken += rows
            self.rows -= rows
            room -= rows
            if task.taken == task.rows:
                self._tasks.popleft()
        return batch
