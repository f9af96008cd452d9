"""This machine, as one value: what it computes with, and which engines can use it."""

from dataclasses import dataclass

from cortex.environments import devices, engines, processors
from cortex.environments.devices import Found
from cortex.environments.engines import EngineStatus
from cortex.environments.processors import Memory, Processors


@dataclass(frozen=True)
class Machine:
    """What `cortex env info` tells. Whatever could not be found says why."""

    processors: Processors
    memory: Memory
    gpus: Found
    neuron: Found
    engines: tuple[EngineStatus, ...]


def inspect() -> Machine:
    """Look at this machine. Takes as long as the slowest engine takes to be imported, and no longer than a minute."""
    return Machine(
        processors=processors.processors(),
        memory=processors.memory(),
        gpus=devices.nvidia(),
        neuron=devices.neuron(),
        engines=engines.statuses(),
    )
