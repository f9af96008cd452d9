"""The plans that a deployment on this machine would carry out, without doing any of it.

What only a deployment finds out stands for itself: the revision is called ``dry-run``, models are where the yaml has
them instead of in the cache, and every device that the yaml asks for is taken to be there.
"""

import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cortex import threads
from cortex.environments import devices, model_format, model_server
from cortex.environments.local import neuron_cores, ports
from cortex.environments.local.notices import unused
from cortex.environments.local.plan import Place, plan
from cortex.environments.model_remote import is_remote
from cortex.environments.models import foreseen, local_path
from cortex.environments.state import Home
from cortex.spec import APISpec
from cortex.spec.config import Config

REVISION = "dry-run"


def previews(config: Config, home: Home, host: str, front: Collection[int]) -> tuple[Mapping[str, Any], ...]:
    """Return a plan for each API of a yaml, as maps: the fields of `cortex.plan.Plan` after ``api``, its name.

    The ports of the ``front`` are left to it.
    """
    taken = {*front, *(spec.networking.local_port for spec in config.apis if spec.networking.local_port)}
    given: dict[str, range] = {}
    found = []
    for spec in config.apis:
        resolved = _resolved(spec, config.path.absolute().parent)
        port = spec.networking.local_port or ports.expected(home, spec.name, taken)
        taken.add(port)
        given[spec.name] = neuron_cores.expected(home, spec, given)
        place = _place(resolved, home, host, port, given[spec.name].start)
        found.append({"api": spec.name, **asdict(plan(resolved, place))})
    return tuple(found)


def model_server_command(spec: APISpec) -> tuple[str, ...]:
    """Return the command of an API's model server, without flags; whether that program is there is another question."""
    command = model_server.command(spec, sys.executable)
    other = os.environ.get("CORTEX_TENSORFLOW_MODEL_SERVER")
    return (other,) if other and not model_server.is_ours(command) else command


def _place(spec: APISpec, home: Home, host: str, port: int, neuron_core: int) -> Place:
    directory = home.api(spec.name)
    return Place(
        revision=REVISION,
        directory=directory.revision(REVISION),
        run_dir=directory.run_dir / REVISION,
        host=host,
        port=port,
        python=sys.executable,
        model_server=model_server_command(spec),
        cores=threads.available(),
        nodes=devices.nodes(),
        gpus=spec.compute.gpu,
        neuron_core=neuron_core,
        gpu_engine=model_format.gpu_engine(Path(model.path) for model in spec.predictor.models),
        shared_metrics=True,
        notices=tuple(unused(spec)),
    )


def _resolved(spec: APISpec, project: Path) -> APISpec:
    """Return a spec whose models are where the yaml has them; ``models_dir`` is looked into when it is there."""
    rows = foreseen(spec, project)
    return spec.with_models(row.model_copy(update={"path": _absolute(row.path, project)}) for row in rows)


def _absolute(path: str, project: Path) -> str:
    return path if is_remote(path) else str(local_path(path, project))
