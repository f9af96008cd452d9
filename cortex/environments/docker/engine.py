"""The Docker engine of this machine, by its own commands. Knows nothing of APIs."""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex.errors import UserError

_LAST_WORDS = 5
_ERROR = re.compile(r"(Error|error|emerg\]|Exception)\b")
TAKEN = (
    "port {port} is taken: choose another with `cortex env configure NAME --provider docker --set port=PORT`, or stop "
    "what listens there"
)
_REFUSALS = (
    (
        "permission denied while trying to connect",
        "this user may not use Docker: ask for membership of the group docker (sudo usermod -aG docker $USER, then log "
        "in again), or use rootless Docker",
    ),
    (
        "cannot connect to the docker daemon",
        "Docker is installed but not running: start it (sudo systemctl start docker, or Docker Desktop)",
    ),
    ("error during connect", "Docker does not answer"),
    ("already allocated", TAKEN.format(port="of the front")),
    ("address already in use", TAKEN.format(port="of the front")),
    ("no space left on device", "the disk that Docker uses is full: `docker system df` says what takes room there"),
    ("could not select device driver", "Docker cannot give GPUs to containers: install the NVIDIA Container Toolkit"),
)
"""What Docker says (in lower case), and what that means for a person."""


@dataclass(frozen=True)
class Container:
    """One container of a project, as Docker sees it now."""

    id: str
    service: str
    labels: Mapping[str, str]
    running: bool
    """False while it waits to be started again, too."""
    health: str
    """``healthy``, ``unhealthy``, ``starting``, or empty where nobody asks."""
    restarts: int
    exit_code: int
    out_of_memory: bool
    """Of its last end, also when it was started again since."""
    pid: int | None
    paused: bool
    connected: bool
    """False once it was taken out of its network: it publishes no port any more."""


class Engine:
    """Run docker and its compose for one project, whose file is ``directory/compose.yaml``."""

    def __init__(self, project: str, directory: Path) -> None:
        self.project = project
        self.file = directory / "compose.yaml"

    def check(self) -> None:
        """Raise UserError with what to do when Docker is missing, not running, not permitted, or has no compose."""
        _ = self._compose  # once it is there, each command says itself what is wrong

    def compose(self, *arguments: str) -> str:
        """Run one compose command on the project's file; return what it printed."""
        return _run([*self._compose, "--project-name", self.project, "--file", str(self.file), *arguments])

    def __call__(self, *arguments: str) -> str:
        """Run one docker command; return what it printed."""
        return _run([_docker(), *arguments])

    def good(self, *arguments: str) -> bool:
        """Tell whether a docker command succeeds; nothing is raised when it does not."""
        return subprocess.run([_docker(), *arguments], capture_output=True, stdin=subprocess.DEVNULL).returncode == 0

    def ask(self, container: str, *command: str) -> tuple[bool, str]:
        """Run a command inside a container; return whether it succeeded, and what it printed."""
        argv = [_docker(), "exec", container, *command]
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, text=True)
        return done.returncode == 0, (done.stdout or done.stderr).strip()

    def containers(self) -> tuple[Container, ...]:
        """Return every container of the project, also those that have ended, sorted by service."""
        ids = self._ids()
        while ids:
            try:
                rows = json.loads(self("inspect", *ids))
                return tuple(sorted((_container(row) for row in rows), key=lambda row: row.service))
            except UserError:
                before, ids = ids, self._ids()
                if ids == before:
                    raise  # and no other command has removed one since we asked
        return ()

    def _ids(self) -> list[str]:
        return self("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}").split()

    def logs(self, ids: Sequence[str], *, follow: bool, past: bool) -> Iterator[str]:
        """Yield the lines of some containers as they come; with ``follow`` until all of them have ended.

        ``past``: also those that they have written already.
        """
        argv = [*self._compose, "--project-name", self.project, "--file", str(self.file), "logs", "--no-color"]
        argv += [*(["--follow"] if follow else []), *([] if past else ["--tail=0"])]
        with subprocess.Popen(
            [*argv, *ids], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None  # a pipe was asked for
            try:
                for line in process.stdout:
                    yield line.rstrip("\r\n")
            finally:
                process.terminate()

    def last_words(self, container: str) -> str:
        """Return the last line of a container that tells an error, or else its last line."""
        done = subprocess.run(
            [_docker(), "logs", "--tail", "40", container],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if _ERROR.search(line)]
        return (errors or lines or ["it wrote nothing"])[-1]

    @functools.cached_property
    def _compose(self) -> list[str]:
        self("version", "--format", "{{.Server.Version}}")
        if self.good("compose", "version"):
            return [_docker(), "compose"]
        if found := shutil.which("docker-compose"):
            return [found]
        raise UserError("Docker has no compose: install the docker-compose-plugin (or docker-compose)")


def _docker() -> str:
    found = shutil.which("docker")
    if found is None:
        raise UserError(
            "docker is not on the PATH: install Docker (https://docs.docker.com/engine/install), or deploy without "
            "containers: --env local"
        )
    return found


def _run(argv: list[str]) -> str:
    env = {**os.environ, "COMPOSE_ANSI": "never", "DOCKER_CLI_HINTS": "false"}
    done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, text=True, env=env)
    if done.returncode == 0:
        return done.stdout.strip()
    said = f"{done.stderr.strip()}\n{done.stdout.strip()}".strip()
    if "cannot connect to the docker daemon" in said.lower() and (place := os.environ.get("DOCKER_HOST")):
        raise UserError(
            f"Docker does not answer at DOCKER_HOST={place}: correct it, or unset it for this machine's own"
        )
    for phrase, meaning in _REFUSALS:
        if phrase in said.lower():
            raise UserError(f"{meaning} ({_short(said)})")
    raise UserError(f"`{' '.join(argv[1:])[:200]}` failed: {_short(said)}")


def _short(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " ".join(lines[-_LAST_WORDS:])


def _container(row: Mapping[str, Any]) -> Container:
    state, labels = row["State"], row["Config"].get("Labels") or {}
    return Container(
        id=row["Id"],
        service=labels.get("com.docker.compose.service", ""),
        labels=labels,
        running=bool(state["Running"]) and not state.get("Restarting"),
        health=(state.get("Health") or {}).get("Status", ""),
        restarts=int(row.get("RestartCount", 0)),
        exit_code=int(state.get("ExitCode", 0)),
        out_of_memory=bool(state.get("OOMKilled")),
        pid=state.get("Pid") or None,
        paused=bool(state.get("Paused")),
        connected=bool(row["NetworkSettings"]["Networks"]),
    )
