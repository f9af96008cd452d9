"""Both ends of a process that asks a model again and again: `answer_orders` in it, `Asker` outside of it.

It says ``ready`` once it is. Then every line that it reads is a number of seconds, and its answer is a line with the
latencies, in seconds, of the requests that it finished in that time, as a JSON list.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from psutil import Process

from benchmark import processes
from cortex.errors import UserError

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Asked:
    """What came of asking for a while: answers per second, and the median latency in seconds."""

    rate: float
    p50: float


class Asker:
    """``python -m MODULE ARGUMENTS`` as a child. Entering its context waits until it is ready, leaving it ends it."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        self._command = [sys.executable, "-m", module, *arguments]

    def __enter__(self) -> "Asker":
        # A group of its own keeps Ctrl-C from it: leaving this context ends it.
        self._child = subprocess.Popen(
            self._command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, bufsize=0
        )
        try:
            if self._line() != "ready":
                raise UserError(f"{self._module} did not start: its error stands above")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        processes.end_child(self._child)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe:
                pipe.close()

    def processes(self) -> list[Process]:
        return processes.family(self._child.pid)

    def begin(self, seconds: float) -> None:
        """Have it ask for so long."""
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # `finish` says that it has ended
            self._child.stdin.write(f"{seconds}\n".encode())

    def finish(self) -> list[float]:
        """Wait until it has, and return the latencies. Raises UserError when it has ended instead."""
        line = self._line()
        if not line:
            raise UserError(f"{self._module} ended early: its error stands above")
        return [float(each) for each in json.loads(line)]

    def _line(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().decode().strip()


def ask(askers: Sequence[Asker], seconds: float) -> Asked:
    """Let all of these ask at the same time."""
    started = time.monotonic()
    for each in askers:
        each.begin(seconds)
    latencies = [latency for each in askers for latency in each.finish()]
    return Asked(len(latencies) / (time.monotonic() - started), median(latencies))


def answer_orders(asks: Sequence[Callable[[], object]]) -> None:
    """Do as the module says, with a thread for each way to ask, until standard input ends."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_all_asked(asks, float(line))), flush=True)


def _all_asked(asks: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Return the latency of each answer. Every thread asks once at least; an error of any of them is raised."""
    end = time.monotonic() + seconds

    def work(once: Callable[[], object]) -> list[float]:
        latencies: list[float] = []
        began = time.monotonic()
        while began < end or not latencies:
            once()
            now = time.monotonic()
            latencies.append(now - began)
            began = now
        return latencies

    with ThreadPoolExecutor(len(asks)) as pool:
        return [latency for each in pool.map(work, asks) for latency in each]
