"""``python -m benchmark startup``: how soon a deployment is live, how soon a worker is, and what all hold in memory."""

import json
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import click
import psutil
from rich.console import Console
from rich.table import Table

from benchmark import processes
from benchmark.machine import this_machine
from benchmark.processes import Memory
from benchmark.systems import Deployment
from cortex import notify
from cortex.errors import UserError
from cortex.loadtest import files
from export.progress import Step

_ROOT = Path(__file__).parents[1]
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


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=_ROOT / "cortex_cpu.yaml",
    help="The yaml to deploy; its first API is measured.  [default: cortex_cpu.yaml]",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write everything to this file.")
def startup(config: Path, json_path: Path | None) -> None:
    """Measure how soon a deployment is live, and what it holds in memory."""
    if json_path:
        files.check(json_path)
    with Console(stderr=True).status("") as status:
        found = measured(config, lambda text: status.update(f"{text} ..."))
    machine, command = this_machine(), shlex.join(["python", "-m", "benchmark", *sys.argv[1:]])
    console = Console()
    console.print(found.table())
    console.print(f"\non {machine}, {datetime.now(UTC):%Y-%m-%d}\nby {command}", highlight=False, soft_wrap=True)
    if json_path:
        facts = {"command": command, "when": datetime.now(UTC).isoformat(), "machine": asdict(machine)}
        json_path.write_text(json.dumps(facts | asdict(found), indent=2) + "\n")


def measured(config: Path, step: Step) -> Startup:
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
