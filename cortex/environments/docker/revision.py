"""What is different about a revision for containers: which fields of a yaml they use, and how it looks beforehand.

The packages that the project wants are installed in its image, not looked for here.
"""

from collections.abc import Iterator
from pathlib import Path

from cortex.environments import requirements
from cortex.environments.docker.packages import Packages
from cortex.environments.model_remote import is_remote
from cortex.environments.models import foreseen, local_path
from cortex.environments.preparation import device_notices, named, unused_fields
from cortex.environments.project import Project
from cortex.environments.state import Home
from cortex.spec import APISpec
from cortex.spec.config import Config

USED = (
    "predictor.image",
    "predictor.tensorflow_serving_image",
    "networking.endpoint",
    "networking.max_body_size",
    "autoscaling.init_replicas",
    "autoscaling.min_replicas",
    "autoscaling.max_replica_concurrency",
    "update_strategy.max_surge",
    "compute.mem",
)
"""What containers on one machine make use of; the rest is a cluster's."""


def notices(spec: APISpec, project: Path) -> Iterator[str]:
    """Yield what the owner of an API is to know. FieldError for what keeps it from running here."""
    yield from device_notices(spec)
    yield from unused_fields(spec, "docker", USED)
    if spec.predictor.image is None:
        yield from requirements.not_run(project)


def rendered(spec: APISpec, config: Config, home: Home) -> tuple[APISpec, str, Packages]:
    """Return a spec with its models where they would be, the name of a revision, and the packages of the project.

    No model has to be there.
    """
    root = config.path.absolute().parent
    rows = (row.model_copy(update={"path": _would_be(row.path, root, home)}) for row in foreseen(spec, root))
    project = Project.of(config, spec, home.root)
    packages = Packages.of(spec, project.tree.files)
    return spec.with_models(rows), named([spec.model_dump_json()]), packages


def _would_be(path: str, root: Path, home: Home) -> str:
    return str(home.model_cache / path.rstrip("/").rpartition("/")[2] if is_remote(path) else local_path(path, root))
