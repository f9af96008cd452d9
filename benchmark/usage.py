"""Who used the processors while something was measured.

Figures mean something only on a machine that does nothing else: what is measured is bound by the processors, and others
take unequal shares of them from one process and from five.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
from psutil import Process

QUIET = 0.2
"""Processors that others may take before a figure says more about them than about us: a tenth of two. The kernel's own
threads took about 0.1 in every run on a machine that did nothing else."""


@dataclass(frozen=True)
class Usage:
    """Mean numbers of processors used beside what was measured: by what made the load, and by anything else."""

    load: float
    taken: float
    """Includes what the machine's host kept from it."""


@dataclass
class Meter:
    """Measures the usage within ``with meter.running():``. What is waited for in it counts as the load's."""

    system: Callable[[], Sequence[Process]]
    askers: Callable[[], Sequence[Process]] = tuple

    @contextmanager
    def running(self) -> Iterator[None]:
        before = self._now()
        yield
        passed, system, load, busy = (after - old for after, old in zip(self._now(), before, strict=True))
        taken = max(0.0, busy - system - load)
        self.usage = Usage(load / passed, taken / passed)

    def _now(self) -> tuple[float, float, float, float]:
        own = os.times()
        load = _seconds(self.askers()) + own.user + own.system + own.children_user + own.children_system
        return time.monotonic(), _seconds(self.system()), load, _busy()


def _seconds(of: Sequence[Process]) -> float:
    """Return the processor seconds that these have used."""
    total = 0.0
    for process in of:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _busy() -> float:
    """Return the processor seconds that the machine has been busy, or that its host has kept from it."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)
