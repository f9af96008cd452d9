"""Waiting for what other processes and threads do, for as long as any machine may need: no time is a test's result."""

import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE = 180.0
"""Seconds after which what was awaited is taken to hang."""
_T = TypeVar("_T")


def until(condition: Callable[[], _T], told: Callable[[], str] = lambda: "not within the deadline") -> _T:
    """Return the first true value of a condition; fail at the deadline, with what there is to be told."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, told()
        time.sleep(0.02)
    return value
