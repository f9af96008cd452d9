"""When requests are due: a load is how many processes and threads there are, and what each thread does when."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


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

    def arrivals(self, start: float) -> Iterator[float]:
        """Yield, for one thread, when each request is due, on the clock of `time.monotonic`.

        ``start`` is when the load began, for all processes alike. A time in the past is due at once; latency counts
        from the time that was yielded.
        """


@dataclass(frozen=True)
class ClosedLoop:
    """Each thread sends its next request when the last one is answered, without a pause.

    A thread sends ``samples`` requests, or, when ``seconds`` is given, as many as begin within that time.
    """

    workers: int = 1
    threads: int = 1
    samples: int = 10
    seconds: float | None = None

    @property
    def requests(self) -> int | None:
        return self.workers * self.threads * self.samples if self.seconds is None else None

    def arrivals(self, start: float) -> Iterator[float]:
        if self.seconds is None:
            for _ in range(self.samples):
                yield time.monotonic()
        else:
            while (now := time.monotonic()) < start + self.seconds:
                yield now
