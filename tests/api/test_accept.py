"""Workers that share a listening socket have equally many connections each."""

import asyncio
import contextlib
import errno
import http.client
import os
import signal
import socket
from collections import Counter

import pytest

from cortex.api.accept import Acceptor, Tally
from tests.waiting import DEADLINE, until

PREDICTOR = """
import os


class PythonPredictor:
    def __init__(self, config):
        pass

    def predict(self):
        return os.getpid()
"""
WORKERS = 4


@pytest.fixture
def crew(workers, tmp_path):
    """Return a function that starts the worker of a number; all share a socket and a directory, as in one revision."""
    listener, shared = workers.listen(), tmp_path / "metrics"
    shared.mkdir()
    spec = {"predictor": {"processes_per_replica": WORKERS}}

    def start(number):
        env = {"PROMETHEUS_MULTIPROC_DIR": str(shared)}
        return workers.start(PREDICTOR, spec, listener=listener, env=env, number=number)

    return start


@pytest.fixture
def connect():
    """Return a function that opens a connection that is kept, and returns it with the pid of who answers on it."""
    with contextlib.ExitStack() as stack:

        def run(worker):
            host, port = worker.url.removeprefix("http://").split(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=20)
            stack.callback(connection.close)
            return connection, ask(connection)

        yield run


def level(counts):
    return max(counts.values()) - min(counts.values()) <= 2


def ask(connection):
    connection.request("POST", "/")
    return int(connection.getresponse().read())


def test_a_stopped_worker_does_not_hold_up_the_others(crew, connect):
    """Who should have taken a connection and does not is passed over; who runs again is level with the others soon."""
    running = [crew(number) for number in range(WORKERS)]
    pids = {worker.await_ready().process.pid for worker in running}
    stopped, *others = running
    stopped.process.send_signal(signal.SIGSTOP)
    counts = Counter({worker.process.pid: 0 for worker in others})

    def spread(least):
        counts[connect(others[0])[1]] += 1
        return counts.total() >= least and level(counts)

    try:
        until(lambda: spread(30))
    finally:
        stopped.process.send_signal(signal.SIGCONT)
    assert set(counts) == pids - {stopped.process.pid}
    before = counts.total()
    counts[stopped.process.pid] = 0
    until(lambda: spread(before))
    assert counts.total() < 2 * before, counts


def test_a_starting_and_a_draining_worker_take_none(crew, connect):
    """Only those that serve are counted on: a worker that is alone takes all, without a wait for the absent."""
    first = crew(0).await_ready()
    assert {connect(first)[1] for _ in range(10)} == {first.process.pid}
    second = crew(1).await_ready()
    kept = [connect(second) for _ in range(10)]
    assert {pid for _, pid in kept} == {second.process.pid}
    second.process.terminate()
    for connection, _ in kept:
        with contextlib.suppress(OSError, http.client.HTTPException):
            ask(connection)
    assert second.process.wait(timeout=DEADLINE) == 0
    assert {connect(first)[1] for _ in range(10)} == {first.process.pid}


def test_connections_that_end_are_not_counted(crew, connect):
    """After clients went away, the worker that had them takes the next ones."""
    running = [crew(number).await_ready() for number in range(2)]
    kept = [connect(running[0]) for _ in range(20)]
    leaving = running[0].process.pid
    for connection, pid in kept:
        if pid == leaving:
            connection.close()
    taken = Counter(connect(running[0])[1] for _ in range(10))
    assert taken[leaving] >= 7, taken  # nearly all: a worker that does not get to run for a while is passed over


def test_one_worker_shares_nothing(workers, connect, tmp_path):
    """A worker that is alone in its revision accepts as uvicorn does."""
    worker = workers.start(PREDICTOR, env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}).await_ready()
    assert connect(worker)[1] == worker.process.pid
    assert not list(tmp_path.glob("connections-*"))


def test_who_cannot_accept_is_not_waited_for(tmp_path):
    """A worker without descriptors is absent until it tries again, however often it shows that it runs."""

    class Full(socket.socket):
        def accept(self):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def fewer(listener):
        mine, other = (Tally.open(tmp_path, listener, workers=2, worker=worker) for worker in range(2))
        other.enter()
        other.update(taken=1, open_=1)
        acceptor = Acceptor(listener, mine, set(), asyncio.Protocol)
        acceptor.start()
        before = other.fewer()
        with socket.create_connection(listener.getsockname()):
            await asyncio.sleep(0.1)
            acceptor.tick()
            after = other.fewer()
        await acceptor.close()
        return before, after

    with Full() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert asyncio.run(fewer(listener)) == ([0], [])


@pytest.mark.parametrize(
    ("open_", "absent", "fewer", "surplus"),
    [
        ((0, 0, 0), (), [[], [], []], [0, 0, 0]),
        ((1, 0, 0), (), [[1, 2], [], []], [0, 0, 0]),
        ((1, 0, 1), (1,), [[], [], []], [0, 0, 0]),
        ((21, 21, 0), (), [[2], [2], []], [7, 7, 0]),
        ((21, 21, 0), (2,), [[], [], []], [0, 0, 0]),
        ((9, 4, 4), (0,), [[1, 2], [], []], [5, 0, 0]),
        ((16, 16, 14), (), [[2], [2], []], [0, 0, 0]),
        ((16, 16, 13), (), [[2], [2], []], [1, 1, 0]),
        ((17, 16, 14), (), [[1, 2], [2], []], [2, 0, 0]),
    ],
)
def test_tally(tmp_path, open_, absent, fewer, surplus):
    """Who is to take the next connection, and how many each has too many; the absent have no say."""
    with socket.socket() as listener:
        tallies = [Tally.open(tmp_path, listener, workers=3, worker=worker) for worker in range(3)]
    for tally, count in zip(tallies, open_, strict=True):
        tally.enter()
        tally.update(taken=count, open_=count)
    tallies[0].pass_over(absent)
    assert [tally.fewer() for tally in tallies] == fewer
    assert [tally.surplus() for tally in tallies] == surplus
    assert tallies[0].taken() == sum(open_)


def test_two_sockets_are_two_tallies(tmp_path):
    """Workers of containers that share a directory, but not a socket, do not wait for each other."""
    with socket.socket() as one, socket.socket() as other:
        mine, theirs = (Tally.open(tmp_path, listener, workers=2, worker=0) for listener in (one, other))
    mine.enter()
    mine.update(taken=1, open_=1)
    assert theirs.taken() == 0
