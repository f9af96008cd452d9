"""One process of a load: it sends, and every now and then passes on what it has counted."""

import itertools
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from multiprocessing.connection import Connection as Pipe

from cortex.loadtest.doors import Connection, Door, Failed
from cortex.loadtest.loads import Load
from cortex.loadtest.payloads import Payload
from cortex.loadtest.statistics import Journal

INTERVAL = 0.1
"""Seconds between two journals on the pipe."""
GRACE = 1.0
"""Seconds that requests in flight have to end after the load was stopped; what is left then is not counted."""
ORPHANED = (EOFError, ConnectionError)
"""What a pipe raises whose other end is gone."""
WRONG = "wrong answer"
NEVER_SENT = "never sent: every connection was busy"
_PAUSE = 0.05  # seconds after nobody answered the door: a server that is down is not to be hammered
_KNOWN = 1000  # right answers to remember


@dataclass(frozen=True)
class Work:
    """What the processes of a load do. A value that can be pickled."""

    load: Load
    door: Door
    payloads: tuple[Payload, ...]
    warmup: float = 0.0
    """Seconds of the same load before anything is counted."""
    shuffle: bool = False
    """Whether payloads are sent in random order, instead of one after the other."""


@dataclass(frozen=True)
class Note:
    """What a process tells its parent."""

    journal: dict[str, object]
    in_flight: int
    cpu_seconds: float
    """Processor time since the measurement began."""
    ended: bool = False
    unsent: int = 0
    """In the last note of a load that was stopped: requests that were due, and had no connection yet."""


def main() -> None:
    """Carry out one process's share of a load, over the pipe whose descriptor is the last argument.

    Takes the work and the number of this process, answers ``None`` when it is ready, and takes the time to begin at.
    Sends notes while it works, each with what is new since the last one; the last one says that it is that. Anything
    that comes over the pipe meanwhile, its end included, stops it. When the parent is gone it ends without a word.
    """
    with Pipe(int(sys.argv[-1])) as pipe, suppress(*ORPHANED):
        work, number = pipe.recv()
        pipe.send(None)
        Worker(work, number, pipe, begin=pipe.recv()).run()


class Worker:
    """The threads of one process, and what they count."""

    def __init__(self, work: Work, number: int, pipe: Pipe, begin: float) -> None:
        self._work = work
        self._number = number
        self._pipe = pipe
        self._begin = begin
        self._start = begin + work.warmup
        self._deadline = self._start + (work.load.seconds or 0.0) + work.load.patience
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._journal = self._new_journal()
        self._in_flight: set[int] = set()
        self._cpu = 0.0
        self._right: set[tuple[int, bytes]] = set()

    def run(self) -> None:
        clients = self._work.load.arrivals(self._number, self._begin, self._start)
        payloads = _order(self._work.payloads, self._work.shuffle, self._number)
        threads = [threading.Thread(target=self._send, args=(each, payloads), daemon=True) for each in clients]
        try:
            for thread in threads:
                thread.start()
        except RuntimeError as error:
            sys.exit(f"error: {error}: the system allows no more (ulimit -u); use fewer threads or processes")
        unsent = 0
        while any(thread.is_alive() for thread in threads):
            if self._pipe.poll(self._interval()):
                now = time.monotonic()
                self._stop(threads)
                unsent = self._overdue(clients[0], now)
                break
            self._pass_on()
        self._pass_on(ended=True, unsent=unsent)

    def _interval(self) -> float:
        """Return how long to wait until the next note: one is due at the very start of the measurement."""
        ahead = self._start - time.monotonic()
        return min(INTERVAL, ahead) if ahead > 0 else INTERVAL

    def _new_journal(self) -> Journal:
        return Journal(self._start, corrected=self._work.load.open_loop)

    def _stop(self, threads: list[threading.Thread]) -> None:
        self._stopped.set()
        end = time.monotonic() + GRACE
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0))

    def _overdue(self, arrivals: Iterator[float], now: float) -> int:
        """Return how many requests are left of an open loop, whose threads share the arrivals, that were due by now."""
        if not self._work.load.open_loop:
            return 0
        return sum(due >= self._start for due in takewhile(lambda due: due < now, arrivals))

    def _pass_on(self, ended: bool = False, unsent: int = 0) -> None:
        with self._lock:
            journal, self._journal = self._journal, self._new_journal()
        cpu = time.process_time()
        if not self._cpu and time.monotonic() >= self._start:
            self._cpu = cpu
        spent = cpu - self._cpu if self._cpu else 0.0
        self._pipe.send(Note(journal.packed(), len(self._in_flight), spent, ended, unsent))

    def _send(self, arrivals: Iterator[float], payloads: Iterator[Payload]) -> None:
        """Be one client: send whenever the load says so."""
        connection = self._work.door.connect()
        self._stopped.wait(max(self._begin - time.monotonic(), 0))
        idle = True  # until the first request: its connection waits for no answer
        while not self._stopped.is_set() and (due := next(arrivals, None)) is not None:
            wait = due - time.monotonic()
            if wait > 0 and self._stopped.wait(wait):
                break
            self._one(connection, next(payloads), due, waited=idle or wait > 0)
            idle = False
        connection.close()

    def _one(self, connection: Connection, payload: Payload, due: float, waited: bool) -> None:
        """Send one request, and count what comes of it."""
        sent = time.monotonic()
        if self._work.load.open_loop and not waited and sent > self._deadline:
            self._failure(NEVER_SENT, due)
            return
        me, answer = threading.get_ident(), b""
        self._in_flight.add(me)
        try:
            answer = connection.call(payload)
            ended = time.monotonic()
            self._check(payload, answer)
        except Failed as failed:
            self._failure(failed.kind, due)
            if failed.unreachable:
                self._stopped.wait(_PAUSE)
                return
        else:
            with self._lock:
                self._journal.success(due, sent, ended, payload.inferences)
        finally:
            self._in_flight.discard(me)
        with self._lock:
            self._journal.departure(due, sent, waited, len(payload.body), len(answer))

    def _check(self, payload: Payload, answer: bytes) -> None:
        """Raise `Failed` for an answer that is not the expected one. The same bytes are looked at only once."""
        if payload.expected is None:
            return
        key = (id(payload), answer)
        if key in self._right:
            return
        if not payload.expected.accepts(answer):
            raise Failed(WRONG)
        if len(self._right) < _KNOWN:
            self._right.add(key)

    def _failure(self, kind: str, due: float) -> None:
        with self._lock:
            self._journal.failure(kind, due, time.monotonic())


class _Order(Iterator[Payload]):
    """Payloads one after the other or in random order, without end, for several threads."""

    def __init__(self, payloads: Sequence[Payload], shuffle: bool, seed: int) -> None:
        self._payloads = payloads
        self._chance = random.Random(seed) if shuffle else None  # noqa: S311  # to be repeatable, not secret
        self._next = itertools.count(seed)

    def __next__(self) -> Payload:
        if self._chance:
            return self._chance.choice(self._payloads)
        return self._payloads[next(self._next) % len(self._payloads)]


def _order(payloads: Sequence[Payload], shuffle: bool, worker: int) -> Iterator[Payload]:
    return itertools.repeat(payloads[0]) if len(payloads) == 1 else _Order(payloads, shuffle, worker)
