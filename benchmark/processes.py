"""What running processes hold, and their end. Everything comes from /proc."""

import socket
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil
from psutil import Process

from cortex.pid import lives

_SECONDS_TO_END = 15


@dataclass(frozen=True)
class Memory:
    """Memory of several processes, in megabytes (10^6 bytes)."""

    rss: float
    """The sum of their resident sets: what they share is counted in each of them."""
    pss: float
    """The sum of their proportional sets: what they share is counted once in all."""


def memory(processes: Iterable[Process]) -> Memory:
    """Sum up the memory of processes. One that ends meanwhile counts nothing."""
    rss = pss = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            info = process.memory_full_info()
            rss += info.rss
            pss += info.pss
    return Memory(rss / 1e6, pss / 1e6)


def family(pid: int) -> list[Process]:
    """Return a process and everything it has started, as far as it is still running."""
    with suppress(psutil.NoSuchProcess):
        parent = Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def with_environment(name: str, value: str) -> list[Process]:
    """Return the processes that run with this environment variable, however they were started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(name) == value:
                found.append(process)
    return found


def maps(process: Process, library: str) -> bool:
    """Tell whether a process has a file mapped whose path contains ``library``."""
    return any(library in mapping.path for mapping in process.memory_maps())


def end(processes: Iterable[Process]) -> None:
    """Ask processes to end, and kill those that have not ended some seconds later."""
    processes = list(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in _left(processes):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _left(processes)


def _left(processes: list[Process]) -> list[Process]:
    """Return those that have not ended when they have had the time to."""
    deadline = time.monotonic() + _SECONDS_TO_END
    while (left := [process for process in processes if lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def end_child(child: subprocess.Popen[bytes]) -> None:
    """End a child of ours with everything it has started, and reap it."""
    end(family(child.pid))
    child.wait()


def free_port() -> int:
    """Return a port of loopback that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
