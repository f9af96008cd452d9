"""Run APIs as processes on this machine: no container, no cloud account, no daemon beyond one supervisor per API."""

import contextlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cortex import threads
from cortex.environments import devices, model_format, protection
from cortex.environments.address import Address
from cortex.environments.base import API, Deployed, ProcessStatus, Progress, deploy_each
from cortex.environments.fields import FieldError
from cortex.environments.local import logs, neuron_cores, ports, supervision
from cortex.environments.local.entrance import TLS_PORT, Entrance
from cortex.environments.local.metrics import network_stats
from cortex.environments.local.notices import notices
from cortex.environments.local.plan import Place, plan
from cortex.environments.local.preview import model_server_command, previews
from cortex.environments.model_cache import ModelCache
from cortex.environments.preparation import Prepared, prepare, recall
from cortex.environments.protection import Protection
from cortex.environments.state import APIDirectory, Home, supervisor
from cortex.environments.tree import plainly
from cortex.errors import AddressTaken, Error, UserError
from cortex.spec import APISpec
from cortex.spec.config import Config
from cortex.status import Status

HOST = "0.0.0.0"  # noqa: S104 - as Cortex's own local APIs did; CORTEX_HOST narrows it
_PORTS_TRIED = 10
_TAKE_OVER_SECONDS = 10.0
"""How long a command that is to take over waits for another one that is in the middle of its work."""


class LocalEnvironment:
    """Deploy on this machine; all state is under ``root`` (CORTEX_HOME)."""

    provider = "local"

    def __init__(self, root: Path, settings: Mapping[str, str], name: str = "local") -> None:
        self.name = name
        if unknown := settings.keys() - protection.SETTINGS:
            there_are = ", ".join(protection.SETTINGS)
            raise UserError(f"the local environment has no setting {min(unknown)!r} (there are: {there_are})")
        self._home = Home(root)
        self._cache = ModelCache(self._home.model_cache)
        self._host = os.environ.get("CORTEX_HOST", HOST)
        self._entrance = Entrance(self._home, self._host, Protection.of(settings, tls_port=TLS_PORT))

    def choose_front(self, choice: str) -> None:
        """See `Environment.choose_front`. The front goes with the last API, too."""
        with plainly("cannot write", self._home.root):
            self._entrance.choose(choice)

    def deploy(self, config: Config, *, force: bool, progress: Progress) -> Iterator[Deployed]:
        """See `Environment.deploy`. One API that fails does not keep the others from being deployed."""
        self._sweep()
        yield from deploy_each(config, partial(self._deploy, config, force=force, progress=progress), self._find)
        if not self._home.names():
            self._entrance.follow()  # to nothing: what a failed first deployment would have been behind

    def render(self, config: Config, front: str | None = None) -> tuple[Mapping[str, Any], ...]:
        """See `Environment.render`: a plan for each API, of a revision that is called ``dry-run``; then the front."""
        plans = previews(config, self._home, self._host, self._entrance.ports(front))
        ports = [int(plan["port"]) for plan in plans]
        shown = self._entrance.preview(front, tuple(zip(config.apis, ports, strict=True)))
        return (*plans, shown) if shown else plans

    def apis(self) -> tuple[API, ...]:
        """See `Environment.apis`."""
        return tuple(filter(None, (self._find(name) for name in self._home.names())))

    def api(self, name: str) -> API:
        """See `Environment.api`."""
        return self._describe(self._home.find(name))

    def logs(self, name: str, *, follow: bool) -> Iterator[str]:
        """See `Environment.logs`."""
        return logs.lines(self._home.find(name).logs, follow=follow)

    def refresh(self, name: str, *, force: bool, progress: Progress) -> Deployed:
        """See `Environment.refresh`."""
        directory = self._home.find(name)
        with self._alone(name, force=force):
            before, status = self._describe(directory), directory.status()
            host = status.host if status else self._host  # it stays where it is, whatever CORTEX_HOST says by now
            self._entrance.check(before.spec)
            self._assign_port(before.spec, host, status.port if status and supervisor(status) else 0)
            self._run(recall(name, before.api_id, self._home), host, force=force, progress=progress)
        self._entrance.follow()
        return Deployed(name, f"updating {name} ({before.spec.kind})", api=self._find(name))

    def delete(self, name: str, *, keep_cache: bool) -> str:
        """See `Environment.delete`."""
        self._sweep()
        self._what_runs(name)
        with self._alone(name, force=True):
            directory = self._what_runs(name)  # whoever held it may have deleted it
            try:
                self._entrance.follow(leaving=name)
            finally:
                supervision.stop(directory)
                directory.remove()
        if not keep_cache:
            self._prune()
        return f"deleting {name}"

    @contextlib.contextmanager
    def _alone(self, name: str, *, force: bool) -> Iterator[None]:
        """Hold an API's lock. By force an update is given up for whose end another command holds it."""
        deadline = time.monotonic() + _TAKE_OVER_SECONDS
        while force and self._home.busy(name) and time.monotonic() < deadline:
            supervision.cancel(self._home.api(name))
            time.sleep(0.1)
        with self._home.lock(name):
            yield

    def _what_runs(self, name: str) -> APIDirectory:
        """Return the directory of an API, also where that is gone and the API still runs. UserError otherwise."""
        try:
            return self._home.find(name)
        except UserError:
            directory = self._home.api(name)
            if directory.path.exists() or not supervision.runs(directory):
                raise
        return directory

    def _find(self, name: str) -> API | None:
        with contextlib.suppress(UserError, OSError, ValueError):
            return self.api(name)
        return None

    def _deploy(self, config: Config, spec: APISpec, *, force: bool, progress: Progress) -> Deployed:
        directory = self._home.api(spec.name)
        title = f"{spec.name} ({spec.kind})"
        with plainly("cannot write", self._home.root), self._alone(spec.name, force=force), _tidy(directory):
            before = directory.status()
            held = self._held_port(spec.name, before)
            self._entrance.check(spec)
            told = notices(spec, config.path.absolute().parent)
            running = before.in_use if before and held else ()
            prepared = prepare(config, spec, self._home, self._cache, progress, notices=told, running=running)
            port = self._assign_port(spec, self._host, held)
            if before and (before.status, before.revision, before.port) == ("live", prepared.id, port) and not force:
                self._entrance.follow()
                return Deployed(spec.name, f"{title} is up to date", api=self._find(spec.name))
            self._replace(directory, prepared, held, force=force, progress=progress)
        self._prune()
        return Deployed(spec.name, f"{'updating' if before else 'creating'} {title}", api=self._find(spec.name))

    def _held_port(self, name: str, before: Status | None) -> int:
        """Return the port of an API's supervisor, 0 without one. Raises UserError where it would have to move."""
        if not before or not supervisor(before):
            return 0
        if before.host != self._host:
            raise UserError(
                f"{name} listens on {before.host}, and cannot move to CORTEX_HOST={self._host} while it runs: "
                f"`cortex delete {name}` first"
            )
        return before.port

    def _assign_port(self, spec: APISpec, host: str, held: int) -> int:
        """Return the port of an API, which listens at ``held`` unless that is 0. See `ports.assign`."""
        if not held:
            supervision.stop(self._home.api(spec.name))  # what outlived its supervisor, or its files, may have the port
        wanted, front = spec.networking.local_port, self._entrance.ports()
        return ports.assign(self._home, spec.name, wanted, host=host, held=held, front=front)

    def _replace(
        self, directory: APIDirectory, prepared: Prepared, held: int, *, force: bool, progress: Progress
    ) -> None:
        """Bring a revision live instead of the one at the port ``held``, which stays and keeps it if that fails."""
        port = held or directory.port()
        try:
            wanted = prepared.resolved.networking.local_port or held
            self._run_at_a_port(prepared, wanted, force=force, progress=progress)
        except Error:
            directory.assign_port(port)
            raise
        except KeyboardInterrupt:
            self._entrance.follow()  # the deployment goes on without this command, and the front is to lead to it
            raise
        finally:
            directory.forget_revisions_but(prepared.id)
        self._entrance.follow()

    def _run_at_a_port(self, prepared: Prepared, wanted: int, *, force: bool, progress: Progress) -> None:
        """Run; where no port is ``wanted``, whoever takes the one that was free a moment ago may have it."""
        for _ in range(_PORTS_TRIED):
            try:
                return self._run(prepared, self._host, force=force, progress=progress)
            except AddressTaken:
                if wanted:
                    raise
            self._assign_port(prepared.resolved, self._host, held=0)
        return self._run(prepared, self._host, force=force, progress=progress)

    def _run(self, prepared: Prepared, host: str, *, force: bool, progress: Progress) -> None:
        """Bring a revision live, or raise what kept it from it."""
        directory = self._home.api(prepared.resolved.name)
        gpus = devices.nvidia().ids if prepared.resolved.compute.gpu else ()
        place = Place(
            revision=prepared.id,
            directory=directory.revision(prepared.id),
            run_dir=directory.run_dir / secrets.token_hex(3),
            host=host,
            port=directory.port(),
            python=sys.executable,
            model_server=_found_model_server(prepared.resolved),
            cores=threads.available(),
            nodes=devices.nodes(),
            gpus=len(gpus),
            gpu_ids=gpus,
            neuron_core=neuron_cores.assign(self._home, prepared.resolved).start,
            gpu_engine=model_format.gpu_engine(Path(model.path) for model in prepared.resolved.predictor.models),
            shared_metrics=True,
            notices=prepared.notices,
        )
        for line in supervision.run(directory, plan(prepared.resolved, place), force=force):
            progress(line)
        if not directory.deployed:
            raise UserError(f"its status cannot be written to {directory.path}, so that no command would find it")

    def _describe(self, directory: APIDirectory) -> API:
        status = directory.status()
        if status is None:
            raise UserError(f"{directory.name} is not deployed")
        spec = directory.spec(status.revision)
        front = self._entrance.url(spec)
        problem = self._entrance.problem(status) if front else ""
        return API(
            spec=spec,
            api_id=status.revision,
            status=status.status,
            endpoint=f"http://{Address(status.host, status.port).shown}",
            front=front,
            last_updated=status.live_since,
            reason=status.reason,
            notices=(*status.notices, *filter(None, [problem])),
            processes=tuple(ProcessStatus(**row) for row in status.processes),
            stats=network_stats(Path(status.run_dir) / "metrics"),
        )

    def _sweep(self) -> None:
        """Remove what commands that were killed left of APIs that never ran, or run no more."""
        for name in self._home.unfinished():
            with contextlib.suppress(UserError), self._home.lock(name), _tidy(self._home.api(name)):
                pass  # some command is at work on it where the lock is taken

    def _prune(self) -> None:
        """Remove models from the cache that no revision of any API uses any more; none while that is not known."""
        with contextlib.suppress(OSError, ValueError):
            self._cache.prune(self._home.models_in_use)


@contextlib.contextmanager
def _tidy(directory: APIDirectory) -> Iterator[None]:
    """Leave nothing of an API that never came to have a status: no command would find it."""
    try:
        yield
    finally:
        if not directory.deployed:
            supervision.stop(directory)
            directory.remove()


def _found_model_server(spec: APISpec) -> tuple[str, ...]:
    """Return the command that serves an API's models. FieldError when there is no such program."""
    name, *arguments = model_server_command(spec)
    found = shutil.which(name)
    if found is None:
        raise FieldError(
            "compute.inf" if spec.compute.inf else "predictor.model_server",
            f"the program {name} was not found; install it, or give its path in CORTEX_TENSORFLOW_MODEL_SERVER",
        )
    return (found, *arguments)
