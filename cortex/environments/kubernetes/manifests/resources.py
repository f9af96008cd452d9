"""What the containers of a pod are given: cores, memory, devices."""

from typing import Any

from cortex.environments.kubernetes.manifests.release import Release
from cortex.environments.local.plan import NEURON_CORES_PER_INF
from cortex.quantity import in_thousandths, parse_quantity

_DEFAULT_CPU = "200m"
"""Cortex's own, for an API that says nothing of cores."""


def resources(release: Release, *, holds_device: bool, servers: int) -> dict[str, Any]:
    """Return what one container is given: half of cores and memory for the API, as in Cortex, half for its servers.

    No limit of cores: it would make a request wait while cores are idle. A container may use all of the memory.
    """
    compute = release.spec.compute
    sides = 2 if servers else 1
    share = sides * (servers if holds_device and servers else 1)
    requests = {"cpu": _part(compute.cpu or _DEFAULT_CPU, share)}
    limits: dict[str, str] = {}
    if compute.mem is not None:
        requests["memory"] = _part(compute.mem, share)
        limits["memory"] = compute.mem
    if holds_device and compute.gpu:
        limits["nvidia.com/gpu"] = str(compute.gpu)
    if holds_device and compute.inf:
        limits.update(_neuron(compute.inf, servers))
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _neuron(chips: int, servers: int) -> dict[str, str]:
    """Return what is asked of the Neuron device plugin: devices, or NeuronCores when several containers share one.

    On inf1 with a plugin before 1.5 the device was called ``aws.amazon.com/infa`` (Cortex 0.18) or
    ``aws.amazon.com/neurondevice``.
    """
    if servers <= 1:
        return {"aws.amazon.com/neuron": str(chips)}
    return {"aws.amazon.com/neuroncore": str(NEURON_CORES_PER_INF * chips // servers)}


def _part(quantity: str, share: int) -> str:
    """Return a share of a quantity: cores in thousandths, memory in bytes."""
    value = parse_quantity(quantity) / share
    if value < 1024:
        return in_thousandths(value)
    return str(round(value)) if value % 1024**2 else f"{round(value / 1024**2)}Mi"
