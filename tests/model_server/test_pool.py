"""The pool of a model's native objects."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import pytest

from cortex.model_server.engines.pool import Pool
from cortex.model_server.status import StatusError


def test_items_are_made_when_they_are_needed() -> None:
    """Whoever comes one after the other shares an item; whoever comes at once has one each, up to the size."""
    numbers = count()
    pool = Pool(lambda: next(numbers), size=2)
    for _ in range(3):
        with pool.item(None) as item:
            assert item == 0
    with pool.item(None) as first, pool.item(None) as second:
        assert {first, second} == {0, 1}
        with pytest.raises(StatusError, match="DEADLINE_EXCEEDED"), pool.item(time.monotonic() + 0.01):
            pass
    assert next(numbers) == 2


def test_an_item_that_comes_back_goes_to_whoever_waits() -> None:
    """A wait without a deadline ends with the item, also when who had it failed."""
    pool = Pool(object, size=1)
    with ThreadPoolExecutor(1) as threads, ExitStack() as held:
        item = held.enter_context(pool.item(None))
        waiting = threads.submit(_borrowed, pool)
        held.close()
        assert waiting.result(timeout=20) is item


def test_an_item_that_cannot_be_made_is_made_by_the_next() -> None:
    """What it failed for may be over, such as a want of memory; its place is not lost."""

    def makes() -> Iterator[object]:
        yield from (MemoryError(), "item")

    made = makes()

    def make() -> object:
        result = next(made)
        if isinstance(result, Exception):
            raise result
        return result

    pool = Pool(make, size=1)
    with pytest.raises(MemoryError), pool.item(None):
        pass
    assert _borrowed(pool) == "item"


def _borrowed(pool: Pool[object]) -> object:
    with pool.item(time.monotonic() + 20) as item:
        return item
