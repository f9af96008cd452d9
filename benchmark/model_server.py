"""The model server beside the bare engine: the same model, machine and minutes; runs of each kind take turns.

Requests per second mean something only on a machine that does nothing else: both are bound by the CPU, and others take
unequal shares of it from one process and from five. The processor time of a request hardly depends on that, so it is
measured too, and the table says when the processors were not ours.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.table import Table

from benchmark import processes
from benchmark.compare import Step
from benchmark.processes import Memory
from cortex import notify
from cortex.errors import UserError

_Process = subprocess.Popen[bytes]
_ROOT = Path(__file__).parents[1]
_SECONDS_TO_START = 120.0
_WARM_UP = 1.0
_QUIET = 0.1
"""Processors that others may take before throughput says more about them than about us."""


@dataclass(frozen=True)
class Subject:
    """What is measured: a base path with version directories, served in a precision, under a name for the table."""

    name: str
    base_path: Path
    precision: str


@dataclass(frozen=True)
class Run:
    """One run: requests per second, the processor time of each in seconds, and the processors taken by others."""

    rate: float
    cpu: float
    taken: float


@dataclass(frozen=True)
class Figures:
    """What one subject did in each pair of runs, and what the two hold in memory. The clients count as the server's."""

    name: str
    server: list[Run]
    engine: list[Run]
    ready_seconds: float
    server_memory: Memory
    engine_memory: Memory

    @property
    def ratio(self) -> float:
        """The median over the pairs of runs: what slows the machine down for a while slows down both of a pair."""
        return median(ours.rate / bare.rate for ours, bare in zip(self.server, self.engine, strict=True))

    @property
    def cpu_ratio(self) -> float:
        """What the ratio would be if nothing but processor time counted, that of the clients too."""
        return median(bare.cpu / ours.cpu for ours, bare in zip(self.server, self.engine, strict=True))

    @property
    def taken(self) -> float:
        """The most processors that others took in any run."""
        return max(run.taken for run in self.server + self.engine)


@dataclass(frozen=True)
class Result:
    clients: int
    figures: list[Figures]

    def table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column(f"{self.clients} clients")
        for each in self.figures:
            table.add_column(each.name, justify="right")
        for title, show in _ROWS:
            table.add_row(title, *(show(each) for each in self.figures))
        return table

    def as_dict(self) -> dict[str, Any]:
        return {
            "clients": self.clients,
            "figures": [asdict(each) | {"ratio": each.ratio, "cpu_ratio": each.cpu_ratio} for each in self.figures],
        }


_ROWS: list[tuple[str, Callable[[Figures], str]]] = [
    ("throughput, server / engine", lambda each: f"{each.ratio:.1%}"),
    ("the same by processor time", lambda each: f"{each.cpu_ratio:.1%}"),
    ("memory, server - engine", lambda each: f"{each.server_memory.rss - each.engine_memory.rss:+.0f} MB RSS"),
    ("server", lambda each: f"{median(run.rate for run in each.server):.1f} req/s"),
    ("engine", lambda each: f"{median(run.rate for run in each.engine):.1f} req/s"),
    ("server and clients, a request", lambda each: f"{median(run.cpu for run in each.server) * 1e3:.1f} ms CPU"),
    ("engine, a request", lambda each: f"{median(run.cpu for run in each.engine) * 1e3:.1f} ms CPU"),
    ("server, from start to ready", lambda each: f"{each.ready_seconds:.2f} s"),
    ("server holds", lambda each: f"{each.server_memory.rss:.0f} MB RSS"),
    ("engine holds", lambda each: f"{each.engine_memory.rss:.0f} MB RSS"),
    ("processors taken by others, at most", lambda each: f"{each.taken:.2f}{'  (not valid)' * (each.taken > _QUIET)}"),
]


def subjects(base_path: Path, precisions: Sequence[str], int8: Path | None) -> list[Subject]:
    """Return what to measure. The ResNet-50 artifact is exported, with random weights, where there is none."""
    if not base_path.exists():
        command = [sys.executable, "-m", "export", "savedmodel", "--weights", "random", "--output", str(base_path)]
        subprocess.run(command, cwd=_ROOT, check=True, stdout=sys.stderr)
    found = [Subject(each, base_path, each) for each in precisions]
    return [*found, Subject("int8", int8, "fp32")] if int8 else found


def model_server(measured: Sequence[Subject], clients: int, seconds: float, repeats: int, step: Step) -> Result:
    """Measure each subject with this many clients, and as many threads in the engine's process."""
    return Result(clients, [_measure(each, clients, seconds, repeats, step) for each in measured])


def _measure(subject: Subject, clients: int, seconds: float, repeats: int, step: Step) -> Figures:
    step(f"{subject.name}: starting the engine and the server")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cortex-benchmark-")))
        engine = stack.enter_context(
            _loader("benchmark.bare_engine", str(_newest(subject.base_path)), subject.precision, str(clients))
        )
        with _server(subject, folder / "first"):
            pass  # reads what the second one then finds on a warm disk
        server, ready_seconds = stack.enter_context(_server(subject, folder / "second"))
        target = f"unix:{folder / 'second' / 'grpc.sock'}"
        askers = [stack.enter_context(_loader("benchmark.grpc_client", target, "m")) for _ in range(clients)]
        kinds = ([engine], []), (askers, [server])
        _run(*kinds[0], _WARM_UP)
        _run(*kinds[1], _WARM_UP)
        bare: list[Run] = []
        ours: list[Run] = []
        for number in range(repeats):
            step(f"{subject.name}: run {number + 1} of {repeats}")
            pair = [(bare, kinds[0]), (ours, kinds[1])]
            for runs, kind in pair if number % 2 else reversed(pair):
                runs.append(_run(*kind, seconds))
        return Figures(
            name=subject.name,
            server=ours,
            engine=bare,
            ready_seconds=ready_seconds,
            server_memory=processes.memory(processes.family(server.pid)),
            engine_memory=processes.memory(processes.family(engine.pid)),
        )


def _newest(base_path: Path) -> Path:
    versions = [each for each in base_path.iterdir() if each.name.isdigit()]
    if not versions:
        raise UserError(f"{base_path} has no version directory")
    return max(versions, key=lambda each: int(each.name))


@contextmanager
def _loader(module: str, *arguments: str) -> Iterator[_Process]:
    """Run a process that makes load when it is told for how long, once it is ready."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, bufsize=0
    )
    try:
        if _line(process) != "ready":
            raise UserError(f"{module} did not start: its error stands above")
        yield process
    finally:
        processes.end_child(process)


def _line(process: _Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def _run(loaders: Sequence[_Process], servers: Sequence[_Process], seconds: float) -> Run:
    """Let all of these make load at the same time; return what they finished together, and at what cost."""
    ours = [*loaders, *servers]
    started, cpu, busy = time.monotonic(), _cpu(ours), _busy()
    for each in loaders:
        assert each.stdin is not None
        each.stdin.write(f"{seconds}\n".encode())
    done = sum(int(_line(each)) for each in loaders)
    elapsed, spent = time.monotonic() - started, _cpu(ours) - cpu
    return Run(done / elapsed, spent / done, max(0.0, (_busy() - busy - spent) / elapsed))


def _cpu(ours: Sequence[_Process]) -> float:
    """Return the processor seconds that these have used."""
    times = [psutil.Process(each.pid).cpu_times() for each in ours]
    return sum(each.user + each.system for each in times)


def _busy() -> float:
    """Return the processor seconds that the machine has been busy, or that its host has kept from it."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


@contextmanager
def _server(subject: Subject, folder: Path) -> Iterator[tuple[_Process, float]]:
    """Run a model server; yield it with the seconds from its start until it said READY=1."""
    folder.mkdir()
    command = [sys.executable, "-m", "cortex.model_server", "--port=0", f"--grpc_socket_path={folder / 'grpc.sock'}"]
    command += ["--engine=openvino", f"--precision={subject.precision}"]
    command += ["--model_name=m", f"--model_base_path={subject.base_path.resolve()}"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears, (folder / "log").open("w") as log:
        ears.bind(str(folder / "notify"))
        ears.settimeout(_SECONDS_TO_START)
        env = os.environ | {"NOTIFY_SOCKET": str(folder / "notify")}
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=_ROOT, env=env, stdout=log, stderr=log, process_group=0)
        try:
            said: dict[str, str] = {}
            while said.get("READY") != "1":
                said = notify.parse(ears.recv(4096))
                if said.get("STATUS", "").startswith("error"):
                    raise UserError(f"the model server did not start: {said['STATUS']}")
            yield process, time.monotonic() - started
        except TimeoutError:
            raise UserError(f"the model server did not start:\n{(folder / 'log').read_text()[-2000:]}") from None
        finally:
            processes.end_child(process)
