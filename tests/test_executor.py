"""Work that is given to a pool where the system has no thread to spare."""

import threading
from collections.abc import Callable

import pytest

from cortex.executor import PatientExecutor
from tests.waiting import DEADLINE


def test_work_waits_for_a_thread_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done in its turn, and once."""
    done: list[str] = []
    go = threading.Event()

    def work(name: str) -> Callable[[], None]:
        def act() -> None:
            go.wait(20)
            done.append(name)

        return act

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with PatientExecutor(2) as pool:
        pool.submit(work("first"))
        monkeypatch.setattr(threading.Thread, "start", refuse)
        second = pool.submit(work("second"))
        go.set()
        second.result(DEADLINE)
    assert done == ["first", "second"]
