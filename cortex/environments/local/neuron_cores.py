"""Which NeuronCores an API has. A core belongs to one process, so no two APIs are given the same.

Commands agree on it through the ``neuron_cores`` files under CORTEX_HOME, which say ``4-7``. An API has its cores for
as long as one of its revisions runs on them: it keeps them over updates, and gives them back with the last of these.
"""

import contextlib
import itertools
from collections.abc import Mapping

from cortex.environments import devices
from cortex.environments.fields import FieldError
from cortex.environments.local.plan import NEURON_CORES_PER_INF
from cortex.environments.state import APIDirectory, Home
from cortex.errors import UserError
from cortex.spec import APISpec


def assign(home: Home, spec: APISpec) -> range:
    """Choose and record the cores of an API: those that it had, else the first chip that no other API has.

    Empty when it asks for none. FieldError when this machine has none left.
    """
    if not spec.compute.inf:
        return range(0)
    with home.lock(".neuron", wait=True):
        others, there = _held(home, but=spec.name), _there()
        found = _chosen(home, spec, others)
        if found.stop > there:
            raise FieldError("compute.inf", _none_left(others, there))
        home.api(spec.name).assign_neuron_cores(found)
        return found


def expected(home: Home, spec: APISpec, taken: Mapping[str, range]) -> range:
    """Return the cores that `assign` would choose when those of ``taken`` were assigned too, on any machine."""
    return _chosen(home, spec, {**_held(home, but=spec.name), **taken}) if spec.compute.inf else range(0)


def _chosen(home: Home, spec: APISpec, others: Mapping[str, range]) -> range:
    size = NEURON_CORES_PER_INF * spec.compute.inf
    taken = {core for cores in others.values() for core in cores}
    had = home.api(spec.name).neuron_cores()
    if len(had) == size and not taken & set(had):
        return had
    firsts = itertools.count(0, NEURON_CORES_PER_INF)  # a group is never on two chips
    return next(cores for first in firsts if not taken & set(cores := range(first, first + size)))


def _held(home: Home, but: str) -> dict[str, range]:
    """Return the cores of every other API that runs on some, or is about to."""
    apis = [home.api(path.parent.name) for path in home.root.glob("apis/*/neuron_cores")]
    return {api.name: api.neuron_cores() for api in apis if api.name != but and (home.busy(api.name) or _runs_on(api))}


def _runs_on(api: APIDirectory) -> bool:
    """Tell whether a revision of an API that runs, also one that is being drained, is on NeuronCores."""
    status = api.status()
    with contextlib.suppress(UserError):  # an API that is damaged does not take the others along
        return any(api.resolved(revision).compute.inf for revision in (status.in_use if status else ()))
    return False


def _there() -> int:
    """Return how many NeuronCores this machine has; where neuron-ls does not say, as many as Inferentia (inf1)."""
    return sum(device.cores or NEURON_CORES_PER_INF for device in devices.neuron().devices)


def _none_left(others: Mapping[str, range], there: int) -> str:
    have = ", ".join(f"{name} has {cores[0]}-{cores[-1]}" for name, cores in sorted(others.items()))
    return (
        f"no chip is left of this machine's {there} NeuronCores: {have}; `cortex delete {min(others)}` first, or "
        "deploy on a machine with more"
    )
