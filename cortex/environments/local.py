"""Run APIs as processes on this machine: no container, no cloud account, no daemon beyond one supervisor per API."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

import cortex
from cortex import control
from cortex.environments import devices, logs, requirements
from cortex.environments.base import API, Deployed, ProcessStatus, Progress
from cortex.environments.fields import FieldError
from cortex.environments.local_plan import Place, plan
from cortex.environments.metrics import network_stats
from cortex.environments.model_cache import ModelCache
from cortex.environments.models import ResolvedModel, resolve
from cortex.environments.project import Project
from cortex.environments.state import APIDirectory, Home, supervisor
from cortex.errors import CortexError, Error, UserError
from cortex.spec import APISpec, Config, Model
from cortex.status import Status

FIRST_PORT = 8888
HOST = "0.0.0.0"  # noqa: S104 - as Cortex's own local APIs did; CORTEX_HOST narrows it
START_SECONDS = 20.0
STOP_SECONDS = 90.0
"""Longer than a drain (`cortex.revision.DRAIN_SECONDS`)."""


@dataclass(frozen=True)
class _Prepared:
    """A revision that is complete on disk: ``id`` names its content."""

    id: str
    resolved: APISpec
    """The spec with its models where the cache has them."""
    notices: tuple[str, ...]


class LocalEnvironment:
    """Deploy on this machine; all state is under ``root`` (CORTEX_HOME)."""

    name = "local"
    provider = "local"

    def __init__(self, root: Path) -> None:
        self._home = Home(root)
        self._cache = ModelCache(self._home.model_cache)
        self._host = os.environ.get("CORTEX_HOST", HOST)
        self._supervisors: list[subprocess.Popen[bytes]] = []

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
        return tuple(filter(None, (self._find(directory.name) for directory in self._home.apis())))

    def api(self, name: str) -> API:
        """See `Environment.api`."""
        return _describe(self._home.find(name))

    def logs(self, name: str, *, follow: bool) -> Iterator[str]:
        """See `Environment.logs`."""
        return logs.lines(self._home.find(name).logs, follow=follow)

    def refresh(self, name: str, *, force: bool, progress: Progress) -> Deployed:
        """See `Environment.refresh`."""
        directory = self._home.find(name)
        with self._home.lock(name):
            revision = _describe(directory).api_id
            notices = json.loads((directory.revision(revision) / "notices.json").read_text())
            prepared = _Prepared(revision, directory.resolved(revision), tuple(notices))
            self._run(directory, prepared, directory.port(), force=force, progress=progress)
        return Deployed(name, f"updating {name} ({prepared.resolved.kind})", api=self._find(name))

    def delete(self, name: str, *, keep_cache: bool) -> str:
        """See `Environment.delete`."""
        directory = self._home.find(name)
        with self._home.lock(name):
            status = directory.status()
            if status is not None:
                _stop(directory, status)
            directory.remove()
        if not keep_cache:
            self._prune()
        return f"deleting {name}"

    def _find(self, name: str) -> API | None:
        with contextlib.suppress(UserError, OSError, ValueError):
            return self.api(name)
        return None

    # -- deploy

    def _deploy(self, config: Config, spec: APISpec, *, force: bool, progress: Progress) -> Deployed:
        directory = self._home.api(spec.name)
        with self._home.lock(spec.name), _tidy(directory):
            before = directory.status()
            prepared = self._prepare(config, spec, directory, progress)
            port = self._assign_port(directory, spec, before)
            title = f"{spec.name} ({spec.kind})"
            if before and (before.status, before.revision, before.port) == ("live", prepared.id, port) and not force:
                return Deployed(spec.name, f"{title} is up to date", api=self._find(spec.name))
            try:
                self._run(directory, prepared, port, force=force, progress=progress)
            finally:
                self._forget_old_revisions(directory, prepared.id)
        self._prune()
        return Deployed(spec.name, f"{'updating' if before else 'creating'} {title}", api=self._find(spec.name))

    def _prepare(self, config: Config, spec: APISpec, directory: APIDirectory, progress: Progress) -> _Prepared:
        root = config.path.absolute().parent
        notices = [*_device_notices(spec), *_ignored_fields(spec), *requirements.check(root)]
        with self._cache.hold():
            models = resolve(spec, root, self._cache, progress)
            project = Project.of(config.path, (spec,), beside=config.apis, exclude=[self._home.root])
            notices += [*project.notices, *(notice for model in models for notice in model.notices)]
            resolved = _with_models(spec, models)
            content = [cortex.__version__, spec.model_dump_json(), resolved.model_dump_json(), project.digest, *notices]
            revision = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
            prepared = _Prepared(revision, resolved, tuple(notices))
            _write(prepared, spec, project, directory.revision(revision))
        return prepared

    def _assign_port(self, directory: APIDirectory, spec: APISpec, before: Status | None) -> int:
        """Choose and record the port: the one asked for, the one it had, or the first free one from 8888 up."""
        with self._home.lock(".ports", wait=True):
            taken = {api.port(): api.name for api in self._home.apis() if api.name != directory.name}
            ours = directory.port() if before and supervisor(before) else 0
            port = spec.networking.local_port or directory.port() or FIRST_PORT
            if spec.networking.local_port in taken:
                other = taken[port]
                raise FieldError(
                    "networking.local_port",
                    f"port {port} has already been assigned to api {other}, please delete the api with "
                    f"`cortex delete {other} --env local` or use another port",
                )
            while port != ours and (port in taken or not self._is_free(port)):
                if spec.networking.local_port or port == 65535:
                    raise FieldError(
                        "networking.local_port",
                        f"port {port} is being used by a non-cortex process; please specify a different port "
                        f"or make port {port} available",
                    )
                port += 1
            directory.assign_port(port)
            return port

    def _is_free(self, port: int) -> bool:
        with socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._host, port))
            except OSError:
                return False
        return True

    def _run(self, directory: APIDirectory, prepared: _Prepared, port: int, *, force: bool, progress: Progress) -> None:
        """Bring a revision live, or raise what kept it from it."""
        run = plan(prepared.resolved, self._place(directory, prepared, port))
        self._ensure_supervisor(directory)
        for line in control.command(directory.control, {"command": "deploy", "plan": run.to_json(), "force": force}):
            progress(line)

    def _place(self, directory: APIDirectory, prepared: _Prepared, port: int) -> Place:
        return Place(
            revision=prepared.id,
            directory=directory.revision(prepared.id),
            run_dir=directory.run_dir / secrets.token_hex(3),
            host=self._host,
            port=port,
            python=sys.executable,
            model_server=_model_server(prepared.resolved),
            cores=devices.cores(),
            gpus=devices.gpus(),
            notices=prepared.notices,
        )

    def _ensure_supervisor(self, directory: APIDirectory) -> None:
        status = directory.status()
        if status is not None and supervisor(status) is not None and _answers(directory.control):
            return
        shutil.rmtree(directory.run_dir, ignore_errors=True)
        directory.logs.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-P", "-m", "cortex.supervisor"]
        argv += ["--directory", str(directory.path), "--run-dir", str(directory.run_dir)]
        log = directory.logs / "supervisor.log"
        with log.open("ab") as output:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=directory.path
            )
        self._supervisors.append(child)
        if not _until(lambda: _answers(directory.control) or child.poll() is not None, START_SECONDS):
            child.kill()
        if not _answers(directory.control):
            raise CortexError(f"the supervisor did not start; see {log}")

    def _forget_old_revisions(self, directory: APIDirectory, newest: str) -> None:
        status = directory.status()
        keep = {newest, *((status.revision, status.next_revision) if status else ())}
        for path in directory.path.glob("revisions/*"):
            if path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)

    def _prune(self) -> None:
        specs = (spec for directory in self._home.apis() for spec in directory.all_resolved())
        self._cache.prune({Path(model.path).name for spec in specs for model in spec.predictor.models})


@contextlib.contextmanager
def _tidy(directory: APIDirectory) -> Iterator[None]:
    """Leave no files of an API that never came to have a status."""
    try:
        yield
    finally:
        if directory.status() is None:
            directory.remove()


def _write(prepared: _Prepared, spec: APISpec, project: Project, directory: Path) -> None:
    """Complete a revision's directory; what is there already is the same content."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "project").exists():
        project.copy_to(directory / "project")
    (directory / "notices.json").write_text(json.dumps(prepared.notices))
    (directory / "resolved.json").write_text(prepared.resolved.model_dump_json(indent=2))
    (directory / "spec.json").write_text(spec.model_dump_json(indent=2))


def _with_models(spec: APISpec, models: tuple[ResolvedModel, ...]) -> APISpec:
    rows = tuple(Model(name=row.name, path=str(row.path), signature_key=row.signature_key) for row in models)
    predictor = spec.predictor.model_copy(update={"models": rows, "models_dir": None})
    return spec.model_copy(update={"predictor": predictor})


def _device_notices(spec: APISpec) -> Iterator[str]:
    if spec.compute.inf and not devices.neuron_devices():
        raise FieldError(
            "compute.inf",
            "this machine has no AWS Inferentia device (/dev/neuron0): deploy this target on an inf1 or inf2 instance "
            "with the Neuron driver, or deploy the CPU or GPU target here",
        )
    if spec.compute.gpu and not devices.gpus():
        yield f"{spec.name} will run without gpu access because this machine has no NVIDIA GPU (/dev/nvidia0)"


def _ignored_fields(spec: APISpec) -> Iterator[str]:
    """Yield one notice that names what the yaml says and only a cluster could do."""
    predictor = [name for name in ("image", "tensorflow_serving_image") if getattr(spec.predictor, name) is not None]
    used = {"autoscaling": {"max_replica_concurrency"}, "update_strategy": {"max_surge"}}
    fields = [f"predictor.{name}" for name in predictor]
    fields += [f"networking.{name}" for name in ("endpoint", "api_gateway") if name in spec.networking.model_fields_set]
    for section, ours in used.items():
        fields += [f"{section}.{name}" for name in sorted(getattr(spec, section).model_fields_set - ours)]
    fields += ["monitoring"] if spec.monitoring else []
    fields += ["compute.mem"] if spec.compute.mem is not None else []
    if fields:
        yield f"the local environment does not use: {', '.join(fields)}"


def _model_server(spec: APISpec) -> tuple[str, ...]:
    """Return the command that serves an API's models."""
    if spec.predictor.model_server == "cortex" and not spec.compute.inf:
        return (sys.executable, "-P", "-m", "cortex.model_server")
    name = "tensorflow_model_server_neuron" if spec.compute.inf else "tensorflow_model_server"
    found = shutil.which(os.environ.get("CORTEX_TENSORFLOW_MODEL_SERVER", name))
    if found is None:
        raise FieldError(
            "predictor.model_server",
            f"{name} is not on the PATH; install it, or give its path in CORTEX_TENSORFLOW_MODEL_SERVER",
        )
    return (found,)


def _describe(directory: APIDirectory) -> API:
    status = directory.status()
    if status is None:
        raise UserError(f"{directory.name} is not deployed")
    return API(
        spec=directory.spec(status.revision),
        api_id=status.revision,
        status=status.status,
        endpoint=f"http://localhost:{status.port}",
        last_updated=status.live_since,
        reason=status.reason,
        notices=status.notices,
        processes=tuple(ProcessStatus(**row) for row in status.processes),
        stats=network_stats(Path(status.run_dir) / "metrics"),
    )


def _stop(directory: APIDirectory, status: Status) -> None:
    """End the supervisor, and by force what it could not end itself."""
    process = supervisor(status)
    if process is None:
        return
    family = [*process.children(recursive=True), process]
    with contextlib.suppress(Error):
        list(control.command(directory.control, {"command": "stop"}))
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for survivor in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()
    psutil.wait_procs(alive, timeout=5)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
