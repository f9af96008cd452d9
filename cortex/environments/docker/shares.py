"""What a run gets of this machine's devices: as many as its replicas ask for, and no Inferentia device twice."""

import dataclasses
import itertools
from collections.abc import Set

from cortex.environments import devices
from cortex.environments.docker.compose import Run
from cortex.environments.fields import FieldError


def shared(run: Run, taken: Set[int]) -> Run:
    """Return a run on the first Inferentia devices in a row that other APIs have not ``taken``; nothing is checked."""
    count = len(run.neuron_devices)
    first = next(first for first in itertools.count() if not taken & {*range(first, first + count)})
    return dataclasses.replace(run, neuron_device=first)


def check(run: Run, taken: Set[int]) -> None:
    """Refuse a run whose replicas ask for more devices than this machine has left. FieldError names the field."""
    gpus = run.spec.compute.gpu * run.spec.replicas
    if run.gpus and gpus > run.gpus:
        raise FieldError(
            "autoscaling.init_replicas",
            f"{run.spec.replicas} replicas of {run.spec.compute.gpu} GPUs are more than this machine's {run.gpus}",
        )
    if run.neuron_devices.stop > (there := len(devices.neuron().devices) if run.spec.compute.inf else 0):
        others = f", of which other APIs have {len(taken)}: `cortex delete` one of them first" if taken else ""
        asked = len(run.neuron_devices)
        raise FieldError(
            "compute.inf", f"{asked} Inferentia devices are asked for, and this machine has {there}{others}"
        )
