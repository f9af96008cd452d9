"""A revision for containers: as `preparation.prepare` makes it, less what only matters to processes of this machine.

The packages that the project wants are installed in its image, not looked for here.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cortex
from cortex.environments import devices
from cortex.environments.base import Progress
from cortex.environments.fields import FieldError
from cortex.environments.model_cache import ModelCache
from cortex.environments.model_remote import is_remote
from cortex.environments.models import local_path, resolve
from cortex.environments.preparation import Prepared
from cortex.environments.project import Project
from cortex.environments.state import Home
from cortex.spec import APISpec, Config, Model

_USED = {
    "networking": {"endpoint", "max_body_size"},
    "autoscaling": {"init_replicas", "min_replicas", "max_replica_concurrency"},
    "update_strategy": {"max_surge"},
}
"""What containers on one machine make use of; the rest is a cluster's."""


def prepare(config: Config, spec: APISpec, home: Home, cache: ModelCache, progress: Progress) -> Prepared:
    """Bring everything that a revision needs under ``home``. UserError, or FieldError, for what the user can mend."""
    root = config.path.absolute().parent
    notices = [*_device_notices(spec), *_unused_fields(spec)]
    with cache.hold():
        models = resolve(spec, root, cache, progress)
        project = Project.of(config.path, (spec,), beside=config.apis, exclude=[home.root])
        notices += [*project.notices, *(notice for model in models for notice in model.notices)]
        rows = tuple(Model(name=row.name, path=str(row.path), signature_key=row.signature_key) for row in models)
        resolved = _with_models(spec, rows)
        content = [cortex.__version__, spec.model_dump_json(), resolved.model_dump_json(), project.digest, *notices]
        prepared = Prepared(_digest(content), resolved, tuple(notices))
        _write(prepared, spec, project, home)
    return prepared


def rendered(spec: APISpec, config: Config, home: Home) -> tuple[APISpec, str]:
    """Return a spec with its models where they would be, and the name of a revision; nothing has to be there."""
    root = config.path.absolute().parent
    rows = tuple(row.model_copy(update={"path": _would_be(row.path, root, home)}) for row in spec.predictor.models)
    return _with_models(spec, rows), _digest([spec.model_dump_json()])


def _would_be(path: str, root: Path, home: Home) -> str:
    return str(home.model_cache / path.rstrip("/").rpartition("/")[2] if is_remote(path) else local_path(path, root))


def _digest(content: list[str]) -> str:
    return hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]


def _with_models(spec: APISpec, models: tuple[Model, ...]) -> APISpec:
    predictor = spec.predictor.model_copy(update={"models": models, "models_dir": None})
    return spec.model_copy(update={"predictor": predictor})


def _write(prepared: Prepared, spec: APISpec, project: Project, home: Home) -> None:
    """Make the revision's directory, whole or not at all; one that is there has this very content."""
    directory = home.api(spec.name).revision(prepared.id)
    if directory.exists():
        return
    unfinished = directory.with_name(f".{prepared.id}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    project.copy_to(unfinished / "project")
    (unfinished / "notices.json").write_text(json.dumps(prepared.notices))
    (unfinished / "resolved.json").write_text(prepared.resolved.model_dump_json(indent=2))
    (unfinished / "spec.json").write_text(spec.model_dump_json(indent=2))
    unfinished.rename(directory)


def _device_notices(spec: APISpec) -> Iterator[str]:
    if spec.compute.inf and not devices.neuron_devices():
        raise FieldError("compute.inf", "this machine has no AWS Inferentia device (/dev/neuron0)")
    if spec.compute.gpu and not devices.gpus():
        yield f"{spec.name} will run without gpu access because this machine has no NVIDIA GPU (/dev/nvidia0)"


def _unused_fields(spec: APISpec) -> Iterator[str]:
    fields = [
        f"{section}.{name}"
        for section, ours in _USED.items()
        for name in sorted(getattr(spec, section).model_fields_set - ours)
        if getattr(spec, section) != type(getattr(spec, section))()
    ]
    fields += ["monitoring"] if spec.monitoring else []
    if fields:
        yield f"the docker environment does not use: {', '.join(fields)}"
