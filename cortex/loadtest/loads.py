"""When requests are due: a load is how many processes and threads there are, and what each thread does when."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Protocol

from cortex.loadtest.schedules import Schedule, steady

WORKER = "cortex.loadtest.worker"


class Load(Protocol):
    """A plan of arrivals. A value that can be pickled: it travels to the processes that carry it out."""

    @property
    def workers(self) -> int:
        """How many processes."""

    @property
    def threads(self) -> int:
        """How many threads each process has, with one connection each."""

    @property
    def requests(self) -> int | None:
        """How many requests there will be in all; None when time decides."""

    @property
    def seconds(self) -> float | None:
        """How long requests are sent; None when their number decides."""

    @property
    def open_loop(self) -> bool:
        """Whether requests are due at set times, rather than when the one before is answered."""

    @property
    def module(self) -> str:
        """The module whose ``main`` a process of it runs."""

    @property
    def patience(self) -> float:
        """Seconds after the last request was due in which those that had no free connection may still be sent."""

    def arrivals(self, worker: int, begin: float, start: float) -> list[Iterator[float]]:
        """Return, for each thread of a process, when its requests are due, on the clock of `time.monotonic`.

        ``begin`` is when the load begins, and ``start`` when the measurement does, for all processes alike: what is due
        before is warm-up. A time in the past is due at once; latency counts from the time that was yielded.
        """


@dataclass(frozen=True)
class ClosedLoop:
    """Each thread sends its next request when the last one is answered, ``think_time`` seconds later.

    A thread sends ``samples`` requests, or, when ``seconds`` is given, as many as begin within that time.
    """

    workers: int = 1
    threads: int = 1
    samples: int = 10
    seconds: float | None = None
    think_time: float = 0.0

    open_loop = False
    patience = 0.0
    module = WORKER

    @property
    def requests(self) -> int | None:
        return self.workers * self.threads * self.samples if self.seconds is None else None

    def arrivals(self, worker: int, begin: float, start: float) -> list[Iterator[float]]:
        return [self._client(start) for _ in range(self.threads)]

    def _client(self, start: float) -> Iterator[float]:
        think = self.think_time
        while (now := time.monotonic()) < start - think:
            yield now + think
        if self.seconds is None:
            for number in range(self.samples):
                yield max(time.monotonic() + think, start) if number else max(time.monotonic(), start)
        else:
            while (due := time.monotonic() + think) < start + self.seconds:
                yield due


@dataclass(frozen=True)
class OpenLoop:
    """Requests are due at the times of a schedule, whether the server keeps up or not.

    The threads of a process share its part of the schedule: whichever is free takes the next request. When none is, the
    request is sent late, and its latency shows it.
    """

    schedule: Schedule
    workers: int = 1
    threads: int = 64
    patience: float = 10.0

    open_loop = True
    requests = None
    module = WORKER

    @property
    def seconds(self) -> float | None:
        return self.schedule.seconds

    def arrivals(self, worker: int, begin: float, start: float) -> list[Iterator[float]]:
        mine = islice(self._all(begin, start), worker, None, self.workers)
        return [_Shared(mine)] * self.threads

    def _all(self, begin: float, start: float) -> Iterator[float]:
        if start > begin:
            for offset in steady(self.schedule.first_rate, start - begin).offsets():
                if begin + offset < start:  # a rounding error must not make one more request
                    yield begin + offset
        for offset in self.schedule.offsets():
            yield start + offset


class _Shared(Iterator[float]):
    """Let several threads take from one iterator."""

    def __init__(self, items: Iterator[float]) -> None:
        self._items = items
        self._lock = Lock()

    def __next__(self) -> float:
        with self._lock:
            return next(self._items)
