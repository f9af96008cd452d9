"""Start the processes of a load, gather what they count, and sum it up."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from cortex.errors import CortexError
from cortex.loadtest.client import client
from cortex.loadtest.doors import Door
from cortex.loadtest.latency import latency
from cortex.loadtest.loads import Load
from cortex.loadtest.payloads import Payload
from cortex.loadtest.progress import Progress, progress
from cortex.loadtest.results import Result
from cortex.loadtest.statistics import Journal
from cortex.loadtest.steady import steady
from cortex.loadtest.worker import GRACE, ORPHANED, Note, Work

if TYPE_CHECKING:
    from cortex.loadtest.server import ServerWatch

Tell = Callable[[Progress], None]
"""Called a few times a second with how it goes."""

_PROGRESS_INTERVAL = 0.25  # seconds
_TICK = 0.1  # seconds
_HEAD_START = 0.1  # seconds in which all processes start their threads: the first request is not to be late for that
_SECOND = timedelta(seconds=1)
_DIED = "a process of the tester ended early"


def run(
    load: Load,
    door: Door,
    payloads: Payload | Sequence[Payload],
    tell: Tell = lambda _: None,
    *,
    warmup: float = 0.0,
    shuffle: bool = False,
    watch: "ServerWatch | None" = None,
    settings: Mapping[str, Any] | None = None,
) -> Result:
    """Carry out a load and return what came of it.

    ``warmup`` is how many seconds of the same load go before the measurement. ``settings`` are kept in the result,
    after those of the load. KeyboardInterrupt ends it early: the result is then of what was answered until that moment,
    and marked ``interrupted``. A second one is raised.
    """
    sent = (payloads,) if isinstance(payloads, Payload) else tuple(payloads)
    interrupted = False
    with _Crew(Work(load, door, sent, warmup, shuffle), watch) as crew:
        crew.start()
        try:
            crew.gather(tell)
        except KeyboardInterrupt:
            crew.stop()
            interrupted = True
        return crew.result(interrupted, settings or {})


class _Crew:
    """The processes of one load and the pipes to them. Leaving its context ends whatever is left of them."""

    def __init__(self, work: Work, watch: "ServerWatch | None") -> None:
        self._work = work
        self._watch = watch
        self._watching = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[Pipe] = []
        self._notes: dict[Pipe, Note] = {}
        self._cpu: list[float] = []
        self._unanswered = 0
        self._journal = Journal(0.0)
        self._begin = 0.0

    def __enter__(self) -> "_Crew":
        for _ in range(self._work.load.workers):
            ours, theirs = multiprocessing.Pipe()
            self._processes.append(_spawn(theirs, self._work.load.module))
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
            for number, pipe in enumerate(self._pipes):
                pipe.send((self._work, number))
            for pipe in self._pipes:
                pipe.recv()
        except (EOFError, OSError):
            raise CortexError(_DIED) from None
        if not self._work.warmup:
            self._watch_from_now()
        self._begin = time.monotonic() + _HEAD_START
        self._journal = Journal(self._begin + self._work.warmup, self._work.load.open_loop)
        for pipe in self._pipes:
            pipe.send(self._begin)

    def gather(self, tell: Tell) -> None:
        """Add up what the processes send until all of them are done."""
        told = self._begin
        while self._receive(_TICK):
            now = time.monotonic()
            self._look(now)
            if now - told >= _PROGRESS_INTERVAL:
                told = now
                in_flight = sum(note.in_flight for note in self._notes.values())
                tell(progress(self._work.load, self._journal, self._begin, now, in_flight))

    def stop(self) -> None:
        """Have the processes end now, and add up what they still had. What was measured goes on until now."""
        self._journal.scheduled = max(time.monotonic() - self._journal.start, 0.0)
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
        end = time.monotonic() + 2 * GRACE
        while time.monotonic() < end and self._receive(_TICK):
            pass

    def result(self, interrupted: bool, settings: Mapping[str, Any]) -> Result:
        """Sum up."""
        journal, load = self._journal, self._work.load
        if load.open_loop and not interrupted:
            journal.scheduled = load.seconds or 0.0
        whole, windows = journal.whole(), journal.series()
        corrected = latency(whole.latencies)
        began = datetime.now(UTC).astimezone() + (journal.start - time.monotonic()) * _SECOND
        return Result(
            seconds=journal.seconds,
            requests=whole.requests,
            inferences=whole.inferences,
            latency=corrected,
            errors=dict(whole.errors.most_common()),
            interrupted=interrupted,
            unanswered=self._unanswered if interrupted else 0,
            uncorrected=latency(journal.sent.latencies) if load.open_loop else corrected,
            sent_bytes=journal.effort.sent_bytes,
            received_bytes=journal.effort.received_bytes,
            windows=windows,
            steady=steady(windows),
            client=client(load, journal, whole, self._cpu),
            server=self._watch.end() if self._watch and self._watching else None,
            started=began.isoformat(timespec="seconds"),
            settings={"connections": load.workers * load.threads, "open_loop": load.open_loop} | dict(settings),
            warmup_seconds=self._work.warmup,
        )

    def _look(self, now: float) -> None:
        if self._watch and now >= self._journal.start:
            self._watch_from_now()
            self._watch.look()

    def _watch_from_now(self) -> None:
        if self._watch and not self._watching:
            self._watching = True
            self._watch.begin()

    def _receive(self, timeout: float) -> bool:
        """Take what has come in. Return False once every process is done."""
        for pipe in wait(self._pipes, timeout):
            assert isinstance(pipe, Pipe)
            try:
                note = pipe.recv()
            except ORPHANED:
                now = max(time.monotonic(), self._journal.start)  # one that died in the warm-up is missed all the same
                self._journal.failure(_DIED, now, now)
                self._leave(pipe)
            else:
                self._take(pipe, note)
        return bool(self._pipes)

    def _take(self, pipe: Pipe, note: Note) -> None:
        self._notes[pipe] = note
        self._journal.add(note.journal)
        if note.ended:
            self._leave(pipe)

    def _leave(self, pipe: Pipe) -> None:
        self._pipes.remove(pipe)
        pipe.close()
        if note := self._notes.pop(pipe, None):
            self._cpu.append(note.cpu_seconds)
            self._unanswered += note.in_flight + note.unsent


def _spawn(pipe: Pipe, module: str) -> subprocess.Popen[bytes]:
    """Start a process at the other end of a pipe.

    It has a process group of its own, so that Ctrl-C does not reach it: it must live to tell what it has counted. It
    imports from where this process does, and not from the current folder.
    """
    command = [sys.executable, "-P", "-c", f"from {module} import main; main()", str(pipe.fileno())]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with pipe:
        return subprocess.Popen(command, pass_fds=[pipe.fileno()], process_group=0, env=env)
