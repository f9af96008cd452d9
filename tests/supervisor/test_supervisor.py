"""The supervisor as a real process, with workers of a few lines."""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from cortex import control, process, rotation, supervisor
from cortex.errors import CortexError, NotStarted, UserError
from cortex.listener import accepts
from cortex.plan import Plan, ProcessPlan
from cortex.status import Status
from tests.ports import free_port
from tests.waiting import DEADLINE, until

WORKER = Path(__file__).with_name("worker.py")


class Api:
    """One supervisor under test, driven as the CLI drives it."""

    def __init__(self, root: Path) -> None:
        self.root, self.run_dir = root, root / "run"
        self.port = free_port()
        (root / "logs").mkdir()
        argv = [sys.executable, "-m", "cortex.supervisor", "--directory", str(root), "--run-dir", str(self.run_dir)]
        self.supervisor = subprocess.Popen(
            ["bash", "-c", 'ulimit -Sn 256; exec "$@"', "_", *argv], start_new_session=True
        )
        until(lambda: accepts(self.run_dir / "control.sock"))

    def plan(self, word: str, mode: str = "serve", workers: int = 1) -> Plan:
        front = tuple(
            ProcessPlan(f"api-{index}", (sys.executable, str(WORKER), word, mode), str(self.root), "notify")
            for index in range(workers)
        )
        return Plan(word, "127.0.0.1", self.port, str(self.run_dir / word), front, files={"a/b": "text"})

    def deploy(self, plan: Plan, force: bool = False) -> list[str]:
        request = control.Deployment(plan, os.environ, force).request()
        return list(control.command(self.run_dir / "control.sock", request))

    def ask(self, words: bytes = b"hello") -> tuple[str, int]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(words)
            word, pid = connection.recv(100).decode().split()
            return word, int(pid)

    def status(self) -> Status:
        return Status.load(self.root / "status.json")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    api = Api(tmp_path)
    children = []
    try:
        yield api
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(api.supervisor.pid).children(recursive=True)
        api.supervisor.terminate()
        api.supervisor.wait(DEADLINE)
        assert not [child for child in children if child.is_running()], "the supervisor left processes behind"
        assert not api.run_dir.exists(), "the supervisor left sockets behind"


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_plan_survives_json() -> None:
    """What the CLI sends is what the supervisor carries out."""
    worker, server = (ProcessPlan(name, ("python", "-P"), "/", "notify", {"A": "1"}) for name in ("api-0", "server-0"))
    plan = Plan("r1", "127.0.0.1", 8888, "/run", (worker,), (server,), {"a/b": "text"}, True, ("a notice",))
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("most", [4096, 200])
def test_processes_may_hold_many_connections(most: int) -> None:
    """They get as many descriptors as the system lets, however few the command's shell gives by itself."""
    script = (
        "from resource import *; from cortex import limits; limits.take_descriptors(); print(getrlimit(RLIMIT_NOFILE))"
    )
    line = f"ulimit -Sn 100 && ulimit -Hn {most} && exec {sys.executable} -c '{script}'"
    done = subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True)
    assert done.stdout == f"{(most, most)}\n"


def test_deploy_goes_live_and_stop_leaves_nothing(api: Api) -> None:
    """A revision is live once all its workers are; `stop` ends every process and removes every file of the run.

    It removes the status, too, which would read as that of a supervisor that was killed.
    """
    api.deploy(api.plan("one", workers=2))
    status = api.status()
    assert (status.status, status.revision, status.reason) == ("live", "one", "")
    assert [row["state"] for row in status.processes] == ["ready", "ready"]
    assert all(psutil.Process(row["pid"]).rlimit(psutil.RLIMIT_NOFILE)[0] > 256 for row in status.processes)
    assert (api.run_dir / "one/a/b").read_text() == "text"
    assert api.ask()[0] == "one"

    list(control.command(api.run_dir / "control.sock", {"command": "stop"}))
    api.supervisor.wait(DEADLINE)
    assert not [row for row in status.processes if psutil.pid_exists(row["pid"])]
    assert not (api.root / "status.json").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGRTMIN + 1], ids=["SIGKILL", "one without a name"])
def test_a_killed_worker_is_replaced(api: Api, number: int) -> None:
    """A worker that is killed heals by itself, and connections wait in the socket meanwhile."""
    api.deploy(api.plan("one"))
    _, first = api.ask()
    os.kill(first, number)
    until(lambda: ended(first))  # until then it may still accept, and take the connection with it
    word, second = api.ask()
    assert word == "one"
    assert second != first
    until(lambda: api.status().status == "live")
    assert api.status().processes[0]["restarts"] == 1


def test_a_process_is_known_from_its_start(api: Api) -> None:
    """Whoever waits for one that is long in starting can look at it: its pid is told before its first word."""
    with ThreadPoolExecutor(1) as pool:
        deployment = pool.submit(api.deploy, api.plan("one", "late"))
        until((api.root / "status.json").exists)
        pid = until(lambda: api.status().processes[0]["pid"])
        assert (api.status().processes[0]["state"], psutil.Process(pid).ppid()) == ("starting", api.supervisor.pid)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(UserError, match="killed by SIGKILL"):
            deployment.result(DEADLINE)


def test_logs_that_were_removed(api: Api) -> None:
    """They are no reason why a process ended, and keep none from being started again."""
    api.deploy(api.plan("one"))
    for remove in ((api.root / "logs/api-0.log").unlink, lambda: shutil.rmtree(api.root / "logs")):
        remove()
        _, pid = api.ask()
        os.kill(pid, signal.SIGKILL)
        until(lambda: "killed by SIGKILL" in api.status().reason)
        until(lambda: api.status().status == "live")
    assert (api.root / "logs/api-0.log").exists()


def test_what_a_process_lacks_is_named(api: Api) -> None:
    """What is missing may be its working directory rather than the program."""
    plan = api.plan("one")
    with pytest.raises(UserError, match=r"api-0: cannot start: /no/such/place: No such file or directory"):
        api.deploy(replace(plan, front=tuple(replace(row, cwd="/no/such/place") for row in plan.front)))


def test_what_it_keeps_alive_takes_no_thread(api: Api) -> None:
    """A process is started again where the system has none to spare, and never without being looked after."""
    api.deploy(api.plan("one", workers=3))
    assert psutil.Process(api.supervisor.pid).num_threads() == 1


def test_logs_are_rotated_once_there_is_a_thread_to_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the front too. That there is none for a while does not let them grow without end."""
    start, asked = threading.Thread.start, itertools.count()

    def start_later(thread: threading.Thread) -> None:
        if next(asked) < 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    api = tmp_path / "apis/one"
    logs = [api / "logs/api-0.log", tmp_path / "front/front.log"]
    for log in logs:
        log.parent.mkdir(parents=True)
        log.touch()
        os.truncate(log, rotation.LIMIT + 1)  # sparse
    monkeypatch.setattr(threading.Thread, "start", start_later)
    monkeypatch.setattr(supervisor, "HOUSEKEEPING_INTERVAL", 0.01)

    async def rotated() -> None:
        keeping = asyncio.create_task(supervisor.Supervisor(api, tmp_path / "run")._housekeeping())
        while any(log.stat().st_size for log in logs) and not keeping.done():
            await asyncio.sleep(0.01)
        keeping.cancel()

    asyncio.run(asyncio.wait_for(rotated(), 20))
    assert not any(log.stat().st_size for log in logs)


def test_a_redeploy_swaps_without_closing_the_socket(api: Api) -> None:
    """The new revision takes over the very same listening socket, and the old one ends."""
    api.deploy(api.plan("one"))
    _, old = api.ask()
    api.deploy(api.plan("two"))
    until(lambda: not psutil.pid_exists(old))
    assert api.ask()[0] == "two"
    until(lambda: not (api.run_dir / "one").exists())


def test_a_redeploy_is_done_when_the_old_revision_takes_no_more(api: Api) -> None:
    """Whoever has deployed asks the new revision, however long the old one is about leaving."""
    api.deploy(api.plan("one", "hesitate"))
    _, old = api.ask()
    api.deploy(api.plan("two"))
    assert psutil.pid_exists(old), "it has ended, so that this shows nothing"
    assert {api.ask()[0] for _ in range(20)} == {"two"}


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("fail", "api-0: predictor.py: __init__: no such luck"),
        ("mute", "api-0: last words: an error (exit code 7)"),
        ("abort", "api-0: Fatal Python error: Aborted (killed by SIGABRT)"),
    ],
)
def test_a_revision_that_fails_leaves_the_old_one(api: Api, mode: str, reason: str) -> None:
    """The error goes to whoever deploys, and stays as a notice; requests notice nothing."""
    api.deploy(api.plan("one"))
    with pytest.raises(UserError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        api.deploy(api.plan("two", mode))
    status = api.status()
    assert (status.status, status.revision) == ("live", "one")
    assert status.notices == (f"the update to revision two failed, so one goes on: {reason}",)
    assert api.ask()[0] == "one"


def test_what_half_a_revision_was_asked_is_answered(api: Api) -> None:
    """A worker that is ready answers beside the old revision; when another fails, it drains as if it had been live."""
    early, late = (api.plan("one", mode).front[0] for mode in ("hesitate", "late"))
    plan = replace(api.plan("one"), front=(early, replace(late, name="api-1")))
    with ThreadPoolExecutor(1) as pool:
        deployment = pool.submit(api.deploy, plan)
        until((api.root / "status.json").exists)
        until(lambda: [row["state"] for row in api.status().processes] == ["ready", "starting"])
        with socket.create_connection(("127.0.0.1", api.port), timeout=10) as connection:
            (api.root / "fail").touch()
            until(lambda: api.status().processes[0]["state"] == "stopped")
            connection.sendall(b"hello")
            assert connection.recv(100).startswith(b"one ")
        with pytest.raises(UserError, match="no such luck"):
            deployment.result()


def test_stop_first_brings_the_old_one_back(api: Api) -> None:
    """With `max_surge: 0` the old revision ends first, and starts again when the new one fails."""
    api.deploy(api.plan("one"))
    with pytest.raises(UserError, match="no such luck"):
        api.deploy(replace(api.plan("two", "fail"), stop_first=True))
    assert api.status().status == "live"
    assert api.ask()[0] == "one"


def test_stop_first_may_leave_nothing(api: Api) -> None:
    """When the old one does not start again either, the status says why, and that nothing is in use; all ends."""
    api.deploy(api.plan("one", "once"))
    with pytest.raises(UserError, match="no such luck"):
        api.deploy(replace(api.plan("two", "fail"), stop_first=True))
    api.supervisor.wait(DEADLINE)
    status = api.status()
    assert (status.status, status.revision, status.in_use) == ("error", "one", ())
    assert "no such luck" in status.reason


def test_a_first_revision_that_fails_ends_the_supervisor(api: Api) -> None:
    """Nothing runs for an API that never came up; its status file says why."""
    with pytest.raises(UserError, match="no such luck"):
        api.deploy(api.plan("one", "fail"))
    api.supervisor.wait(DEADLINE)
    assert (api.status().status, api.status().processes) == ("error", ())
    assert "no such luck" in api.status().reason


def test_a_port_in_use_is_refused(api: Api) -> None:
    """The port's holder is told apart from us, before any process starts."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", api.port))
        holder.listen()
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1 port {api.port}: Address already in use"):
            api.deploy(api.plan("one"))
    api.supervisor.wait(DEADLINE)


def test_a_process_that_has_ended_is_not_killed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time its revision is stopped, its number may be that of a process of somebody else."""
    kill, killed = os.killpg, list[int]()
    monkeypatch.setattr(os, "killpg", lambda group, number: (killed.append(group), kill(group, number)))
    plan = ProcessPlan("api-0", ("sh", "-c", "exit 7"), str(tmp_path), "notify")
    options: dict[str, Any] = {"log": tmp_path / "logs/api-0.log", "listen_fd": None, "changed": lambda: None}

    async def run() -> None:
        ended = process.Process(plan, os.environ, notify_socket=tmp_path / "notify.sock", **options)
        ended.start()
        with pytest.raises(NotStarted, match="api-0: exit code 7"):
            await ended.ready()
        await ended.stop(1)

    asyncio.run(run())
    assert len(killed) == 1


def test_a_crash_loop_becomes_an_error(api: Api) -> None:
    """Five crashes in a row make the status `error` with the reason; the restarts go on, so it can heal."""
    api.deploy(api.plan("one"))

    for _ in range(5):
        restarts = api.status().processes[0]["restarts"]
        with contextlib.suppress(OSError, ValueError):
            api.ask(b"die")
        until(lambda before=restarts: api.status().processes[0]["restarts"] > before)
    assert api.status().status == "error"
    assert api.status().reason == "api-0: exit code 9"
    until(lambda: api.status().status == "live")


def test_workers_do_not_outlive_their_supervisor(api: Api) -> None:
    """SIGKILL of the supervisor ends the workers too: nobody would restart or stop them."""
    api.deploy(api.plan("one"))
    _, worker = api.ask()
    api.supervisor.kill()
    until(lambda: ended(worker))
    for path in sorted(api.run_dir.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    api.run_dir.rmdir()


def test_nonsense_is_answered(api: Api) -> None:
    """A command that is no command gets an error line, and the supervisor goes on."""
    api.deploy(api.plan("one"))
    with pytest.raises(UserError, match="did not understand"):
        list(control.command(api.run_dir / "control.sock", {"plan": 1}))
    for request in ({"command": "deploy", "plan": "{", "environment": {}, "force": False}, {"command": "deploy"}):
        with pytest.raises(UserError, match="did not understand"):
            list(control.command(api.run_dir / "control.sock", request))
    assert api.ask()[0] == "one"


def test_a_supervisor_that_hangs_is_told_apart(tmp_path: Path) -> None:
    """One that says nothing for a while is an error; one that is busy for longer says that it lives, and is not."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(CortexError, match="does not answer"):
            list(control.command(path, {"command": "stop"}, silence=0.05))

    async def busy(request: dict[str, Any]) -> AsyncIterator[str]:
        await asyncio.sleep(0.6)
        yield "done at last"

    async def ask() -> list[str]:
        async with await control.serve(path, busy, beat=0.02):
            return await asyncio.to_thread(lambda: list(control.command(path, {}, silence=0.3)))

    assert asyncio.run(ask()) == ["done at last"]


def test_a_fault_of_the_supervisor_is_no_fault_of_the_command(tmp_path: Path) -> None:
    """What goes wrong while a command is carried out is told as that, whatever its kind."""

    async def fail(request: dict[str, Any]) -> AsyncIterator[str]:
        yield str({}["no such thing"])

    async def ask() -> None:
        async with await control.serve(tmp_path / "control.sock", fail):
            await asyncio.to_thread(lambda: list(control.command(tmp_path / "control.sock", {})))

    with pytest.raises(UserError, match="the supervisor failed: KeyError"):
        asyncio.run(ask())


def test_a_look_at_whether_it_lives_is_no_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who connects and says nothing is no fault in the log, which is the one that `cortex logs` shows."""

    async def nothing(request: dict[str, Any]) -> AsyncIterator[str]:
        yield "asked"

    def look(path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            probe.shutdown(socket.SHUT_WR)
            return probe.recv(100)

    async def ask() -> bytes:
        async with await control.serve(tmp_path / "control.sock", nothing):
            return await asyncio.to_thread(look, tmp_path / "control.sock")

    assert asyncio.run(ask()) == b""
    assert not caplog.records


def test_a_revision_has_the_environment_of_its_own_deployment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell of a later deployment says holds for its revision; one that fails changes nothing."""
    monkeypatch.setenv("GREETING", "one")
    api.deploy(api.plan("first", "greet"))
    word, old = api.ask()
    assert word == "one"
    monkeypatch.setenv("GREETING", "two")
    api.deploy(api.plan("second", "greet"))
    until(lambda: ended(old))  # until then it may still take a connection
    assert api.ask()[0] == "two"
    monkeypatch.setenv("GREETING", "three")
    with pytest.raises(UserError, match="no such luck"):
        api.deploy(replace(api.plan("bad", "fail"), stop_first=True))
    assert api.ask()[0] == "two"


def test_silence_is_an_error_of_ours(tmp_path: Path) -> None:
    """Nobody at the socket: one line that names it."""
    with pytest.raises(CortexError, match="does not answer"):
        list(control.command(tmp_path / "control.sock", {"command": "stop"}))
