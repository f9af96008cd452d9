"""Run APIs in containers of this machine, behind one nginx: the plan as a compose file, carried out by Docker.

Every change leaves the file as it is carried out: ``CORTEX_HOME/environments/NAME/compose.yaml``.
"""

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

from cortex import threads
from cortex.environments import devices, model_format, nginx, temporary
from cortex.environments.base import API, Deployed, ProcessStatus, Progress, deploy_each
from cortex.environments.docker import compose, compose_file, images, logs, shares
from cortex.environments.docker import front as docker_front
from cortex.environments.docker.changeover import Changeover
from cortex.environments.docker.compose_file import ComposeFile, Deployment
from cortex.environments.docker.condition import judge, killed, process, state
from cortex.environments.docker.engine import Container, Engine
from cortex.environments.docker.front import DockerFront, FrontSettings
from cortex.environments.docker.packages import Packages
from cortex.environments.docker.revision import notices, rendered
from cortex.environments.docker.stats import network_stats
from cortex.environments.model_cache import ModelCache
from cortex.environments.nginx import Route
from cortex.environments.preparation import Prepared, prepare, recall
from cortex.environments.state import Home
from cortex.environments.tree import Tree
from cortex.errors import Error, UserError
from cortex.spec import APISpec
from cortex.spec.config import Config

SETTINGS = ("registry", *docker_front.SETTINGS)


class DockerEnvironment:
    """Deploy to the Docker engine of this machine; all state is under ``home/environments/NAME``."""

    provider = "docker"

    def __init__(self, home: Path, settings: Mapping[str, str], name: str = "docker") -> None:
        if unknown := settings.keys() - SETTINGS:
            raise UserError(f"no setting of a docker environment: {min(unknown)} (there are: {', '.join(SETTINGS)})")
        self.name = name
        root = home / "environments" / name
        self._home = Home(root)
        self._cache = ModelCache(self._home.model_cache)
        self._engine = Engine(f"cortex-{temporary.digest(root)}", root)
        self._compose_file = ComposeFile(self._engine.file)
        front = FrontSettings.of(settings)
        self._shelf = images.Shelf(settings.get("registry", ""), front.image)
        self._front = DockerFront(front, self._engine, root / "front")
        self._changeover = Changeover(self._home, self._compose_file, self._engine, self._shelf, self._front)

    def choose_front(self, choice: str) -> None:
        """See `Environment.choose_front`: there is always one, and its port is a setting."""
        if choice != "nginx":
            raise UserError(
                f"--front {choice}: a docker environment always has nginx in front; its port is a setting: "
                f"`cortex env configure {self.name} --provider docker --set port=PORT`"
            )

    def deploy(self, config: Config, *, force: bool, progress: Progress) -> Iterator[Deployed]:
        """See `Environment.deploy`. One API that fails does not keep the others from being deployed."""
        yield from deploy_each(config, partial(self._deploy, config, force=force, progress=progress), self._find)

    def apis(self) -> tuple[API, ...]:
        """See `Environment.apis`."""
        deployments = self._compose_file.deployments()
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
        """See `Environment.logs`. Every line begins with the name of its container; an update is followed, too."""
        run = self._deployment(name).run
        self._engine.check()
        return logs.lines(self._engine, self._compose_file, name, run, follow=follow)

    def refresh(self, name: str, *, force: bool, progress: Progress) -> Deployed:
        """See `Environment.refresh`."""
        with self._alone(name, force=force):
            before = self._deployment(name)
            self._changeover.check_front()
            prepared = recall(name, before.revision, self._home)
            self._changeover.swap(self._run(prepared), before, progress)
        api = self.api(name)
        return Deployed(name, f"updating {name} ({api.spec.kind})", api=api)

    def delete(self, name: str, *, keep_cache: bool) -> str:
        """See `Environment.delete`. With the last API goes the front; the images that APIs share stay."""
        begun = self._home.api(name).path.exists()
        with self._alone(name, force=True):
            if not begun or name in self._compose_file.deployments():  # else it has never been up, and is tidied away
                self._stop(self._deployment(name))
            if not keep_cache:
                self._discard_images(name)
                self._prune()
        return f"deleting {name}"

    def _stop(self, deployment: Deployment) -> None:
        if self._compose_file.deployments().keys() == {deployment.name}:
            self._remove_all()
        else:
            self._delete_beside_others(deployment)
        self._home.api(deployment.name).remove()

    def _remove_all(self) -> None:
        """Stop whatever is there, and remove it with its network, its volumes and the compose file."""
        self._engine.compose("down", "--volumes", "--remove-orphans")
        self._engine.good("network", "rm", f"{self._engine.project}_default")  # which compose leaves without services
        self._engine.file.unlink()
        shutil.rmtree(self._home.root / "front", ignore_errors=True)

    def _delete_beside_others(self, deployment: Deployment) -> None:
        """Have the front forget an API, then stop it; it is stopped, too, when the front cannot be led elsewhere."""
        self._compose_file.forget(deployment.name)
        try:
            self._changeover.lead()
        except KeyboardInterrupt:
            with contextlib.suppress(Error):
                self._changeover.lead()  # what is deleted is not left half there
            raise
        finally:
            self._changeover.take_down(deployment.run, deployment.name)

    def render(self, config: Config, front: str | None = None) -> tuple[Mapping[str, Any], ...]:
        """See `Environment.render`: one compose file. ``x-files`` are what `deploy` writes for it to mount."""
        self.choose_front(front or "nginx")  # which only refuses
        runs: list[compose.Run] = []
        for spec in config.apis:
            runs.append(self._rendered(spec, config, {number for run in runs for number in run.neuron_devices}))
        routes = [Route.of(spec, compose.upstreams(spec)) for spec in config.apis]
        directory, settings = self._home.root / "front", self._front.settings
        files = {f"{run.directory}/containers/{name}": text for run in runs for name, text in run.files.items()}
        files[f"{directory}/nginx.conf"] = nginx.configuration(routes, settings.nginx())
        links = {link: to for run in runs for link, to in compose.links(run.spec, run.name).items()}
        document = compose_file.rendered(runs, settings.service(directory), files, self._shelf.builds())
        return ({**document, "x-links": {f"{compose.FRONT_SOCKETS}/{link}": to for link, to in links.items()}},)

    def _rendered(self, spec: APISpec, config: Config, taken: Set[int]) -> compose.Run:
        resolved, revision, packages = rendered(spec, config, self._home)
        planned = self._planned(resolved, revision, packages, gpus=spec.compute.gpu, token=revision[:6])
        return shares.shared(planned, taken | self._compose_file.neuron_devices(but=spec.name))

    # -- from one run to the next

    def _deploy(self, config: Config, spec: APISpec, *, force: bool, progress: Progress) -> Deployed:
        title = f"{spec.name} ({spec.kind})"
        with self._alone(spec.name, force=force):
            self._engine.check()
            self._changeover.check_front()
            nginx.check(
                spec, (self._spec(row) for row in self._compose_file.deployments().values() if row.name != spec.name)
            )
            told = notices(spec, config.path.absolute().parent)
            prepared = prepare(config, spec, self._home, self._cache, progress, notices=told)
            before = self._compose_file.deployments().get(spec.name)
            found = self._find(spec.name)
            current = before is not None and before.revision == prepared.id and not force
            if current and found and found.status == "live":
                self._changeover.lead()
                return Deployed(spec.name, f"{title} is up to date", api=self._find(spec.name))
            try:
                self._changeover.swap(self._run(prepared), before, progress)
            finally:
                self._tidy()
            self._discard_images(spec.name)
            self._prune()
        return Deployed(spec.name, f"{'updating' if before else 'creating'} {title}", api=self._find(spec.name))

    def _run(self, prepared: Prepared) -> compose.Run:
        files = Tree.of(self._home.api(prepared.resolved.name).revision(prepared.id) / "project").files
        packages = Packages.of(prepared.resolved, files)
        gpus = len(devices.nvidia().devices)
        run = self._planned(prepared.resolved, prepared.id, packages, gpus=gpus, notices=prepared.notices)
        taken = self._compose_file.neuron_devices(but=run.spec.name)
        run = shares.shared(run, taken)
        shares.check(run, taken)
        return run

    def _planned(
        self,
        spec: APISpec,
        revision: str,
        packages: Packages,
        *,
        gpus: int,
        notices: Sequence[str] = (),
        token: str = "",
    ) -> compose.Run:
        return compose.Run(
            spec=spec,
            revision=revision,
            token=token or secrets.token_hex(3),
            directory=str(self._home.api(spec.name).revision(revision)),
            images=self._shelf.images(spec, gpus=gpus, packages=packages),
            cores=threads.available(),
            gpus=gpus,
            gpu_engine=model_format.gpu_engine(Path(model.path) for model in spec.predictor.models),
            notices=tuple(notices),
        )

    # -- what is on disk

    def _tidy(self) -> None:
        """Leave nothing of commands that failed or were killed: neither runs and revisions that are not live, nor a
        front without an API.
        """
        if self._engine.file.exists():
            self._engine.check()
            self._changeover.sweep()
            if not self._compose_file.deployments():
                self._remove_all()
        deployments = self._compose_file.deployments()
        for path in self._home.root.glob("apis/*"):
            if path.name not in deployments:
                self._home.api(path.name).remove()
        for path in self._home.root.glob("apis/*/revisions/*"):
            if path.name != deployments[path.parents[1].name].revision:
                shutil.rmtree(path, ignore_errors=True)

    def _discard_images(self, name: str) -> None:
        """Remove the images that were built for an API and that it does not use; never one that a container has.

        That is also what failed updates left: while they fail, their packages need not be installed again.
        """
        used = self._compose_file.images()
        for image in self._shelf.built(name, self._engine):
            if image not in used:
                self._engine.good("image", "rm", image)

    def _prune(self) -> None:
        """Remove models from the cache that no API uses any more; none while that is not known."""
        with contextlib.suppress(OSError, ValueError):
            self._cache.prune(self._home.models_in_use)

    @contextlib.contextmanager
    def _alone(self, name: str, *, force: bool) -> Iterator[None]:
        """Hold an API and the environment. By force an update is given up for whose end another command holds them."""
        if force:
            self._changeover.take_over(name)
        with self._home.lock(name), self._home.lock(f"environment {self.name}"):
            self._tidy()
            yield

    # -- what is known

    def _deployment(self, name: str) -> Deployment:
        found = self._compose_file.deployments().get(name)
        if found is None:
            raise UserError(f"{name} is not deployed")
        return found

    def _spec(self, row: Deployment) -> APISpec:
        return self._home.api(row.name).spec(row.revision)

    def _find(self, name: str) -> API | None:
        with contextlib.suppress(Error):
            return self.api(name)
        return None

    def _describe(self, row: Deployment, containers: Sequence[Container]) -> API:
        services = self._compose_file.services(row.run)
        ours = [each for each in containers if each.service in services]
        front = [each for each in containers if each.service == compose.FRONT]
        spec = self._spec(row)
        status, reason = judge([*ours, *front], [*services, compose.FRONT], self._engine)
        return API(
            spec=spec,
            api_id=row.revision,
            status=status,
            endpoint=f"{self._front.url(self._compose_file.published())}{spec.endpoint}",
            last_updated=row.updated,
            reason=reason,
            notices=(*row.notices, *filter(None, [row.failure]), *killed([*ours, *front])),
            processes=tuple(ProcessStatus(process(each), each.pid, state(each), each.restarts) for each in ours),
            stats=network_stats(self._engine, ours),
        )
