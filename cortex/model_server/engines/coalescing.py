"""The answers of a busy engine leave together, as a network card that is busy raises one interrupt for many packets.

An engine sweeps through all its weights for every request, and whatever runs next finds none of its own code and data
in the processor's caches: what reads a request, and sends an answer, costs twice as much as when it has just run. So
where requests wait for the engine anyway, an answer waits a little for the answers behind it, and all that is done for
them on the way out, and for the requests that follow them in, is done in one go.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HOLD_SECONDS = 0.02
"""How long an answer waits for others at most."""
_BUSY = 2
"""Requests for each stream: one that computes and one that waits. While there are more, the engine is busy."""


class _Group:
    """Answers that leave together, ``due`` on `time.monotonic`'s clock at the latest."""

    def __init__(self) -> None:
        self.due = time.monotonic() + HOLD_SECONDS
        self.leaves = threading.Event()


class Coalescing:
    """Follow the requests of an engine with ``streams``; while it is busy, let their answers leave together."""

    def __init__(self, streams: int) -> None:
        self._enough = streams * _BUSY
        self._unfinished = 0
        self._group = _Group()
        self._group.leaves.set()
        self._lock = threading.Lock()

    @contextmanager
    def request(self, deadline: float | None) -> Iterator[bool]:
        """Let a request compute inside; yield whether no other does.

        What ends well is held on leaving, never beyond the deadline; an error leaves at once.
        """
        with self._lock:
            self._unfinished += 1
            is_alone = self._unfinished == 1
        try:
            yield is_alone
        except BaseException:
            self._finish(until=-math.inf)
            raise
        group = self._finish(until=math.inf if deadline is None else deadline)
        if group is not None and not group.leaves.wait(group.due - time.monotonic()):
            group.leaves.set()

    def _finish(self, until: float) -> _Group | None:
        """Count a request as finished; return the group with which it leaves, or None where it leaves at once."""
        with self._lock:
            self._unfinished -= 1
            group = self._group
            if self._unfinished <= self._enough:
                if not group.leaves.is_set():
                    group.leaves.set()
                return None
            if group.leaves.is_set():
                group = _Group()
            if until < group.due:
                return None
            self._group = group
            return group
