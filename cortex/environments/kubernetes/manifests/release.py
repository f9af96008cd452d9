"""What one API's manifests are made of: a value, complete before the first of them is written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cortex.environments.kubernetes.settings import Settings
from cortex.environments.model_layout import version_of
from cortex.environments.model_remote import is_remote
from cortex.spec import APISpec, Model

MODELS = "/models"
_VOLUME = re.compile(r"pvc://(?P<claim>[a-z0-9][-a-z0-9.]{0,251})(?:/(?P<path>.*))?")


@dataclass(frozen=True)
class Release:
    """One revision of one API, on its way into a cluster."""

    spec: APISpec
    """As the user wrote it."""
    models: tuple[Model, ...]
    """As the user wrote them, those of ``models_dir`` one by one; local paths are absolute."""
    project: Mapping[str, bytes]
    """The files that fit into the cluster itself; empty when an image brings them."""
    revision: str
    settings: Settings
    replicas: int
    version: tuple[int, int]
    """Of Kubernetes, as far as it decides what may be asked of it."""
    notices: tuple[str, ...] = ()
    bundles_project: bool = False
    executables: frozenset[str] = frozenset()
    """The files of the project that may be run."""
    gpu_engine: str = "tensorflow"
    """What runs these models on a GPU when the yaml leaves that open."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def resolved(self) -> APISpec:
        """The spec with its models where a pod has them."""
        return self.spec.with_models(model.model_copy(update={"path": place(model)}) for model in self.models)

    @property
    def bundled_models(self) -> tuple[Model, ...]:
        """Models of this machine that an image brings along."""
        return tuple(model for model in self.models if is_local(model)) if self.settings.registry else ()

    @property
    def bundle(self) -> str:
        """The image that brings models and project along; empty when none is needed."""
        needed = self.bundled_models or self.bundles_project
        return self.settings.image(f"cortex-bundle-{self.name}:{self.revision}") if needed else ""

    @property
    def labels(self) -> dict[str, str]:
        """What every object of the API carries."""
        return {
            "app.kubernetes.io/name": self.name,
            "app.kubernetes.io/managed-by": "cortex",
            "cortex/api": self.name,
        }


def place(model: Model) -> str:
    """Return where a pod has a model: a directory of version directories."""
    return f"{MODELS}/{model.name}"


def is_local(model: Model) -> bool:
    """Tell whether a model is a path of this machine."""
    return not is_remote(model.path)


def is_fetched(model: Model) -> bool:
    """Tell whether a pod downloads a model."""
    return is_remote(model.path) and volume_of(model) is None


def volume_of(model: Model) -> tuple[str, str] | None:
    """Return claim and path of a model on a volume of the cluster, ``pvc://CLAIM/PATH``; None for any other."""
    match = _VOLUME.fullmatch(model.path)
    return (match["claim"], (match["path"] or "").strip("/")) if match else None


def mount_path(model: Model, path: str) -> str:
    """Return where a directory of a model is mounted: one that is itself a version goes under its number."""
    last = path.rstrip("/").rpartition("/")[2]
    version = version_of(last)
    return f"{place(model)}/{version}" if version else place(model)
