"""How soon a deployment is live, how soon one of its workers is, and what all of it holds in memory."""

import socket
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.table import Table

from benchmark import processes
from benchmark.processes import Memory
from benchmark.systems import Deployment
from cortex import notify
from cortex.errors import UserError
from export.progress import Step

_SECONDS_TO_START = 60.0
_WORKER_STARTS = 3


@dataclass(frozen=True)
class Startup:
    cold_seconds: float
    """Until the first `cortex deploy` was live: the model is copied into the cache, and files are read from disk."""
    live_seconds: float
    """Until a `cortex deploy` was live whose model is in the cache."""
    worker_seconds: float
    """From starting an API worker to its readiness, with the model server already up; median of several."""
    workers: int
    workers_with_tensorflow: int
    """API workers that have a library of TensorFlow mapped."""
    memory: Memory
    """Of the supervisor, the workers and the model server together."""
    processes: dict[str, Memory]

    def table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for name, value in self._rows():
            table.add_row(name, value)
        return table

    def _rows(self) -> list[tuple[str, str]]:
        rows = [
            ("cortex deploy, first time, until live", f"{self.cold_seconds:.2f} s"),
            ("cortex deploy, warm disk, until live", f"{self.live_seconds:.2f} s"),
            ("API worker, from start to ready", f"{self.worker_seconds:.2f} s"),
            ("API workers with TensorFlow mapped", f"{self.workers_with_tensorflow} of {self.workers}"),
        ]
        for name, each in {"all processes": self.memory, **self.processes}.items():
            rows.append((f"memory, {name}", f"{each.pss:.0f} MB PSS, {each.rss:.0f} MB RSS"))
        return rows

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def startup(config: Path, step: Step) -> Startup:
    """Deploy twice into a new home, and measure the second deployment."""
    deployment = Deployment(config)
    step("deploying for the first time")
    started = time.monotonic()
    with deployment:
        cold = time.monotonic() - started
        deployment.delete()
        step("deploying again")
        live = deployment.deploy()
        workers = deployment.workers()
        if not workers:
            raise UserError("the deployment has no API worker")
        held = {_name(each): processes.memory([each]) for each in deployment.processes()}
        memory = processes.memory(deployment.processes())
        step("starting another API worker")
        return Startup(
            cold_seconds=cold,
            live_seconds=live,
            worker_seconds=median(_start_another(workers[0]) for _ in range(_WORKER_STARTS)),
            workers=len(workers),
            workers_with_tensorflow=sum(processes.maps(each, "libtensorflow") for each in workers),
            memory=memory,
            processes=held,
        )


def _name(process: psutil.Process) -> str:
    """Return what a process is, by the module that it runs, and its pid."""
    words = process.cmdline()
    what = words[words.index("-m") + 1] if "-m" in words[:-1] else process.name()
    return f"{what} ({process.pid})"


def _start_another(worker: psutil.Process) -> float:
    """Start a second worker just as a running one was started, and return the seconds until it says READY=1."""
    with (
        tempfile.TemporaryDirectory(prefix="cortex-benchmark-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears,
        socket.create_server(("127.0.0.1", 0)) as listener,
        tempfile.TemporaryFile() as log,
    ):
        ears.bind(f"{folder}/notify")
        env = worker.environ() | {
            "NOTIFY_SOCKET": ears.getsockname(),
            "CORTEX_LISTEN_FD": str(listener.fileno()),
            "PROMETHEUS_MULTIPROC_DIR": folder,
        }
        command, cwd = worker.cmdline(), worker.cwd()
        started = time.monotonic()
        another = subprocess.Popen(
            command, cwd=cwd, env=env, stdout=log, stderr=log, pass_fds=[listener.fileno()], process_group=0
        )
        try:
            _wait_for_ready(ears, another)
            return time.monotonic() - started
        except TimeoutError:
            log.seek(0)
            raise UserError(f"another API worker did not start: {log.read().decode()[-2000:]}") from None
        finally:
            processes.end_child(another)


def _wait_for_ready(ears: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """Wait for READY=1. Raises TimeoutError when the process ends without it, or takes too long."""
    deadline = time.monotonic() + _SECONDS_TO_START
    ears.settimeout(0.2)
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if notify.parse(ears.recv(4096)).get("READY") == "1":
                return
        except TimeoutError:
            continue
    raise TimeoutError
