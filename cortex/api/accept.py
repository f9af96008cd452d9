"""Take connections off a listening socket that several workers share, so that each worker has as many as the others.

The kernel gives a connection to whichever worker wakes first. Here a worker takes one only while no other has fewer
open, and else leaves it to that other: docs/decisions/0010-even-workers.md.
"""

import asyncio
import logging
import mmap
import os
import socket
import time
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from pathlib import Path

STEP_S = 0.001
"""How long a worker looks away from a connection that is another's to take."""
PATIENCE_S = 0.02
"""How long a connection may wait for the worker with the fewest before that one is passed over."""
SPREAD = 2
"""How many connections more than any other a worker keeps."""
_RECOVERY_S = 1.0
_PRESENT, _TAKEN, _OPEN = range(3)
_COLUMNS = 3
_log = logging.getLogger("cortex")


class Tally:
    """How many connections each worker of one listening socket has, in memory that they share.

    A row per worker: whether it is present, how many it ever took, how many it has open. A worker writes its own row
    only, except that any may mark another as absent; a present one marks itself as present again with every `enter`.
    No lock is needed: a worker knows its own count exactly, and what it reads of the others lags behind what they took.
    """

    def __init__(self, rows: memoryview, worker: int) -> None:
        self._rows = rows
        self._worker = worker
        self._own = worker * _COLUMNS

    @classmethod
    def open(cls, directory: Path, listener: socket.socket, *, workers: int, worker: int) -> "Tally":
        """Open what the workers of this very socket share, or make it. OSError when the disk has no room for it."""
        path = directory / f"connections-{os.fstat(listener.fileno()).st_ino}"
        size = workers * _COLUMNS * 8
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)  # zeros where nothing was: all are absent
            tally = cls(memoryview(mmap.mmap(file, size)).cast("q"), worker)
        finally:
            os.close(file)
        tally.update(taken=0, open_=0)  # a predecessor that was killed left its own
        return tally

    def enter(self) -> None:
        """Be counted on by the others."""
        self._rows[self._own + _PRESENT] = 1

    def leave(self) -> None:
        """Have the others take every connection."""
        self._rows[self._own + _PRESENT] = 0

    def update(self, *, taken: int, open_: int) -> None:
        """Tell how many connections this worker has taken, and has open."""
        self._rows[self._own + _TAKEN] = taken
        self._rows[self._own + _OPEN] = open_

    def fewer(self) -> list[int]:
        """Return the present workers that have fewer connections open than this one."""
        own, rows = self._rows[self._own + _OPEN], self._rows.tolist()
        counts = zip(rows[_PRESENT::_COLUMNS], rows[_OPEN::_COLUMNS], strict=True)
        return [worker for worker, (present, count) in enumerate(counts) if present and count < own]

    def pass_over(self, workers: Collection[int]) -> None:
        """Mark workers as absent that let a connection wait; they come back with their next `enter`."""
        for row in workers:
            self._rows[row * _COLUMNS + _PRESENT] = 0

    def taken(self) -> int:
        """Return how many connections all have taken; it changes whenever one takes another."""
        return sum(self._rows.tolist()[_TAKEN::_COLUMNS])

    def surplus(self) -> int:
        """Return how many connections others should have instead, because one came back after this worker's opened.

        It is what is above this worker's share, and nothing while no present one has fewer by more than `SPREAD`.
        """
        own, rows = self._rows[self._own + _OPEN], self._rows.tolist()
        counts = zip(rows[_PRESENT::_COLUMNS], rows[_OPEN::_COLUMNS], strict=True)
        here = [count for present, count in counts if present]
        return max(0, own - sum(here) // len(here)) if here and own - min(here) > SPREAD else 0


class Acceptor:
    """Accept this worker's connections; ``connections`` holds the protocols of those that are open."""

    def __init__(
        self,
        listener: socket.socket,
        tally: Tally,
        connections: AbstractSet[object],
        protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        self._listener = listener
        self._tally = tally
        self._connections = connections
        self._protocol = protocol
        self._opening: dict[asyncio.Protocol, asyncio.Task[None]] = {}
        self._taken = 0
        self._stalled = (-1, 0.0)
        self._recovering = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to accept, in the running event loop."""
        self._listener.setblocking(False)
        self._watch()
        self.tick()

    def tick(self) -> None:
        """Show that this worker's event loop runs and can accept; to be called several times a second."""
        if not self._recovering:
            self._tally.enter()

    def count(self) -> None:
        """Tell the others how many connections are open; to be called after one has ended."""
        unknown = self._opening.keys() - self._connections
        self._tally.update(taken=self._taken, open_=len(self._connections) + len(unknown))

    def surplus(self) -> int:
        """Return how many connections are to end, so that other workers have them."""
        return self._tally.surplus()

    async def close(self) -> None:
        """Accept no more; return when everything that was accepted has its protocol."""
        if self._timer is not None:
            self._timer.cancel()
        asyncio.get_running_loop().remove_reader(self._listener)
        self._tally.leave()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)

    def _watch(self) -> None:
        self._recovering = False
        asyncio.get_running_loop().add_reader(self._listener, self._waiting)

    def _look_away(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)  # it would call again and again for as long as the connection waits
        self._timer = loop.call_later(seconds, self._watch)

    def _waiting(self) -> None:
        """Take what is waiting and this worker's to take."""
        try:
            while self._turn():
                self._take()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another was quicker, or the client went away
        except OSError as error:
            _log.error("cannot accept connections: %s", error.strerror)  # too many open files, most likely
            self._recovering = True
            self._tally.leave()
            self._look_away(_RECOVERY_S)
        else:
            self._look_away(STEP_S)

    def _turn(self) -> bool:
        """Tell whether no other worker should take the next connection, or one that should has not come for it."""
        fewer = self._tally.fewer()
        if not fewer:
            return True
        taken, now = self._tally.taken(), time.monotonic()
        if self._stalled[0] != taken:
            self._stalled = (taken, now)
        if now - self._stalled[1] < PATIENCE_S:
            return False
        self._tally.pass_over(fewer)
        return True

    def _take(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        protocol = self._protocol()
        self._opening[protocol] = asyncio.get_running_loop().create_task(self._open(connection, protocol))
        self._taken += 1
        self.count()

    async def _open(self, connection: socket.socket, protocol: asyncio.Protocol) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection)
        except OSError:
            connection.close()  # the client is gone already
        finally:
            del self._opening[protocol]
            self.count()
