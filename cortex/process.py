"""One process of a plan, kept alive.

A `Process` starts what its plan says, learns when it is ready, starts it again with a growing delay when it dies, and
stops it together with everything it started. It is driven by the supervisor's event loop.
"""

import asyncio
import contextlib
import ctypes
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cortex.errors import NotStarted
from cortex.listener import accepts
from cortex.plan import ProcessPlan

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
STEADY = 10.0
"""Seconds for which a process must have been ready before a crash of it counts as the first one again."""
CRASH_LOOP = 5
"""Crashes in a row after which an API's status is ``error``."""
PROBE_INTERVAL = 0.05
LAST_WORDS = 0.02
"""Seconds in which what a process said just before its end is still heard."""
_INFORMATION = re.compile(r":INFO:| I |^I[0-9]{4} |^Extension modules: ")
"""What explains no end: as the worker, the model server, TensorFlow and Python's fault handler write it."""
_SIGNALS = {each.value: each.name for each in signal.Signals}  # of the real-time ones most have no name
_LIBC = ctypes.CDLL(None)  # loaded before any fork


class Process:
    """Keep one planned process alive, in ``environment`` and what its plan adds. It inherits ``listen_fd``, if given.

    ``changed`` is called after every change of `state`, `status` or `crashes`, and must not raise.

    `state` is one of ``starting``, ``ready``, ``waiting to restart`` and ``stopped``. `reason` says why it last died.
    `has_left` is set once it was told to stop and takes no more connections.
    """

    def __init__(
        self,
        plan: ProcessPlan,
        environment: Mapping[str, str],
        *,
        log: Path,
        listen_fd: int | None,
        notify_socket: Path,
        changed: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.state = "stopped"
        self.status = ""
        self.reason = ""
        self.crashes = 0
        self.restarts = 0
        self.was_ready = asyncio.Event()
        self.has_left = asyncio.Event()
        self._log = log
        self._listen_fd = listen_fd
        self._environment = environment
        self._notify_socket = notify_socket
        self._changed = changed
        self._child: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._early: list[dict[str, str]] | None = None
        self._ready_since = math.inf

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child and self._child.returncode is None else None

    def start(self) -> None:
        """Start the process and keep it alive until `stop`."""
        self._keeper = asyncio.create_task(self._keep())

    async def ready(self) -> None:
        """Wait until the process is ready for the first time; NotStarted when it dies before that."""
        assert self._keeper is not None
        waiter = asyncio.create_task(self.was_ready.wait())
        await asyncio.wait({waiter, self._keeper}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if not self.was_ready.is_set():
            raise NotStarted(f"{self.plan.name}: {self.reason}")

    async def stop(self, grace: float) -> None:
        """Ask the process to end, wait ``grace`` seconds, then kill it and all that it started.

        One that never was ready has nothing to end, and is killed at once.
        """
        self._set(state="stopped")
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), grace if self.was_ready.is_set() else 0.0)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._kill_group()
        self.has_left.set()

    def heard(self, message: dict[str, str]) -> None:
        """Take one sd_notify message, if it is from this process; its last words may come after its end."""
        if self._early is not None:
            self._early.append(message)
            return
        if self._child is None or str(self._child.pid) != message.get("MAINPID"):
            return
        if "STATUS" in message:
            self._set(status=message["STATUS"])
        if message.get("READY") == "1":
            self._is_ready()
        if message.get("STOPPING") == "1":
            self.has_left.set()

    async def _keep(self) -> None:
        while True:
            self._ready_since = math.inf
            await self._run_once()
            if self.state == "stopped" or not self.was_ready.is_set():
                return  # stopped on purpose, or never came up: whoever waits in `ready` decides
            self.crashes = 1 if time.monotonic() - self._ready_since > STEADY else self.crashes + 1
            self.restarts += 1
            self._set(state="waiting to restart")
            await asyncio.sleep(min(LONGEST_DELAY, FIRST_DELAY * 2 ** (self.crashes - 1)))

    async def _run_once(self) -> None:
        log_start = _size(self._log)
        oom_kills = _oom_kills()
        self._set(state="starting", status="")
        probe = None
        try:
            child = await self._start_child()
            if self.plan.ready != "notify":
                probe = asyncio.create_task(self._probe())
            code = await child.wait()
            await asyncio.sleep(LAST_WORDS)
            self.reason = self._why(code, log_start, oom_kills)
        except OSError as error:
            self.reason = f"cannot start: {error.filename or self.plan.argv[0]}: {error.strerror or error}"
        finally:
            if probe:
                probe.cancel()
        await self._kill_group()

    async def _start_child(self) -> asyncio.subprocess.Process:
        """Start the process; what it says before its pid is known here is not lost."""
        self._early = early = list[dict[str, str]]()
        try:
            self._child = child = await self._spawn()
        finally:
            self._early = None
        self._changed()  # its pid is known
        for message in early:
            self.heard(message)
        return child

    async def _spawn(self) -> asyncio.subprocess.Process:
        if self.plan.ready != "notify":
            Path(self.plan.ready).unlink(missing_ok=True)  # a dead predecessor's socket would look ready
        env = {**self._environment, **self.plan.env, "NOTIFY_SOCKET": str(self._notify_socket)}
        fds: tuple[int, ...] = ()
        if self._listen_fd is not None:
            env["CORTEX_LISTEN_FD"] = str(self._listen_fd)
            fds = (self._listen_fd,)
        self._log.parent.mkdir(exist_ok=True)  # somebody may have removed it, to make room
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.plan.argv,
                cwd=self.plan.cwd,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=fds,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    async def _probe(self) -> None:
        while not accepts(self.plan.ready):
            await asyncio.sleep(PROBE_INTERVAL)
        self._is_ready()

    def _is_ready(self) -> None:
        if self.state == "starting" and self.pid is not None:
            self._ready_since = time.monotonic()
            self.was_ready.set()
            self._set(state="ready", status="")

    def _set(self, **fields: str) -> None:
        for name, value in fields.items():
            setattr(self, name, value)
        self._changed()

    def _why(self, code: int, log_start: int, oom_kills: int) -> str:
        if self.status.startswith("error: "):
            return self.status.removeprefix("error: ")
        if code == -signal.SIGKILL and _oom_kills() > oom_kills:
            return "out of memory"
        how = f"killed by {_SIGNALS.get(-code, f'signal {-code}')}" if code < 0 else f"exit code {code}"
        last = _last_line(self._log, log_start)
        return f"{last} ({how})" if last else how

    async def _kill_group(self) -> None:
        """Kill the process with all that it started: once, since its number may be somebody else's afterwards."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()


def _end_with_parent() -> None:
    """Have the kernel end this process when the supervisor dies, so that nothing outlives it (Linux only)."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _oom_kills() -> int:
    """Return how many processes this machine's kernel has killed for want of memory."""
    try:
        rows = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except OSError:
        return 0
    return int(rows.get("oom_kill", 0))


def _last_line(log: Path, start: int) -> str:
    """Return the last line that a process wrote into its log from byte ``start``, and that may explain its end."""
    text = b""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:  # somebody may have removed it
        file.seek(max(start, log.stat().st_size - 64 * 1024))
        text = file.read()
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    words = [line for line in lines if not _INFORMATION.search(line)]
    errors = [line for line in words if "error" in line.lower()]
    return (errors or words or [""])[-1]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
