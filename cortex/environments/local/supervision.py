"""The supervisor of an API, from outside: start it, ask it, end it."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil

from cortex import control
from cortex.control import Deployment
from cortex.environments.state import APIDirectory, supervisor
from cortex.errors import CortexError, Error, TakenOver, UserError
from cortex.listener import accepts
from cortex.pid import lives
from cortex.plan import Plan

START_SECONDS = 20.0
STOP_SECONDS = 90.0
"""Longer than a drain (`cortex.revision.DRAIN_SECONDS`)."""
LEFT_SECONDS = 5.0
"""How long what a supervisor left behind may take to end once it was told to."""


def run(directory: APIDirectory, plan: Plan, *, force: bool) -> Iterator[str]:
    """Have the API's supervisor bring a plan live, and yield what it waits for; it is started if there is none.

    The processes get the environment of whoever deploys, not that of whoever once started the supervisor. When that
    fails, and nothing else is left to keep alive, the supervisor has ended too.
    """
    status = directory.status()
    if status is None or supervisor(status) is None or not accepts(directory.control):
        _start(directory)
    try:
        yield from control.command(directory.control, Deployment(plan, os.environ, force).request())
    except TakenOver:
        raise  # the supervisor goes on for whoever took over
    except UserError:
        status = directory.status()
        if status is None or supervisor(status) is None or not status.in_use:
            _await_end(_supervisors(directory), STOP_SECONDS)
        raise


def runs(directory: APIDirectory) -> bool:
    """Tell whether the API has a supervisor, whatever has become of its files."""
    return bool(_supervisors(directory))


def cancel(directory: APIDirectory) -> None:
    """Have the supervisor, if there is one, give up an update that is in progress: whoever waits for it is told so."""
    with contextlib.suppress(Error):
        list(control.command(directory.control, {"command": "cancel"}))


def stop(directory: APIDirectory) -> None:
    """End the supervisor and all that it runs: by its own drain; what that leaves is told to end, and then killed."""
    with contextlib.suppress(Error):
        list(control.command(directory.control, {"command": "stop"}))
        _await_end(_supervisors(directory), STOP_SECONDS)
        _end_family(directory, psutil.Process.terminate)
    _end_family(directory, psutil.Process.kill)


def _end_family(directory: APIDirectory, end: Callable[[psutil.Process], None]) -> None:
    family = list(_family(directory))
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            end(process)
    _await_end(family, LEFT_SECONDS)


def _await_end(family: list[psutil.Process], seconds: float) -> None:
    """Wait until all have ended; whether anybody waits for them is another matter, as in a container without init."""
    _until(lambda: not any(map(lives, family)), seconds)


def _family(directory: APIDirectory) -> Iterator[psutil.Process]:
    """Yield the API's supervisor and all that it runs, also what a supervisor left that is gone.

    That is told by where they notify it: what somebody else does with the files of an API is none of our business.
    """
    notified = str(directory.notifications)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if _supervises(process, directory) or process.environ().get("NOTIFY_SOCKET") == notified:
                yield process


def _supervisors(directory: APIDirectory) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _supervises(process, directory)]


def _supervises(process: psutil.Process, directory: APIDirectory) -> bool:
    with contextlib.suppress(psutil.Error):
        argv = process.cmdline()
        return "cortex.supervisor" in argv and str(directory.path) in argv
    return False


def _start(directory: APIDirectory) -> None:
    _end_family(directory, psutil.Process.kill)  # what a supervisor left that was killed
    directory.clear_run_dir()
    directory.logs.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-P", "-m", "cortex.supervisor"]
    argv += ["--directory", str(directory.path), "--run-dir", str(directory.run_dir)]
    log = directory.logs / "supervisor.log"
    with log.open("ab") as output:
        begun = output.tell()
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=directory.path
        )
    if not _until(lambda: accepts(directory.control) or child.poll() is not None, START_SECONDS):
        child.kill()
    if not accepts(directory.control):
        said = log.read_bytes()[begun:].decode(errors="replace").splitlines()  # a first deployment's log does not stay
        raise CortexError(f"the supervisor did not start: {said[-1] if said else 'it said nothing'}")
    # it is meant to outlive a command; in a script or notebook that goes on it must not end as a zombie
    threading.Thread(target=child.wait, name="supervisor", daemon=True).start()


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
