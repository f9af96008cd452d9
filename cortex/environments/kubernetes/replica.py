"""The API container of a pod: all workers of one replica, on one listening socket.

``python -P -m cortex.environments.kubernetes.replica --workers N [--port P] [--files DIRECTORY] -- WORKER...``
starts WORKER N times, with its number in place of ``{worker}``, restarts one that dies, and drains all on SIGTERM.
What is in ``--files`` is first copied into the working directory (`kubernetes.manifests.keys`). The file ``--ready`` is
there from when every worker was ready to the drain. The file ``--lock`` is locked until the last worker has ended: the
model server's container waits for that before it stops, so that no request loses its model.
Exit codes: 0 after a drain, that of the worker when one could not start.
"""

import argparse
import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from cortex.environments.kubernetes.manifests.keys import lay_out
from cortex.notify import parse

_RESTART_SECONDS = 1.0
_POLL_SECONDS = 0.2
_LARGEST_MESSAGE = 4096


@dataclass(frozen=True)
class Options:
    """The command line."""

    workers: int
    port: int
    ready: Path
    lock: Path
    files: Path | None
    command: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the workers until SIGTERM, and return the exit code."""
    options = _parse(arguments)
    _prepare(options)
    with _locked(options.lock), _listening(options.port) as listener, _notified() as (told, address):
        environment = {**os.environ, "CORTEX_LISTEN_FD": str(listener.fileno()), "NOTIFY_SOCKET": address}
        crew = Crew(options, listener.fileno(), environment)
        signal.signal(signal.SIGTERM, crew.drain)
        signal.signal(signal.SIGINT, crew.drain)
        return crew.run(told)


class Crew:
    """Keep the workers of one replica alive."""

    def __init__(self, options: Options, listen_fd: int, environment: dict[str, str]) -> None:
        self._options = options
        self._listen_fd = listen_fd
        self._environment = environment
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._ready: set[int] = set()
        self._was_ready = False
        self._draining = False
        self._code = 0

    def run(self, told: socket.socket) -> int:
        """Start the workers, and return when all have ended."""
        for index in range(self._options.workers):
            self._start(index)
        while self._workers:
            if select.select([told], [], [], _POLL_SECONDS)[0]:
                self._hear(told.recv(_LARGEST_MESSAGE))
            self._replace_the_dead()
        return self._code

    def drain(self, number: int, frame: FrameType | None) -> None:
        """Have every worker answer what it has and end."""
        self._draining = True
        self._options.ready.unlink(missing_ok=True)
        for worker in self._workers.values():
            worker.send_signal(signal.SIGTERM)

    def _start(self, index: int) -> None:
        command = [word.replace("{worker}", str(index)) for word in self._options.command]
        self._workers[index] = subprocess.Popen(command, env=self._environment, pass_fds=(self._listen_fd,))
        if self._draining:  # the signal came while this one was being started
            self._workers[index].send_signal(signal.SIGTERM)

    def _hear(self, message: bytes) -> None:
        fields = parse(message)
        indexes = {str(worker.pid): index for index, worker in self._workers.items()}
        index = indexes.get(fields.get("MAINPID", ""))
        if index is not None and fields.get("READY") == "1":
            self._ready.add(index)
        if len(self._ready) == self._options.workers and not self._draining:
            self._was_ready = True
            self._options.ready.touch()

    def _replace_the_dead(self) -> None:
        """Start again what died; before all were ready once, end instead, because it would die again."""
        dead = {index: worker.returncode for index, worker in self._workers.items() if worker.poll() is not None}
        for index, code in dead.items():
            del self._workers[index]
            self._ready.discard(index)
            if self._draining:
                continue
            if not self._was_ready:
                self._code = self._code or code or 1
                self.drain(signal.SIGTERM, None)
                continue
            print(f"worker {index} ended with code {code} and is started again", file=sys.stderr, flush=True)
            time.sleep(_RESTART_SECONDS)
            self._start(index)


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m cortex.environments.kubernetes.replica")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--ready", type=Path, default=Path("/run/cortex/ready"))
    parser.add_argument("--lock", type=Path, default=Path("/run/cortex/api.lock"))
    parser.add_argument("--files", type=Path)
    parser.add_argument("command", nargs="+")
    parsed = parser.parse_args(arguments)
    return Options(parsed.workers, parsed.port, parsed.ready, parsed.lock, parsed.files, tuple(parsed.command))


def _prepare(options: Options) -> None:
    """Give the workers what this machine's supervisor would: the project in the working directory, empty metrics."""
    options.ready.unlink(missing_ok=True)  # of a container that was here before
    if options.files:
        lay_out(options.files, Path.cwd())
    if metrics := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        shutil.rmtree(metrics, ignore_errors=True)
        Path(metrics).mkdir(parents=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # a child that we start does not inherit it: files are closed on exec
        yield


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """Bind the port on every address; the workers listen on it, each once it is ready."""
    dual = socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if dual else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if dual:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("", port))
        yield listener


@contextlib.contextmanager
def _notified() -> Iterator[tuple[socket.socket, str]]:
    """Lend the socket on which workers say ``READY=1`` (see `cortex.notify`), and its address."""
    with (
        tempfile.TemporaryDirectory(prefix="cortex-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        address = f"{directory}/notify.sock"
        told.bind(address)
        yield told, address


if __name__ == "__main__":
    sys.exit(main())
