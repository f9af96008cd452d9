"""From an API of a yaml to the release that its manifests are made of."""

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cortex
from cortex.environments import model_format, requirements
from cortex.environments.fields import FieldError
from cortex.environments.kubernetes.manifests.files import LARGEST, size
from cortex.environments.kubernetes.manifests.release import Release, is_local
from cortex.environments.kubernetes.settings import Settings
from cortex.environments.models import local_path, wanted
from cortex.environments.project import IGNORE_FILE, Project
from cortex.environments.tree import Tree, human_size, plainly
from cortex.errors import UserError
from cortex.spec import APISpec, Model
from cortex.spec.config import Config

OLDEST = (1, 29)
"""Kubernetes that every manifest can be applied to."""


def release(
    config: Config, spec: APISpec, settings: Settings, *, home: Path, version: tuple[int, int] = OLDEST
) -> Release:
    """Return the release of an API. FieldError, or UserError, for what no cluster can run.

    Models of this machine need not be there; those that are there are part of what names the revision.
    """
    root = config.path.absolute().parent
    models = tuple(_absolute(model, root) for model in _wanted(spec, root))
    project = Project.of(config, spec, home)
    with plainly("cannot read the file"):
        files = {name: path.read_bytes() for name, path in project.tree.files.items()}
        executables = {name for name, path in project.tree.files.items() if path.stat().st_mode & stat.S_IXUSR}
    bundled = size(files) > LARGEST
    if bundled and not settings.registry:
        raise _too_large(files, root)
    notices = (*project.notices, *_notices(spec, root, project, models))
    content = [cortex.__version__, spec.model_dump_json(), project.tree.digest, repr(settings), *notices]
    content += [digest for model in models if (digest := _digest(model))]
    return Release(
        spec=spec,
        models=models,
        project={} if bundled else files,
        revision=hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16],
        settings=settings,
        replicas=spec.replicas,
        version=version,
        notices=notices,
        bundles_project=bundled,
        executables=frozenset(executables),
        gpu_engine=model_format.gpu_engine(Path(model.path) for model in models),
    )


def check_reachable(spec: APISpec, release: Release) -> None:
    """Refuse models that no node of a cluster could read. FieldError for the first of them."""
    for index, model in enumerate(release.models):
        if not is_local(model) or release.settings.registry:
            continue
        field = "predictor.models_dir" if spec.predictor.models_dir else f"predictor.models[{index}].path"
        if release.settings.local_models != "node":
            raise FieldError(
                field,
                f"{model.path}: is on this machine, where the cluster cannot read it; upload it (s3://, gs://, "
                "https://), put it on a volume of the cluster (pvc://CLAIM/PATH), let deploy put it into an image "
                "(`cortex env configure NAME --registry R`), or, when every node has this path, give the environment "
                "the setting local_models: node",
            )
        if Path(model.path).suffix in (".zip", ".onnx"):
            raise FieldError(field, f"{model.path}: a node's disk must have the model as a directory of versions")


def _wanted(spec: APISpec, root: Path) -> list[Model]:
    """Return the models of an API. FieldError for a directory of them that cannot be looked into."""
    try:
        return [model for _, model in wanted(spec, root)]
    except FieldError as error:
        told = "the manifests name each model of it: where that cannot be read, list them in predictor.models.paths"
        raise FieldError(error.field, f"{error.message}; {told}") from error


def _absolute(model: Model, root: Path) -> Model:
    return model.model_copy(update={"path": str(local_path(model.path, root))}) if is_local(model) else model


def _digest(model: Model) -> str:
    path = Path(model.path)
    if not is_local(model) or not path.exists():
        return ""
    return Tree.of(path).digest if path.is_dir() else Tree({path.name: path}).digest


def _engine_is_guessed(spec: APISpec, models: Sequence[Model]) -> bool:
    """Tell whether the yaml leaves the engine on a GPU open, and the models are not here to tell it."""
    predictor = spec.predictor
    undecided = predictor.type == "tensorflow" and predictor.engine == "auto" and predictor.model_server == "cortex"
    return bool(spec.compute.gpu) and undecided and not all(map(is_local, models))


def _notices(spec: APISpec, root: Path, project: Project, models: Sequence[Model]) -> Iterator[str]:
    if spec.predictor.image is None:
        if "requirements.txt" in project.tree.files:
            yield "requirements.txt is not installed: name an image that has what it asks for in predictor.image"
        yield from requirements.not_run(root)
    if (spec.compute.gpu or spec.compute.inf) and "max_surge" not in spec.update_strategy.model_fields_set:
        yield (
            "an update stops a replica before it starts its successor, which needs its device; set "
            "update_strategy.max_surge where there is another device"
        )
    if _engine_is_guessed(spec, models):
        yield (
            "on the GPU the models run in TensorFlow, since only the pod that downloads them knows what they are; set "
            "predictor.engine: onnxruntime for those of `python -m export gpu`"
        )
    if spec.monitoring:
        yield "the kubernetes environment does not use: monitoring"


def _too_large(files: Mapping[str, bytes], root: Path) -> UserError:
    largest = sorted(files.items(), key=lambda row: -len(row[1]))[:3]
    names = ", ".join(f"{name} ({human_size(len(data))})" for name, data in largest)
    return UserError(
        f"the project {root} has {human_size(sum(map(len, files.values())))}, more than the {human_size(LARGEST)} that "
        f"a cluster takes as files; its largest are {names}; name what the API does not need in "
        f"{root / IGNORE_FILE}, or let deploy put the project into an image: `cortex env configure NAME --registry R`"
    )
