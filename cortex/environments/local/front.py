"""nginx in front of the APIs of this machine: one for each CORTEX_HOME, for as long as an API is behind it.

It runs as nginx does by itself: a master that nobody waits for, which keeps its workers alive and lets them finish when
its configuration changes. Where the master was killed its workers go on answering, and the next command starts anew.

CORTEX_HOME/front/
  nginx.conf              what it runs with
  run                     where its pid and its temporary files are
  tls-*.crt, tls-*.key    copies of its certificate and key, for their owner alone
  front.log, error.log    requests with their timings, and what went wrong
"""

import contextlib
import dataclasses
import http.client
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from cortex.environments import certificate, nginx, temporary
from cortex.environments.address import Address, meaning
from cortex.environments.certificate import Certificate
from cortex.environments.nginx import Route
from cortex.errors import UserError
from cortex.pid import lives

_START_SECONDS = 10.0
_STOP_SECONDS = 90.0
"""Longer than an API drains."""


class LocalFront:
    """Keep one nginx under ``home``, which leads to the routes that it was last told.

    ``front`` says what its owner asks of it: where it listens, TLS, a rate limit; its directory and its logs are set
    here. Nothing runs before `follow`. UserError says what is wrong with nginx, or with what is asked of it.
    """

    def __init__(self, home: Path, front: nginx.Front) -> None:
        self._directory = home.resolve() / "front"
        self._front = dataclasses.replace(
            front,
            directory=str(_run_dir(home, self._directory / "run")),
            access_log=str(self._directory / "front.log"),
            error_log=str(self._directory / "error.log"),
            daemon=True,
        )

    @property
    def running(self) -> bool:
        """Whether its master is there."""
        return self._master() is not None

    def leads_to(self, upstream: str) -> bool:
        """Whether what it was last told has a route to ``HOST:PORT``."""
        with contextlib.suppress(OSError):
            return f" server {upstream} " in self._configuration.read_text()
        return False

    def check(self) -> None:
        """Raise UserError when nginx is not installed, its files cannot be, or an address cannot be listened on.

        Where this front listens already is not tried.
        """
        _binary()
        if "$" in self._front.access_log:
            raise UserError(f"nginx takes no path with a $ for its logs: move {self._directory.parent} (CORTEX_HOME)")
        self._certificate()
        wanted = {self._front.listen, *([self._front.listen_tls] if self._front.certificate else [])}
        for each in sorted({Address.of(listen).resolved for listen in wanted} - self._held()):
            each.check()

    def preview(self, routes: Sequence[Route]) -> dict[str, Any]:
        """Return what `follow` would run, as a map: where it listens, its command, its configuration."""
        return {
            "front": "nginx",
            "listen": self._front.listen,
            "argv": self._command(_found() or "nginx"),
            "files": {str(self._configuration): nginx.configuration(routes, self._told(self._certificate()))},
        }

    def follow(self, routes: Sequence[Route]) -> None:
        """Lead to these routes from now on; without any, stop and leave nothing behind.

        A request under way is answered as it would have been. The front that was stays when nginx refuses the new one.
        Where it leads there already nothing is touched: a reload would end connections that are idle.
        """
        if not routes:
            self.stop()
            return
        self.check()
        binary, pair = _binary(), self._certificate()
        front = self._told(pair)
        if self._matches(routes, front):
            return
        self._make_directories()
        if pair:
            pair.place(self._directory)
        self._replace_configuration(binary, nginx.configuration(routes, front))
        before = self._family()
        if master := self._master():
            master.send_signal(signal.SIGHUP)
        else:
            self._quit()  # workers that a master left that was killed: the port is theirs
            _run(self._command(binary))
        self._await(nginx.digest(routes, front), [process for process in before if process != master])
        certificate.forget_others(self._directory, pair)

    def stop(self) -> None:
        """Let it answer what it has, end it, and remove its files."""
        self._quit()
        for path in (self._directory, Path(self._front.directory)):
            shutil.rmtree(path, ignore_errors=True)

    @property
    def _configuration(self) -> Path:
        return self._directory / "nginx.conf"

    def _certificate(self) -> Certificate | None:
        found = self._front.certificate
        return Certificate.read(found, self._front.certificate_key) if found else None

    def _told(self, pair: Certificate | None) -> nginx.Front:
        """Return the front as nginx is told of it: with the copies of its certificate."""
        if pair is None:
            return self._front
        chain, key = map(str, pair.paths(self._directory))
        return dataclasses.replace(self._front, certificate=chain, certificate_key=key)

    def _matches(self, routes: Sequence[Route], front: nginx.Front) -> bool:
        """Whether it runs, was last told this, and has taken it."""
        with contextlib.suppress(OSError):
            is_told = self._configuration.read_text() == nginx.configuration(routes, front)
            return is_told and self.running and self._answers(nginx.digest(routes, front))
        return False

    def _answers(self, digest: str) -> bool:
        return _ask(Address.of(self._front.listen).reached) == digest

    def _command(self, binary: str) -> list[str]:
        return [binary, "-c", str(self._configuration), "-e", self._front.error_log]

    def _make_directories(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        run = Path(self._front.directory)
        temporary.make(run, mode=0o755)
        (run / nginx.NEWER).mkdir(exist_ok=True)
        (self._directory / "run").write_text(str(run))

    def _replace_configuration(self, binary: str, text: str) -> None:
        unfinished = self._configuration.with_suffix(".new")
        unfinished.write_text(text)
        check = [binary, "-t", "-q", "-c", str(unfinished), "-e", self._front.error_log]
        try:
            self._keep_idle_if_known(check)
            _run(check)
            unfinished.replace(self._configuration)
        finally:
            unfinished.unlink(missing_ok=True)

    def _keep_idle_if_known(self, check: list[str]) -> None:
        idle = Path(self._front.directory) / nginx.NEWER / "idle.conf"
        idle.write_text(nginx.KEEP_IDLE)
        try:
            _run(check)
        except UserError:
            idle.unlink()

    def _family(self) -> list[psutil.Process]:
        """Return the master and its workers: every nginx that has our log open."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.name() == "nginx" and lives(process) and self._has_log_open(process):
                    found.append(process)
        return found

    def _has_log_open(self, process: psutil.Process) -> bool:
        return any(Path(row.path).parent == self._directory for row in process.open_files())

    def _held(self) -> set[Address]:
        """Return the addresses on which it listens, its workers too when their master was killed."""
        found: set[Address] = set()
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                rows = process.net_connections("tcp")
                found |= {Address(row.laddr.ip, row.laddr.port) for row in rows if row.status == psutil.CONN_LISTEN}
        return found

    def _master(self) -> psutil.Process | None:
        family = self._family()
        with contextlib.suppress(OSError, ValueError):
            number = int((Path(self._front.directory) / "nginx.pid").read_text())
            return next((process for process in family if process.pid == number), None)
        return None

    def _quit(self) -> None:
        """End every process of ours as nginx does gracefully, and by force what is left after that."""
        family = self._family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGQUIT)
        deadline = time.monotonic() + _STOP_SECONDS
        while left := [process for process in family if lives(process)]:
            if time.monotonic() > deadline:
                for process in left:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            time.sleep(0.02)

    def _await(self, digest: str, old: list[psutil.Process]) -> None:
        """Wait until it has a configuration, and no worker that has another takes connections any more."""
        deadline = time.monotonic() + _START_SECONDS
        while any(map(_takes_connections, old)) or not self._answers(digest):
            if time.monotonic() > deadline:
                raise UserError(f"nginx did not take its configuration; see {self._front.error_log}")
            time.sleep(0.02)


def _takes_connections(worker: psutil.Process) -> bool:
    """Whether a worker has not begun to leave, which its title says from the moment in which it takes no more."""
    try:
        return lives(worker) and "shutting down" not in " ".join(worker.cmdline())
    except psutil.NoSuchProcess:
        return False


def _found() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _binary() -> str:
    found = _found()
    if found is None:
        raise UserError(
            "nginx is not installed: install it (sudo apt-get install nginx-light), or deploy without a front "
            "(--front none)"
        )
    return found


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, text=True)
    if done.returncode == 0:
        return
    lines = [line for line in done.stderr.splitlines() if "[emerg]" in line] or done.stderr.splitlines()
    said = lines[0].partition("[emerg] ")[2] or lines[0] if lines else "it says nothing"
    raise UserError(f"nginx cannot start: {meaning(said)}")


def _ask(address: Address) -> str:
    client = http.client.HTTPConnection(address.host, address.port, timeout=2)
    try:
        client.request("GET", nginx.CONFIGURATION, headers={"Connection": "close"})
        return client.getresponse().read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        client.close()


def _run_dir(home: Path, known: Path) -> Path:
    """Return where its pid and its temporary files are: outside of ``home``, which nginx's user may not enter.

    Where one runs that is what it has, which the file ``known`` says: TMPDIR may differ from shell to shell.
    """
    with contextlib.suppress(OSError):
        if (there := Path(known.read_text())).is_absolute() and there.is_dir():
            return there
    return temporary.directory("front", home)
