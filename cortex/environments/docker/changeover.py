"""From one run of an API to the next, without a lost request.

The new run starts beside the old one and its workers answer before anything else changes. Then the links of the front
are turned to it, in one step each (nginx notices nothing, and reloads only when the number of workers or a limit
changed), and the old run is stopped, whose workers answer what they have first.
"""

import contextlib
import dataclasses
import time
from pathlib import Path

from cortex.environments.base import Progress
from cortex.environments.docker import compose, images
from cortex.environments.docker.compose_file import ComposeFile, Deployment
from cortex.environments.docker.condition import end, is_worker, last_words, process
from cortex.environments.docker.engine import Engine
from cortex.environments.docker.front import DockerFront
from cortex.environments.docker.images import Shelf
from cortex.environments.nginx import Route
from cortex.environments.state import Home
from cortex.errors import Error, NotStarted
from cortex.spec import APISpec
from cortex.status import not_updated

_POLL_SECONDS = 0.3
_READY = ("python", "/opt/cortex/probe.py", "/readyz")
_TAKE_OVER_SECONDS = 30.0
"""How long a command that is to take over waits for another one that is in the middle of its work."""


class Changeover:
    """Bring runs live, lead the front to them, and take them down. Whoever calls holds the environment's lock."""

    def __init__(self, home: Home, file: ComposeFile, engine: Engine, shelf: Shelf, front: DockerFront) -> None:
        self._home = home
        self._compose_file = file
        self._engine = engine
        self._shelf = shelf
        self._front = front

    def take_over(self, name: str) -> None:
        """Have the command that holds an API give up an update whose end it waits for."""
        sign, deadline = self._sign(name), time.monotonic() + _TAKE_OVER_SECONDS
        while self._home.busy(name) and time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # it has not begun, or is done with a first deployment
                sign.touch()
            time.sleep(0.1)
        sign.unlink(missing_ok=True)

    def _sign(self, name: str) -> Path:
        return self._home.api(name).path / "taken-over"

    def swap(self, run: compose.Run, before: Deployment | None, progress: Progress) -> None:
        """Bring a run live in place of the one before, or raise what kept it from it, with that one as it was."""
        project = self._home.api(run.spec.name).revision(run.revision) / "project"
        images.provide(run.spec, project, self._shelf, self._engine, run.images, progress)
        self._lay_out(run)
        self._compose_file.add(run)
        stopped = before if before and run.plan.stop_first else None
        try:
            if stopped:
                self._engine.compose("stop", *self._compose_file.services(stopped.run))
            self._start(run, progress)
        except BaseException as error:
            self.take_down(run.name)
            if stopped:
                self._engine.compose("start", *reversed(self._compose_file.services(stopped.run)))
            if before:
                why = str(error) or "it was interrupted"
                failure = not_updated(run.revision, before.revision, why)
                self._compose_file.remember(dataclasses.replace(before, failure=failure))
            raise
        self._go_live(run, before)

    def _start(self, run: compose.Run, progress: Progress) -> None:
        self._engine.compose("up", "--detach", "--no-deps", *reversed(self._compose_file.services(run.name)))
        said, sign = "", self._sign(run.spec.name)
        sign.unlink(missing_ok=True)  # of a command that was killed
        while waiting := self._waiting_for(run):
            if sign.exists():
                raise NotStarted("another command took over")
            if waiting != said:
                progress(waiting)
                said = waiting
            time.sleep(_POLL_SECONDS)

    def _waiting_for(self, run: compose.Run) -> str:
        """Say which container of a run is not ready yet; NotStarted when one has ended."""
        containers = [row for row in self._engine.containers() if row.labels.get("cortex.run") == run.name]
        for row in containers:
            if row.restarts or not row.running:
                raise NotStarted(f"{process(row)}: {end(row, self._engine)}")
        for row in filter(is_worker, containers):
            ready, answer = self._engine.ask(row.id, *_READY)
            if not ready:
                words = last_words(row, self._engine) or answer
                return f"{process(row)}: {words}"
        return ""

    def _go_live(self, run: compose.Run, before: Deployment | None) -> None:
        now = time.time()
        created = before.created if before else now
        self._turn(run.spec, run.name)
        self._compose_file.remember(Deployment(run.spec.name, run.revision, run.name, created, now, run.notices))
        try:
            self.lead()
        except BaseException:
            if before is None:  # nobody has reached it yet
                self._compose_file.forget(run.spec.name)
                with contextlib.suppress(Error):
                    self.lead()  # nginx may have been told of it already
                self.take_down(run.name, run.spec.name)
            raise
        if before:
            self.take_down(before.run)

    def _turn(self, spec: APISpec, run: str) -> None:
        """Turn the links of the front to a run of an API, each in one step."""
        steps = [f"mkdir -p {compose.FRONT_SOCKETS}/{spec.name}", f"cd {compose.FRONT_SOCKETS}"]
        for link, target in compose.links(spec, run).items():
            steps.append(f"ln -sfn {target} {link}.new && mv -fT {link}.new {link}")
        done, said = self._engine.ask(self._worker(run), "sh", "-ec", "\n".join(steps))
        if not done:
            raise NotStarted(f"the front's sockets cannot be set up: {said}")

    def check_front(self) -> None:
        """See `DockerFront.check`: what the front cannot have is told while it still has what it had."""
        self._front.check(self._compose_file.front_ports())

    def lead(self) -> None:
        """Have the front lead to what is live."""
        self.check_front()
        deployments = self._compose_file.deployments()
        specs = [self._spec(row) for row in deployments.values()]
        routes = [Route.of(spec, compose.upstreams(spec)) for spec in specs]
        if not self._front.matches(routes):
            self._compose_file.add_front(self._front.settings.service(self._home.root / "front"))
            self._front.follow(routes, self._worker(*(row.run for row in deployments.values())))

    def _spec(self, row: Deployment) -> APISpec:
        return self._home.api(row.name).spec(row.revision)

    def _worker(self, *runs: str) -> str:
        """Return a container of some worker that runs."""
        for row in self._engine.containers():
            if row.running and is_worker(row) and row.labels.get("cortex.run") in runs:
                return row.id
        raise NotStarted("no worker is running")

    def sweep(self) -> None:
        """Take down the runs of commands that failed or were killed; the links may lead to one of them already."""
        live = self._compose_file.deployments().values()
        left = self._compose_file.runs() - {row.run for row in live}
        for run in left:
            for row in live:
                with contextlib.suppress(NotStarted):  # it is stopped
                    self._turn(self._spec(row), row.run)
            self.take_down(run)
        if left and live:
            with contextlib.suppress(Error):
                self.lead()  # nginx may have been told of them

    def take_down(self, run: str, name: str = "") -> None:
        """Stop the containers of a run by their own drain, and remove what it left; also ``name``'s links."""
        services = self._compose_file.services(run)
        if services:
            self._engine.compose("stop", *services)
            self._engine.compose("rm", "--force", *services)
        for volume in self._compose_file.volumes(run):
            self._engine.good("volume", "rm", "--force", f"{self._engine.project}_{volume}")
        self._compose_file.remove(run)
        with contextlib.suppress(NotStarted):  # before the first API is live there is no front
            self._front.sweep(f"{run}-*.sock", *([name] if name else []))

    def _lay_out(self, run: compose.Run) -> None:
        """Write the files of a run, and let the containers' user read what they mount."""
        directory = Path(run.directory)
        (directory / "containers").mkdir(exist_ok=True)
        for name, text in run.files.items():
            (directory / "containers" / name).write_text(text)
        self._home.root.chmod(0o700)  # what is below is open to any user, so that containers can read it
        for path in (directory, *(Path(model.path) for model in run.spec.predictor.models)):
            _open(path)


def _open(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
