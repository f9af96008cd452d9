"""One process of a load: it sends, and every now and then passes on what it has counted."""

import sys
import threading
import time
from multiprocessing.connection import Connection as Pipe

from cortex.loadtest.doors import Door, Failed
from cortex.loadtest.loads import Load
from cortex.loadtest.payloads import Payload
from cortex.loadtest.statistics import Tally

INTERVAL = 0.1
"""Seconds between two tallies on the pipe."""
GRACE = 1.0
"""Seconds that requests in flight have to end after the load was stopped; what is left then is not counted."""
_PAUSE = 0.05  # seconds after nobody answered the door: a server that is down is not to be hammered


def main() -> None:
    """Carry out one process's share of a load, over the pipe whose descriptor is the last argument.

    Takes the load, the door and the payload, answers ``None`` when it is ready, and takes the time to start at. Sends
    packed tallies while it works, each with what is new since the last one, and ``None`` at the end. Anything that
    comes over the pipe meanwhile, its end included, stops it.
    """
    with Pipe(int(sys.argv[-1])) as pipe:
        load, door, payload = pipe.recv()
        pipe.send(None)
        _Worker(load, door, payload, pipe, start=pipe.recv()).run()
        pipe.send(None)


class _Worker:
    def __init__(self, load: Load, door: Door, payload: Payload, pipe: Pipe, start: float) -> None:
        self._load = load
        self._door = door
        self._payload = payload
        self._pipe = pipe
        self._start = start
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._tally = Tally()

    def run(self) -> None:
        threads = [threading.Thread(target=self._send, daemon=True) for _ in range(self._load.threads)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if self._pipe.poll(INTERVAL):
                self._stop(threads)
                break
            self._pass_on()
        self._pass_on()

    def _stop(self, threads: list[threading.Thread]) -> None:
        self._stopped.set()
        end = time.monotonic() + GRACE
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0))

    def _pass_on(self) -> None:
        with self._lock:
            tally, self._tally = self._tally, Tally()
        self._pipe.send(tally.packed())

    def _send(self) -> None:
        """Be one client: send whenever the load says so."""
        connection = self._door.connect()
        self._stopped.wait(max(self._start - time.monotonic(), 0))
        for due in self._load.arrivals(self._start):
            if self._stopped.wait(max(due - time.monotonic(), 0)):
                break
            try:
                connection.call(self._payload)
            except Failed as failed:
                self._failure(failed)
            else:
                self._success(due)
        connection.close()

    def _success(self, due: float) -> None:
        now = time.monotonic()
        with self._lock:
            self._tally.success(now - due, self._payload.inferences, now)

    def _failure(self, failed: Failed) -> None:
        with self._lock:
            self._tally.failure(failed.kind, time.monotonic())
        if failed.unreachable:
            self._stopped.wait(_PAUSE)
