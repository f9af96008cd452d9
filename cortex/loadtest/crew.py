"""Start the processes of a load, gather what they count, and sum it up."""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait

from cortex.errors import CortexError
from cortex.loadtest.doors import Door
from cortex.loadtest.loads import Load
from cortex.loadtest.payloads import Payload
from cortex.loadtest.statistics import Summary, Tally
from cortex.loadtest.worker import GRACE

Progress = Callable[[Summary], None]
"""Called a few times a second with the summary so far."""

_PROGRESS_INTERVAL = 0.25  # seconds
_DIED = "a process of the tester ended early"


def run(load: Load, door: Door, payload: Payload, progress: Progress = lambda _: None) -> Summary:
    """Carry out a load and return what came of it.

    KeyboardInterrupt ends it early: the summary is then of what was answered until that moment, and marked
    ``interrupted``. A second one is raised.
    """
    with _Crew(load, door, payload) as crew:
        crew.start()
        try:
            return crew.gather(progress)
        except KeyboardInterrupt:
            return crew.stop()


class _Crew:
    """The processes of one load and the pipes to them. Leaving its context ends whatever is left of them."""

    def __init__(self, load: Load, door: Door, payload: Payload) -> None:
        self._work = (load, door, payload)
        self._size = load.workers
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[Pipe] = []
        self._tally = Tally()
        self._started = 0.0

    def __enter__(self) -> "_Crew":
        for _ in range(self._size):
            ours, theirs = multiprocessing.Pipe()
            self._processes.append(_spawn(theirs))
            self._pipes.append(ours)
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.kill()
            process.wait()

    def start(self) -> None:
        """Let all processes begin at the same moment, once each of them is ready."""
        try:
            for pipe in self._pipes:
                pipe.send(self._work)
            for pipe in self._pipes:
                pipe.recv()
        except (EOFError, OSError):
            raise CortexError(_DIED) from None
        self._started = time.monotonic()
        for pipe in self._pipes:
            pipe.send(self._started)

    def gather(self, progress: Progress) -> Summary:
        """Add up what the processes send until all of them are done."""
        told = self._started
        while self._receive(timeout=None):
            if time.monotonic() - told >= _PROGRESS_INTERVAL:
                told = time.monotonic()
                progress(self._tally.summary(self._started))
        return self._tally.summary(self._started)

    def stop(self) -> Summary:
        """Have the processes end now, and add up what they still had."""
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
        end = time.monotonic() + 2 * GRACE
        while time.monotonic() < end and self._receive(timeout=GRACE):
            pass
        return self._tally.summary(self._started, interrupted=True)

    def _receive(self, timeout: float | None) -> bool:
        """Take what has come in. Return False once every process is done."""
        for pipe in wait(self._pipes, timeout):
            assert isinstance(pipe, Pipe)
            try:
                packed = pipe.recv()
            except EOFError:
                self._tally.failure(_DIED, time.monotonic())
                packed = None
            if packed is None:
                self._pipes.remove(pipe)
                pipe.close()
            else:
                self._tally.add(packed)
        return bool(self._pipes)


def _spawn(pipe: Pipe) -> subprocess.Popen[bytes]:
    """Start a process at the other end of a pipe.

    It has a process group of its own, so that Ctrl-C does not reach it: it must live to tell what it has counted.
    """
    command = [sys.executable, "-c", "from cortex.loadtest.worker import main; main()", str(pipe.fileno())]
    with pipe:
        return subprocess.Popen(command, pass_fds=[pipe.fileno()], process_group=0)
