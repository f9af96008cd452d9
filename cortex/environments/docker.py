"""Run APIs in containers of this machine, behind one nginx: the plan as a compose file, carried out by Docker.

Every change leaves the file as it is carried out: ``CORTEX_HOME/environments/NAME/compose.yaml``. An update starts the
new run beside the old one, waits until its workers answer, turns the links of the front to it in one step each (nginx
notices nothing, and reloads only when the number of workers or a limit changed), and then stops the old run, whose
workers answer what they have first.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cortex.environments import compose, devices, docker_front, docker_images, docker_project, model_format, nginx
from cortex.environments.base import API, Deployed, ProcessStatus, Progress
from cortex.environments.docker_engine import Container, Engine
from cortex.environments.docker_front import DockerFront, FrontSettings
from cortex.environments.docker_project import Deployment, Project
from cortex.environments.docker_revision import prepare, rendered
from cortex.environments.docker_stats import network_stats
from cortex.environments.fields import FieldError
from cortex.environments.model_cache import ModelCache
from cortex.environments.nginx import Route
from cortex.environments.preparation import Prepared, recall
from cortex.environments.state import Home
from cortex.errors import Error, NotStarted, UserError
from cortex.spec import APISpec, Config

_POLL_SECONDS = 0.3
_READY = ("python", "/opt/cortex/probe.py", "/readyz")
_PREFIX = re.compile(r"\S+ \S+:cortex:pid-\d+:[A-Z]+:")

_SETTINGS = ("registry", *docker_front.SETTINGS)


class DockerEnvironment:
    """Deploy to the Docker engine of this machine; all state is under ``home/environments/NAME``."""

    name = "docker"
    provider = "docker"

    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        if unknown := settings.keys() - _SETTINGS:
            raise UserError(f"no setting of a docker environment: {min(unknown)} (there are: {', '.join(_SETTINGS)})")
        root = home / "environments" / self.name
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
        self._home = Home(root)
        self._cache = ModelCache(self._home.model_cache)
        self._engine = Engine(f"cortex-{digest}", root)
        self._project = Project(self._engine.file)
        front = FrontSettings.of(settings)
        self._shelf = docker_images.Shelf(settings.get("registry", ""), front.image)
        self._front = DockerFront(front, self._engine, root / "front")

    def deploy(self, config: Config, *, force: bool, progress: Progress) -> Iterator[Deployed]:
        """See `Environment.deploy`. One API that fails does not keep the others from being deployed."""
        for spec in config.apis:
            try:
                yield self._deploy(config, spec, force=force, progress=progress)
            except FieldError as error:
                told = f"{config.where(spec.name, error.field)}: {error.message}"
                yield Deployed(spec.name, "", error=told, api=self._find(spec.name))
            except Error as error:
                yield Deployed(spec.name, "", error=str(error), api=self._find(spec.name))

    def apis(self) -> tuple[API, ...]:
        """See `Environment.apis`."""
        deployments = self._project.deployments()
        if not deployments:
            return ()
        self._engine.check()
        containers = self._engine.containers()
        return tuple(self._describe(row, containers) for _, row in sorted(deployments.items()))

    def api(self, name: str) -> API:
        """See `Environment.api`."""
        deployment = self._deployment(name)
        self._engine.check()
        return self._describe(deployment, self._engine.containers())

    def logs(self, name: str, *, follow: bool) -> Iterator[str]:
        """See `Environment.logs`. Every line begins with the name of its container."""
        services = self._project.services(self._deployment(name).run)
        self._engine.check()
        return (line for line in self._engine.logs(services, follow=follow) if "|" in line)

    def refresh(self, name: str, *, force: bool, progress: Progress) -> Deployed:
        """See `Environment.refresh`."""
        with self._alone():
            before = self._deployment(name)
            self._engine.check()
            prepared = recall(name, before.revision, self._home)
            self._swap(self._run(prepared), before, progress)
        api = self.api(name)
        return Deployed(name, f"updating {name} ({api.spec.kind})", api=api)

    def delete(self, name: str, *, keep_cache: bool) -> str:
        """See `Environment.delete`. With the last API goes the front."""
        with self._alone():
            deployment = self._deployment(name)
            self._engine.check()
            self._project.forget(name)
            if self._project.deployments():
                self._lead()
                self._take_down(deployment.run, name)
            else:
                self._engine.compose("down", "--volumes", "--remove-orphans")
                self._engine.file.unlink()
                shutil.rmtree(self._home.root / "front", ignore_errors=True)
            self._home.api(name).remove()
            if not keep_cache:
                self._prune()
        return f"deleting {name}"

    def render(self, config: Config) -> tuple[Mapping[str, Any], ...]:
        """See `Environment.render`: one compose file. ``x-files`` are what `deploy` writes for it to mount."""
        runs = [self._rendered(spec, config) for spec in config.apis]
        routes = [Route.of(spec, compose.upstreams(spec)) for spec in config.apis]
        directory, settings = self._home.root / "front", self._front.settings
        files = {f"{run.directory}/containers/{name}": text for run in runs for name, text in run.files.items()}
        files[f"{directory}/nginx.conf"] = nginx.configuration(routes, settings.nginx())
        links = {f"{compose.FRONT_SOCKETS}/{link}": to for run in runs for link, to in compose.links(run).items()}
        document = docker_project.rendered(runs, settings.service(directory), files, self._shelf.builds())
        return ({**document, "x-links": links},)

    def _rendered(self, spec: APISpec, config: Config) -> compose.Run:
        resolved, revision = rendered(spec, config, self._home)
        return self._planned(resolved, revision, gpus=spec.compute.gpu, token=revision[:6])

    # -- from one run to the next

    def _deploy(self, config: Config, spec: APISpec, *, force: bool, progress: Progress) -> Deployed:
        title = f"{spec.name} ({spec.kind})"
        with self._alone():
            self._engine.check()
            prepared = prepare(config, spec, self._home, self._cache, progress)
            before = self._project.deployments().get(spec.name)
            found = self._find(spec.name)
            current = before is not None and before.revision == prepared.id and not force
            if current and found and found.status == "live":
                self._lead()
                return Deployed(spec.name, f"{title} is up to date", api=found)
            try:
                self._swap(self._run(prepared), before, progress)
            finally:
                self._forget_revisions()
            self._prune()
        return Deployed(spec.name, f"{'updating' if before else 'creating'} {title}", api=self._find(spec.name))

    def _run(self, prepared: Prepared) -> compose.Run:
        run = self._planned(prepared.resolved, prepared.id, gpus=devices.gpus(), notices=prepared.notices)
        if run.gpus and run.spec.compute.gpu * run.replicas > run.gpus:
            raise FieldError(
                "autoscaling.init_replicas",
                f"{run.replicas} replicas of {run.spec.compute.gpu} GPUs are more than this machine's {run.gpus}",
            )
        return run

    def _planned(
        self, spec: APISpec, revision: str, *, gpus: int, notices: Sequence[str] = (), token: str = ""
    ) -> compose.Run:
        directory = self._home.api(spec.name).revision(revision)
        packages = docker_images.packages(spec, directory / "project")
        return compose.Run(
            spec=spec,
            revision=revision,
            token=token or secrets.token_hex(3),
            directory=str(directory),
            images=self._shelf.images(spec, gpus=gpus, packages=packages),
            cores=devices.cores(),
            gpus=gpus,
            gpu_engine=model_format.gpu_engine(Path(model.path) for model in spec.predictor.models),
            notices=tuple(notices),
        )

    def _swap(self, run: compose.Run, before: Deployment | None, progress: Progress) -> None:
        """Bring a run live in place of the one before, or raise what kept it from it, with that one as it was."""
        for leftover in self._project.runs() - {row.run for row in self._project.deployments().values()}:
            self._take_down(leftover)  # of a command that was killed
        project = self._home.api(run.spec.name).revision(run.revision) / "project"
        docker_images.provide(run.spec, project, self._shelf, self._engine, run.images, progress)
        self._lay_out(run)
        self._project.add(run)
        stopped = before if before and run.plan.stop_first else None
        try:
            if stopped:
                self._engine.compose("stop", *self._project.services(stopped.run))
            self._start(run, progress)
        except BaseException as error:
            self._take_down(run.name)
            if stopped:
                self._engine.compose("start", *reversed(self._project.services(stopped.run)))
            if before:
                failure = f"the update to revision {run.revision} failed, so {before.revision} goes on: {error}"
                self._project.remember(dataclasses.replace(before, failure=failure))
            raise
        self._go_live(run, before)

    def _start(self, run: compose.Run, progress: Progress) -> None:
        self._engine.compose("up", "--detach", "--no-deps", *reversed(self._project.services(run.name)))
        said = ""
        while waiting := self._waiting_for(run):
            if waiting != said:
                progress(waiting)
                said = waiting
            time.sleep(_POLL_SECONDS)

    def _waiting_for(self, run: compose.Run) -> str:
        """Say which container of a run is not ready yet; NotStarted when one has ended."""
        containers = [row for row in self._engine.containers() if row.labels.get("cortex.run") == run.name]
        for row in containers:
            if row.restarts or not row.running:
                raise NotStarted(f"{row.labels['cortex.process']}: {_end(row, self._engine)}")
        workers = [row for row in containers if "api-" in row.labels["cortex.process"]]
        for row in workers:
            ready, answer = self._engine.ask(row.id, *_READY)
            if not ready:
                words = _PREFIX.sub("", self._engine.last_words(row.id)) or answer
                return f"{row.labels['cortex.process']}: {words}"
        return ""

    def _go_live(self, run: compose.Run, before: Deployment | None) -> None:
        now = time.time()
        created = before.created if before else now
        self._turn(run)
        self._project.remember(Deployment(run.spec.name, run.revision, run.name, created, now, run.notices))
        self._lead()
        if before:
            self._take_down(before.run)

    def _turn(self, run: compose.Run) -> None:
        """Turn the links of the front to a run, each in one step."""
        steps = [f"mkdir -p {compose.FRONT_SOCKETS}/{run.spec.name}", f"cd {compose.FRONT_SOCKETS}"]
        for link, target in compose.links(run).items():
            steps.append(f"ln -sfn {target} {link}.new && mv -fT {link}.new {link}")
        worker = self._worker(run.name)
        done, said = self._engine.ask(worker, "sh", "-ec", "\n".join(steps))
        if not done:
            raise NotStarted(f"the front's sockets cannot be set up: {said}")

    def _lead(self) -> None:
        """Have the front lead to what is live."""
        deployments = self._project.deployments()
        specs = [self._home.api(row.name).spec(row.revision) for row in deployments.values()]
        routes = [Route.of(spec, compose.upstreams(spec)) for spec in specs]
        changed = self._project.add_front(self._front.settings.service(self._home.root / "front"))
        if changed or not self._front.matches(routes):
            self._front.follow(routes, self._worker(*(row.run for row in deployments.values())))

    def _worker(self, *runs: str) -> str:
        """Return a container of some worker that runs."""
        for row in self._engine.containers():
            process = row.labels.get("cortex.process", "")
            if row.running and "api-" in process and row.labels.get("cortex.run") in runs:
                return row.id
        raise NotStarted("no worker is running")

    def _take_down(self, run: str, name: str = "") -> None:
        """Stop the containers of a run by their own drain, and remove what it left; also ``name``'s links."""
        services = self._project.services(run)
        if services:
            self._engine.compose("stop", *services)
            self._engine.compose("rm", "--force", *services)
        for volume in self._project.volumes(run):
            self._engine.good("volume", "rm", "--force", f"{self._engine.project}_{volume}")
        self._project.remove(run)
        with contextlib.suppress(NotStarted):  # before the first API is live there is no front
            self._front.sweep(f"{run}-*.sock", *([name] if name else []))

    # -- what is on disk

    def _lay_out(self, run: compose.Run) -> None:
        """Write the files of a run, and let the containers' user read what they mount."""
        directory = Path(run.directory)
        (directory / "containers").mkdir(exist_ok=True)
        for name, text in run.files.items():
            (directory / "containers" / name).write_text(text)
        self._home.root.chmod(0o700)  # what is below is open to any user, so that containers can read it
        for path in (directory, *(Path(model.path) for model in run.spec.predictor.models)):
            _open(path)

    def _forget_revisions(self) -> None:
        live = {(row.name, row.revision) for row in self._project.deployments().values()}
        for path in self._home.root.glob("apis/*/revisions/*"):
            if (path.parents[1].name, path.name) not in live:
                shutil.rmtree(path, ignore_errors=True)

    def _prune(self) -> None:
        """Remove models from the cache that no API uses any more; none while that is not known."""
        with contextlib.suppress(OSError, ValueError):
            specs = [spec for name in self._project.deployments() for spec in self._home.api(name).all_resolved()]
            self._cache.prune({Path(model.path).name for spec in specs for model in spec.predictor.models})

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with self._home.lock(self.name):
            yield

    # -- what is known

    def _deployment(self, name: str) -> Deployment:
        found = self._project.deployments().get(name)
        if found is None:
            raise UserError(f"{name} is not deployed")
        return found

    def _find(self, name: str) -> API | None:
        with contextlib.suppress(Error, OSError, ValueError):
            return self.api(name)
        return None

    def _describe(self, row: Deployment, containers: Sequence[Container]) -> API:
        ours = [each for each in containers if each.labels.get("cortex.run") == row.run]
        front = [each for each in containers if each.service == compose.FRONT]
        spec = self._home.api(row.name).spec(row.revision)
        status, reason = _judge(ours, front, self._engine)
        return API(
            spec=spec,
            api_id=row.revision,
            status=status,
            endpoint=f"{self._front.settings.url}/{(spec.networking.endpoint or '').strip('/')}",
            last_updated=row.updated,
            reason=reason,
            notices=(*row.notices, *filter(None, [row.failure])),
            processes=tuple(ProcessStatus(_process(each), each.pid, _state(each), each.restarts) for each in ours),
            stats=network_stats(self._engine, ours),
        )


def _process(container: Container) -> str:
    return container.labels.get("cortex.process", container.service)


def _state(container: Container) -> str:
    if not container.running:
        return "waiting to restart"
    starting = container.health == "unhealthy" or (container.health == "starting" and container.restarts)
    return "starting" if starting else "ready"


def _judge(containers: Sequence[Container], front: Sequence[Container], engine: Engine) -> tuple[str, str]:
    """Return status and reason of an API with these containers, behind this front."""
    if not containers or not front:
        return "error", "containers of it are gone; run `cortex deploy` again"
    for row in (*containers, *front):
        if not row.running:
            status = "error (out of memory)" if row.out_of_memory else "error"
            return status, f"{_process(row)}: {_end(row, engine)}"
    waiting = [_process(row) for row in containers if _state(row) != "ready"]
    return ("updating", f"{', '.join(waiting)}: starting") if waiting else ("live", "")


def _end(container: Container, engine: Engine) -> str:
    """Say why a container ended."""
    if container.out_of_memory:
        return "out of memory"
    how = "crashed" if container.running else f"exited with {container.exit_code}"
    return f"{how}: {_PREFIX.sub('', engine.last_words(container.id))}"


def _open(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
