"""Look at the server while it is measured: its metrics, and its processes when they run on this machine."""

import os
import socket
import time
from collections.abc import Iterator, Sequence

import psutil

from cortex.loadtest import server_metrics
from cortex.loadtest.http import HTTP
from cortex.loadtest.results import Server

_LOOK_INTERVAL = 1.0  # seconds


class ServerWatch:
    """A look at metrics pages and at whoever listens at an address. Either may turn out to be nothing.

    Pages of the server behind ``door`` are asked for with its headers and its trust. Its methods are called in this
    order, from one thread.
    """

    def __init__(self, metrics: Sequence[str], address: tuple[str, int] | None, door: HTTP | None = None) -> None:
        self._metrics = metrics
        self._address = address
        self._door = door
        self._before: dict[str, server_metrics.Reading] = {}
        self._processes: list[psutil.Process] = []
        self._cpu: dict[int, float] = {}
        self._began = self._looked = 0.0
        self._memory = 0

    def begin(self) -> None:
        self._before = {url: server_metrics.read(url, self._door) for url in self._metrics}
        self._processes = list(_serving(self._address)) if self._address else []
        self._cpu = {process.pid: _cpu(process) for process in self._processes}
        self._began = time.monotonic()
        self._memory = 0
        self._looked = 0.0
        self.look()  # a short run may end before anybody else does

    def look(self) -> None:
        """Note what is to be seen only meanwhile. Called several times a second."""
        if time.monotonic() - self._looked >= _LOOK_INTERVAL:
            self._looked = time.monotonic()
            self._memory = max(self._memory, sum(_memory(process) for process in self._processes))

    def end(self) -> Server | None:
        """Return what was seen since `begin`."""
        stages = [
            stage
            for url, before in self._before.items()
            for stage in server_metrics.stages(before, server_metrics.read(url, self._door), url)
        ]
        if not self._processes:
            return Server(tuple(stages)) if stages else None
        seconds = time.monotonic() - self._began
        used = sum(max(_cpu(process) - self._cpu[process.pid], 0.0) for process in self._processes)
        return Server(tuple(stages), used / seconds if seconds else 0.0, self._memory, len(self._processes))


def _serving(address: tuple[str, int]) -> Iterator[psutil.Process]:
    """Yield the processes that listen at an address of this machine, and all that they have started."""
    host, port = address
    if not _is_here(host):
        return
    seen: set[int] = set()
    for process in psutil.process_iter():
        if process.pid not in seen and _listens(process, port):
            for each in (process, *_children(process)):
                if each.pid not in seen:
                    seen.add(each.pid)
                    yield each


def _is_here(host: str) -> bool:
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    own = {entry.address.partition("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries}
    return bool(found & own)


def _listens(process: psutil.Process, port: int) -> bool:
    """Tell whether a process listens at a port. The tester itself is no server, even in a test."""
    if process.pid == os.getpid():
        return False
    try:
        links = process.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return False
    return any(link.status == psutil.CONN_LISTEN and link.laddr.port == port for link in links)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
