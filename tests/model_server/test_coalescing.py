"""Answers of a busy engine leave together; what is held, until when, and what never is."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from cortex.model_server.engines import coalescing
from cortex.model_server.engines.coalescing import Coalescing
from tests.waiting import until

STREAMS = 1
ENOUGH = 2  # one computes and one waits: with more, answers are held
LONG = 1000.0


class Requests:
    """Requests in threads of their own, each of which computes until it is told how it ends."""

    def __init__(self) -> None:
        self._coalescing = Coalescing(STREAMS)
        self._ends: list[threading.Event] = []
        self._threads: list[threading.Thread] = []
        self.alone: list[bool] = []

    def start(self, count: int, deadline: float | None = None, error: Exception | None = None) -> None:
        for _ in range(count):
            end = threading.Event()
            self._ends.append(end)
            self._threads.append(threading.Thread(target=self._compute, args=(end, deadline, error)))
            self._threads[-1].start()
            until(lambda: len(self.alone) == len(self._threads))

    def finish(self, number: int) -> None:
        self._ends[number].set()

    def close(self) -> None:
        for end in self._ends:
            end.set()
        for thread in self._threads:
            thread.join()

    def left(self) -> list[int]:
        return [number for number, thread in enumerate(self._threads) if not thread.is_alive()]

    def leave(self, *numbers: int) -> bool:
        """Tell whether exactly these leave."""
        until(lambda: self.left() == list(numbers))
        return True

    def _compute(self, end: threading.Event, deadline: float | None, error: Exception | None) -> None:
        with suppress(RuntimeError), self._coalescing.request(deadline) as is_alone:
            self.alone.append(is_alone)
            end.wait()
            if error is not None:
                raise error


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    return lambda seconds: monkeypatch.setattr(coalescing, "HOLD_SECONDS", seconds)


@pytest.fixture
def requests(hold: Callable[[float], None]) -> Iterator[Requests]:
    """Requests whose answers are held for as long as the engine is busy."""
    hold(LONG)
    made = Requests()
    yield made
    made.close()


def held(requests: Requests, *, left: list[int]) -> bool:
    """Tell whether no more than these have left after a while in which they could have."""
    time.sleep(0.05)
    return requests.left() == left


def test_who_is_alone(requests: Requests) -> None:
    """The first, until it has finished, and then the next that finds nobody; a held answer is nobody's company."""
    requests.start(2)
    requests.finish(0)
    requests.finish(1)
    assert requests.leave(0, 1)
    requests.start(1)
    assert requests.alone == [True, False, True]
    requests.finish(2)


def test_nothing_is_held_while_the_streams_have_no_more_than_one_request_in_wait(requests: Requests) -> None:
    requests.start(ENOUGH + 1)
    for number in range(ENOUGH + 1):
        requests.finish(number)
        assert requests.leave(*range(number + 1))


def test_answers_of_a_busy_engine_leave_together(requests: Requests) -> None:
    """Those held leave with the first that finds few enough behind it."""
    requests.start(ENOUGH + 3)
    requests.finish(0)
    requests.finish(1)
    assert held(requests, left=[])
    requests.finish(2)
    assert requests.leave(0, 1, 2)


def test_the_next_group_is_another(requests: Requests) -> None:
    requests.start(ENOUGH + 2)
    requests.finish(0)
    requests.finish(1)
    assert requests.leave(0, 1)
    requests.start(2)
    requests.finish(2)
    assert held(requests, left=[0, 1])
    requests.finish(3)
    assert requests.leave(0, 1, 2, 3)


def test_no_answer_is_held_for_longer_than_the_limit(hold: Callable[[float], None]) -> None:
    """However slow the engine is: with nothing else finishing, an answer leaves by itself, and so does the next."""
    hold(0.01)
    requests = Requests()
    requests.start(ENOUGH + 3)
    requests.finish(0)
    assert requests.leave(0)
    requests.finish(1)
    assert requests.leave(0, 1)
    requests.close()


def test_an_answer_does_not_wait_beyond_its_deadline(requests: Requests) -> None:
    requests.start(1, deadline=time.monotonic() + LONG / 2)
    requests.start(ENOUGH + 1)
    requests.finish(0)
    assert requests.leave(0)


def test_an_answer_waits_where_its_deadline_allows_it(requests: Requests) -> None:
    requests.start(1, deadline=time.monotonic() + 2 * LONG)
    requests.start(ENOUGH + 1)
    requests.finish(0)
    assert held(requests, left=[])


def test_an_error_leaves_at_once(requests: Requests) -> None:
    requests.start(1, error=RuntimeError("no"))
    requests.start(ENOUGH + 1)
    requests.finish(0)
    assert requests.leave(0)


def test_an_error_that_leaves_few_enough_lets_the_others_go(requests: Requests) -> None:
    requests.start(1)
    requests.start(1, error=RuntimeError("no"))
    requests.start(ENOUGH)
    requests.finish(0)
    assert held(requests, left=[])
    requests.finish(1)
    assert requests.leave(0, 1)
