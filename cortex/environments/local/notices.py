"""What an API asks for and this machine, as a place for processes, does not give."""

from collections.abc import Iterator
from pathlib import Path

from cortex.environments import requirements
from cortex.environments.preparation import device_notices, unused_fields
from cortex.spec import APISpec

USED = (
    "networking.local_port",
    "networking.max_body_size",
    "networking.endpoint",
    "autoscaling.max_replica_concurrency",
    "update_strategy.max_surge",
)


def notices(spec: APISpec, project: Path) -> Iterator[str]:
    """Yield what the owner of an API is to know. FieldError, or UserError, for what keeps it from running here."""
    yield from device_notices(spec)
    yield from unused(spec)
    yield from requirements.check(project)


def unused(spec: APISpec) -> Iterator[str]:
    """Yield one notice that names what the yaml says and only a cluster could do."""
    return unused_fields(spec, "local", USED)
