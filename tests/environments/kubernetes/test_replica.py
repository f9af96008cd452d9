"""All workers of one replica behind one port: real processes on loopback."""

import fcntl
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.deployment import until
from tests.ports import free_port

WORKER = Path(__file__).with_name("replica_worker.py")
_DEADLINE = 30.0
Start = Callable[..., "Replica"]


class Replica:
    """A replica that runs, and the files by which others know it."""

    def __init__(self, root: Path, *flags: str, workers: int) -> None:
        self.port = free_port()
        self.ready, self.lock = root / "ready", root / "api.lock"
        command = [sys.executable, "-P", "-m", "cortex.environments.kubernetes.replica", "--workers", str(workers)]
        command += ["--port", str(self.port), "--ready", str(self.ready), "--lock", str(self.lock)]
        command += ["--files", str(_mounted(root)), "--"]
        command += [sys.executable, str(WORKER), "--worker", "{worker}", *flags]
        self.project, self.metrics = root / "project", root / "metrics"
        self.project.mkdir(exist_ok=True)
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self.metrics)}
        self.process = subprocess.Popen(command, cwd=self.project, env=environment, start_new_session=True)

    def ask(self, method: str = "GET") -> str:
        """Return the number of the worker that answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, "/")
            return connection.getresponse().read().decode()
        except (http.client.RemoteDisconnected, ConnectionResetError):
            return ""
        finally:
            connection.close()

    def locked(self) -> bool:
        """Tell whether a worker may still be there, as the model server's container finds out."""
        with self.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False


def _mounted(root: Path) -> Path:
    """Return a directory as a ConfigMap is mounted: keys that are names of files, and a link of the cluster's own."""
    directory = root / "mounted"
    if not directory.exists():
        directory.mkdir()
        (directory / "src_2fdeep.py").write_text("x = 1\n")
        (directory / "..data").symlink_to(directory)
    return directory


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    replicas: list[Replica] = []

    def started(*flags: str, workers: int = 2) -> Replica:
        replicas.append(Replica(tmp_path, *flags, workers=workers))
        return replicas[-1]

    yield started
    for replica in replicas:
        replica.process.terminate()  # a replica that is killed leaves its workers behind
        try:
            replica.process.wait(_DEADLINE)
        finally:
            replica.process.kill()
            replica.process.wait()


def test_every_worker_answers_on_the_one_port(start: Start) -> None:
    replica = start(workers=3)
    until(replica.ready.exists)
    seen: set[str] = set()
    until(lambda: seen.add(replica.ask()) or len(seen) == 3)
    assert seen == {"0", "1", "2"}


def test_workers_find_the_project_and_no_counts_of_those_before_them(start: Start, tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/counter_7.db").write_bytes(b"old")
    replica = start(workers=1)
    until(replica.ready.exists)
    assert (replica.project / "src/deep.py").read_text() == "x = 1\n"
    assert list(replica.metrics.iterdir()) == []


def test_a_drain_ends_with_0_and_gives_the_lock_away_last(start: Start) -> None:
    replica = start()
    until(replica.ready.exists)
    assert replica.locked()
    replica.process.send_signal(signal.SIGTERM)
    assert replica.process.wait(_DEADLINE) == 0
    assert not replica.ready.exists()
    assert not replica.locked()


def test_a_worker_that_dies_is_started_again(start: Start) -> None:
    """Meanwhile the others answer: nothing of the replica but the one request is lost."""
    replica = start()
    until(replica.ready.exists)
    assert replica.ask("POST") == ""
    assert replica.ask() in ("0", "1")
    seen: set[str] = set()
    until(lambda: seen.add(replica.ask()) or len(seen) == 2)
    assert replica.process.poll() is None


def test_a_worker_that_cannot_start_ends_the_replica_with_its_code(start: Start) -> None:
    """The container's exit code is then the worker's, which Kubernetes shows."""
    replica = start("--unready", "1")
    assert replica.process.wait(_DEADLINE) == 3
    assert not replica.ready.exists()
