"""A revision on disk: the models in the cache, the project copied, the spec resolved; complete before anything runs."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cortex
from cortex.environments import devices
from cortex.environments.base import Progress
from cortex.environments.fields import FieldError
from cortex.environments.local.plan import NEURON_CORES_PER_INF
from cortex.environments.model_cache import ModelCache
from cortex.environments.model_format import unreadable
from cortex.environments.models import ResolvedModel, resolve
from cortex.environments.project import Project
from cortex.environments.state import Home
from cortex.environments.tree import Tree
from cortex.errors import UserError
from cortex.spec import APISpec, Model
from cortex.spec.config import Config


@dataclass(frozen=True)
class Prepared:
    """A revision that is complete on disk. ``id`` names its content; equal ids are equal in all that runs."""

    id: str
    resolved: APISpec
    """The spec with its models where the cache has them."""
    notices: tuple[str, ...]


def prepare(
    config: Config,
    spec: APISpec,
    home: Home,
    cache: ModelCache,
    progress: Progress,
    *,
    notices: Iterable[str] = (),
    running: Collection[str] = (),
) -> Prepared:
    """Bring everything that a revision needs under ``home``. UserError, or FieldError, for what the user can mend.

    ``notices`` are those of the environment; they come first, so that what they check is checked before any work.
    Revisions that are ``running`` are left as they are.
    """
    root = config.path.absolute().parent
    notices = [*notices]
    with cache.hold():
        models = resolve(spec, root, cache, progress)
        _check_engine(spec, models)
        project = Project.of(config, spec, home.root)
        notices += [*project.notices, *(notice for model in models for notice in model.notices)]
        rows = (Model(name=row.name, path=str(row.path), signature_key=row.signature_key) for row in models)
        resolved = spec.with_models(rows)
        content = [
            cortex.__version__,
            spec.model_dump_json(),
            resolved.model_dump_json(),
            project.tree.digest,
            *notices,
        ]
        prepared = Prepared(named(content), resolved, tuple(notices))
        _write(prepared, spec, project, home, running)
    return prepared


def recall(name: str, revision: str, home: Home) -> Prepared:
    """Return a revision that was prepared before. UserError when it is damaged."""
    directory = home.api(name)
    return Prepared(revision, directory.resolved(revision), directory.notices(revision))


def _write(prepared: Prepared, spec: APISpec, project: Project, home: Home, running: Collection[str]) -> None:
    """Make the revision's directory, whole or not at all; one that is there, and runs or is whole, is this very one."""
    directory = home.api(spec.name).revision(prepared.id)
    files = {
        "notices.json": json.dumps(prepared.notices),
        "resolved.json": prepared.resolved.model_dump_json(indent=2),
        "spec.json": spec.model_dump_json(indent=2),
    }
    if directory.exists() and (prepared.id in running or _is_whole(directory, files, project)):
        return
    unfinished = directory.with_name(f".{prepared.id}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    project.tree.copy_to(unfinished / "project")
    for name, text in files.items():
        (unfinished / name).write_text(text)
    shutil.rmtree(directory, ignore_errors=True)
    unfinished.rename(directory)


def _is_whole(directory: Path, files: Mapping[str, str], project: Project) -> bool:
    """Tell whether a revision has what was written: a machine that lost its power may have kept the names alone.

    What the predictor made of its own files since is its affair, unless it left one empty or removed it.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError, UserError):
        texts = {name: (directory / name).read_text() for name in files}
        there = Tree.of(directory / "project").sizes
        return texts == files and all(there.get(name) or not size for name, size in project.tree.sizes.items())
    return False


def named(content: Iterable[str]) -> str:
    """Return the name of a revision with this content."""
    return hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]


def _check_engine(spec: APISpec, models: tuple[ResolvedModel, ...]) -> None:
    """Refuse a model that what the yaml asks for does not read; each is cached whole, whatever its format."""
    predictor = spec.predictor
    if predictor.type != "tensorflow" or spec.compute.inf:
        return
    key = "model_server" if predictor.model_server != "cortex" else "engine"
    for index, model in enumerate(models):
        for version in model.versions:
            wrong = unreadable(model.path / str(version), getattr(predictor, key))
            if wrong:
                field = f"predictor.models[{index}].path" if predictor.models_dir is None else "predictor.models_dir"
                raise FieldError(field, f"{model.source}: version {version}: {wrong}; change predictor.{key}")


def device_notices(spec: APISpec) -> Iterator[str]:
    """Yield what an API asks for in devices, and this machine does not have. FieldError when it cannot do without."""
    if spec.compute.inf:
        _check_neuron(spec.compute.inf)
    gpus = devices.nvidia() if spec.compute.gpu else None
    if gpus and not gpus.devices:
        yield f"{spec.name} will run without gpu access: {gpus.problem}"
    elif gpus and len(gpus.devices) < spec.compute.gpu:
        yield f"{spec.name} asks for {spec.compute.gpu} gpus, and this machine has {len(gpus.devices)}"


def unused_fields(spec: APISpec, environment: str, used: Collection[str]) -> Iterator[str]:
    """Yield one notice that names what the yaml says and an environment does not use; ``used``: what it does."""
    said = [f"predictor.{name}" for name in ("image", "tensorflow_serving_image") if getattr(spec.predictor, name)]
    for section in ("networking", "autoscaling", "update_strategy"):
        said += [f"{section}.{name}" for name in sorted(getattr(spec, section).model_fields_set)]
    said += ["monitoring"] if spec.monitoring else []
    said += ["compute.mem"] if spec.compute.mem is not None else []
    fields = [field for field in said if field not in used]
    if fields:
        yield f"the {environment} environment does not use: {', '.join(fields)}"


def _check_neuron(wanted: int) -> None:
    """Refuse Inferentia where there is none, or less than the plan would share out: Inferentia2 has 2 cores a chip."""
    chips = devices.neuron()
    if not chips.devices:
        raise FieldError(
            "compute.inf",
            f"inf compute resources cannot be used locally: {chips.problem}; deploy this target on an inf1 or inf2 "
            "instance with the Neuron driver, or deploy the CPU or GPU target here",
        )
    there = sum(device.cores for device in chips.devices)  # 0 when neuron-ls did not say
    if 0 < there < wanted * NEURON_CORES_PER_INF:
        asked = wanted * NEURON_CORES_PER_INF
        raise FieldError("compute.inf", f"{wanted} means {asked} NeuronCores, and this machine has {there}")
