"""The native objects of a model that only one thread may use at a time."""

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from cortex.model_server.engines.base import remaining, timed_out

Item = TypeVar("Item")


class Pool(Generic[Item]):
    """Lend up to ``size`` items, made when they are first needed: most processes never need all of them at once."""

    def __init__(self, make: Callable[[], Item], size: int) -> None:
        self._make = make
        self._idle: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._unmade: list[None] = [None] * size  # pop is atomic

    @contextmanager
    def item(self, deadline: float | None) -> Iterator[Item]:
        """Lend an item; wait for one until the deadline. Raises DEADLINE_EXCEEDED."""
        item = self._taken(deadline)
        try:
            if item is None:
                item = self._make()
            yield item
        finally:
            self._idle.put(item)

    def _taken(self, deadline: float | None) -> Item | None:
        """Take an item that is idle, or else leave to make one, or else what comes back next."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            pass
        try:
            return self._unmade.pop()
        except IndexError:
            pass
        try:
            return self._idle.get(timeout=remaining(deadline))
        except queue.Empty:
            raise timed_out() from None
