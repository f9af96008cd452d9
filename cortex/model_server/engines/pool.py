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
        self._idle: queue.LifoQueue[Item | None] = queue.LifoQueue()
        for _ in range(size):
            self._idle.put(None)

    @contextmanager
    def item(self, deadline: float | None) -> Iterator[Item]:
        """Lend an item; wait for one until the deadline. Raises DEADLINE_EXCEEDED."""
        try:
            item = self._idle.get(timeout=remaining(deadline))
        except queue.Empty:
            raise timed_out() from None
        try:
            if item is None:
                item = self._make()
            yield item
        finally:
            self._idle.put(item)
