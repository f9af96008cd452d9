"""One revision that runs: the processes of one plan, from start to drain."""

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from cortex.errors import NotStarted
from cortex.plan import Plan, ProcessPlan
from cortex.process import CRASH_LOOP, Process

DRAIN_SECONDS = 60.0
"""How long a worker may take to answer what it has before it is killed."""
BACK_SECONDS = 10.0
"""How long a model server may take to end once nobody asks it any more."""


class Revision:
    """Run the processes of one plan in an environment. Those in front share the listening socket ``listen_fd``."""

    def __init__(
        self,
        plan: Plan,
        environment: Mapping[str, str],
        *,
        listen_fd: int,
        logs: Path,
        notify_socket: Path,
        changed: Callable[[], None],
    ) -> None:
        def process(row: ProcessPlan, listen_fd: int | None) -> Process:
            log = logs / f"{row.name}.log"
            return Process(row, environment, log=log, listen_fd=listen_fd, notify_socket=notify_socket, changed=changed)

        self.plan = plan
        self.environment = environment
        self.back = [process(row, None) for row in plan.back]
        self.front = [process(row, listen_fd) for row in plan.front]

    @property
    def processes(self) -> list[Process]:
        return [*self.back, *self.front]

    def waiting_for(self) -> str:
        """Say in a few words what is not ready yet; empty when everything is."""
        waiting = [process for process in self.processes if process.state != "ready"]
        return ", ".join(f"{process.plan.name}: {process.status or process.state}" for process in waiting)

    def health(self) -> tuple[str, str]:
        """Return a status of `cortex.status`, and why it is not ``live``."""
        worst = max(self.processes, key=lambda process: process.crashes)
        if worst.crashes >= CRASH_LOOP and worst.state != "ready":
            status = "error (out of memory)" if worst.reason == "out of memory" else "error"
            return status, f"{worst.plan.name}: {worst.reason}"
        waiting = self.waiting_for()
        if not waiting:
            return "live", ""
        return "updating", f"{waiting} ({worst.reason})" if worst.reason else waiting

    async def start(self) -> None:
        """Start every process and wait until all are ready; NotStarted, with nothing left running, when one fails."""
        try:
            self._make_run_dir()
        except OSError as error:
            raise NotStarted(f"cannot write to {self.plan.run_dir}: {error.strerror}") from error
        for process in self.processes:
            process.start()
        tasks = [asyncio.create_task(process.ready()) for process in self.processes]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.shield(self.stop())  # those that are ready may have been asked already
            raise

    async def left(self) -> None:
        """Wait until none of its workers takes a new connection any more, after `stop` has begun."""
        await asyncio.gather(*(process.has_left.wait() for process in self.front))

    async def stop(self) -> None:
        """Let the workers answer what they have, end them, then the model servers, and remove the run directory."""
        await asyncio.gather(*(process.stop(DRAIN_SECONDS) for process in self.front))
        await asyncio.gather(*(process.stop(BACK_SECONDS) for process in self.back))
        shutil.rmtree(self.plan.run_dir, ignore_errors=True)

    def _make_run_dir(self) -> None:
        run_dir = Path(self.plan.run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        for name, text in self.plan.files.items():
            path = run_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
