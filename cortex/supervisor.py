"""One detached process per API: it owns the listening socket and keeps the plan's processes alive.

It takes three commands over `cortex.control`: ``deploy`` (a plan, and the environment of the shell that asks; start it
beside the live revision, swap when it is ready, drain the old one), ``cancel`` (that, as long as it is not live) and
``stop``. What it knows stands in ``status.json`` (`cortex.status`).

    python -m cortex.supervisor --directory CORTEX_HOME/apis/NAME --run-dir DIR
"""

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from cortex import control, limits, notify
from cortex.control import Deployment
from cortex.errors import NotStarted, TakenOver, UserError
from cortex.listener import listen
from cortex.pid import since_boot
from cortex.plan import Plan
from cortex.revision import Revision
from cortex.rotation import rotate
from cortex.status import Status, not_updated

HOUSEKEEPING_INTERVAL = 30.0
LEAVE_SECONDS = 5.0
"""How long a deployment waits for old workers to say that they take no connections; one that is held up takes none."""
_LOG = logging.getLogger("cortex.supervisor")


class Supervisor:
    """Run at most one live revision, and at most one that is on its way to replace it."""

    def __init__(self, directory: Path, run_dir: Path) -> None:
        self._directory = directory
        self._run_dir = run_dir
        self._listener: socket.socket | None = None
        self._address = ("", 0)
        self._live: Revision | None = None
        self._next: Revision | None = None
        self._live_since = 0.0
        self._failure = ""
        self._deploying: asyncio.Task[None] | None = None
        self._draining: dict[asyncio.Task[None], Revision] = {}
        self._ended = asyncio.Event()
        self._started = since_boot(psutil.Process())

    async def serve(self) -> None:
        """Answer commands until ``stop`` is one of them, a signal says so, or nothing is left to keep alive."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        with notify.heard(self._run_dir / "notify.sock", self._heard):
            server = await control.serve(self._run_dir / "control.sock", self._command)
            housekeeping = asyncio.create_task(self._housekeeping())
            await self._ended.wait()
            housekeeping.cancel()
            await self._stop()
            server.close()
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def end(self) -> None:
        """Have `serve` stop everything and return."""
        self._ended.set()

    async def _command(self, request: dict[str, Any]) -> AsyncIterator[str]:
        if request.get("command") == "stop":
            yield "stopping"
            await self._stop()
            self._status_path.unlink(missing_ok=True)  # it is gone as it was meant to be, and no error
        elif request.get("command") == "cancel":
            yield "cancelling"
            await self._cancel_deploying()
            return  # to be told what to do instead
        elif self._ended.is_set():
            raise UserError("the API is being stopped; try again when it has ended")
        else:
            async for line in self._deploy(Deployment.of(request)):
                yield line
        if self._live is None and self._deploying is None:
            self.end()

    # -- from one revision to the next

    async def _deploy(self, wanted: Deployment) -> AsyncIterator[str]:
        """Swap in a task of its own, so that a CLI that goes away stops nothing; tell what is awaited."""
        if self._deploying is not None:
            if not wanted.force:
                raise UserError("an update is under way (override with --force)")
            await self._cancel_deploying()
        self._deploying = task = asyncio.create_task(self._swap(wanted.plan, wanted.environment))
        task.add_done_callback(self._deployed)
        said = ""
        while not task.done():
            waiting = self._next.waiting_for() if self._next else ""
            if waiting and waiting != said:
                yield waiting
                said = waiting
            await asyncio.wait({task}, timeout=0.1)
        if task.cancelled():
            raise TakenOver("another command took over")
        await task

    def _deployed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # whoever asked for the deployment tells it; nobody may be there any more
        if self._deploying is task:
            self._deploying = None
            if self._live is None:
                self.end()

    async def _cancel_deploying(self) -> None:
        task, self._deploying = self._deploying, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _swap(self, plan: Plan, environment: Mapping[str, str]) -> None:
        old, listener = self._live, self._listen(plan)
        self._next = revision = self._revision(plan, environment, listener)
        self._changed()
        stopping = self._drain(old) if plan.stop_first and old is not None else None
        try:
            if stopping is not None:
                await asyncio.shield(stopping)
            await revision.start()
        except (NotStarted, asyncio.CancelledError) as error:
            self._next = None
            if stopping is not None:
                await stopping
            await self._keep(old, plan, listener, str(error) or "cancelled")
            raise
        self._next = None
        self._go_live(revision, listener)
        if old is not None and not plan.stop_first:
            self._drain(old)
            with contextlib.suppress(TimeoutError):  # whoever asked may take the next answer for the new revision's
                await asyncio.wait_for(old.left(), LEAVE_SECONDS)

    def _go_live(self, revision: Revision, listener: socket.socket) -> None:
        if self._listener is not None and self._listener is not listener:
            self._listener.close()
        self._live, self._listener = revision, listener
        self._address = (revision.plan.host, revision.plan.port)
        self._live_since, self._failure = time.time(), ""
        self._changed()
        _LOG.info("revision %s is live on port %d", revision.plan.revision, revision.plan.port)

    async def _keep(self, old: Revision | None, failed: Plan, listener: socket.socket, reason: str) -> None:
        """Go on with the old revision after a new one failed; without an old one, only its error is left."""
        _LOG.error("revision %s failed: %s", failed.revision, reason)
        if listener is not self._listener:
            listener.close()
        if old is None:
            self._save(self._status(failed, "error", reason))
            return
        self._failure = not_updated(failed.revision, old.plan.revision, reason)
        if failed.stop_first and self._listener is not None:
            await self._restart(self._revision(old.plan, old.environment, self._listener))
        self._changed()

    async def _restart(self, revision: Revision) -> None:
        self._live, self._next = None, revision
        try:
            await revision.start()
        except NotStarted as error:
            self._next = None
            self._save(self._status(revision.plan, "error", str(error)))
        else:
            self._live = revision
        finally:
            self._next = None

    def _revision(self, plan: Plan, environment: Mapping[str, str], listener: socket.socket) -> Revision:
        return Revision(
            plan,
            environment,
            listen_fd=listener.fileno(),
            logs=self._directory / "logs",
            notify_socket=self._run_dir / "notify.sock",
            changed=self._changed,
        )

    def _drain(self, revision: Revision) -> asyncio.Task[None]:
        task = asyncio.create_task(revision.stop())
        self._draining[task] = revision
        task.add_done_callback(self._drained)
        return task

    def _drained(self, task: asyncio.Task[None]) -> None:
        del self._draining[task]
        self._changed()

    async def _stop(self) -> None:
        await self._cancel_deploying()
        if self._listener is not None:
            self._listener.close()
        live, self._live, self._listener = self._live, None, None
        if live is not None:
            self._drain(live)
            self._save(self._status(live.plan, "updating", "it is being stopped"))
        await asyncio.gather(*self._draining)

    def _listen(self, plan: Plan) -> socket.socket:
        """Return the listening socket of the plan's address: the one that is open, or a new one."""
        address = (plan.host, plan.port)
        if self._listener is not None and self._address == address:  # as it was asked for: a host has several names
            return self._listener
        return listen(*address)

    # -- what is known

    @property
    def _status_path(self) -> Path:
        return self._directory / "status.json"

    def _heard(self, message: dict[str, str]) -> None:
        for revision in filter(None, (self._live, self._next, *self._draining.values())):
            for process in revision.processes:
                process.heard(message)

    def _changed(self) -> None:
        revision = self._live or self._next
        if revision is not None:
            status, reason = revision.health()
            if self._next is not None and not status.startswith("error"):
                status, reason = "updating", self._next.waiting_for()
            self._save(self._status(revision.plan, status, reason, revision))

    def _save(self, status: Status) -> None:
        """Write the status; a disk that is full must not keep anything from running, and is tried again later."""
        try:
            status.save(self._status_path)
        except OSError as error:
            _LOG.error("cannot write %s: %s", self._status_path, error.strerror)

    def _status(self, plan: Plan, status: str, reason: str, revision: Revision | None = None) -> Status:
        return Status(
            status=status,
            reason=reason,
            revision=plan.revision,
            in_use=tuple(row.plan.revision for row in (self._live, self._next, *self._draining.values()) if row),
            host=plan.host,
            port=plan.port,
            live_since=self._live_since,
            run_dir=plan.run_dir,
            notices=(*plan.notices, *filter(None, [self._failure])),
            processes=tuple(
                {"name": row.plan.name, "pid": row.pid, "state": row.state, "restarts": row.restarts}
                for row in (revision.processes if revision else ())
            ),
            supervisor=os.getpid(),
            supervisor_started=self._started,
        )

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_INTERVAL)
            if self._live is None and self._deploying is None:
                self.end()  # whoever started this process went away before he said what for
            self._changed()
            with contextlib.suppress(RuntimeError):  # no thread to spare: the next time
                await asyncio.to_thread(rotate, self._directory / "logs", self._directory.parents[1] / "front")


async def _run(supervisor: Supervisor) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.end)
    await supervisor.serve()


def main() -> None:
    """Run the supervisor of one API until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m cortex.supervisor", description="Keep one API's processes alive.")
    parser.add_argument("--directory", type=Path, required=True, help="the API's directory under CORTEX_HOME")
    parser.add_argument("--run-dir", type=Path, required=True, help="where its sockets are")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s:cortex:pid-%(process)d:%(levelname)s:%(message)s")
    limits.watch_without_threads()
    limits.take_descriptors()
    asyncio.run(_run(Supervisor(arguments.directory, arguments.run_dir)))


if __name__ == "__main__":
    main()
