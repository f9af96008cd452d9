"""What `cortex env info` prints for people."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cortex.console.table import bold, table

if TYPE_CHECKING:
    from cortex.environments.devices import Device, Found
    from cortex.environments.engines import EngineStatus
    from cortex.environments.machine import Machine

_GI = 2**30


def described(machine: "Machine") -> str:
    """Return a machine as tables, with the reason for everything that is missing."""
    processors, memory = machine.processors, machine.memory
    rows = [
        ["processor", processors.model],
        ["cores", f"{processors.cores} to use ({processors.logical} hardware threads in the machine)"],
        ["features", ", ".join(processors.features) or "none that matter here"],
        ["memory", f"{_size(memory.total)} ({_size(memory.available)} free)"],
        ["gpus", _devices(machine.gpus)],
        ["neuron devices", _devices(machine.neuron)],
    ]
    width = max(len(name) for name, _ in rows)
    facts = "\n".join(f"{bold(name.ljust(width))}   {value}" for name, value in rows)
    return f"{facts}\n\n{_engines(machine.engines)}"


def _devices(found: "Found") -> str:
    shown = "; ".join(map(_device, found.devices))
    if not shown:
        return found.problem
    return f"{shown} ({found.problem})" if found.problem else shown


def _device(device: "Device") -> str:
    parts = [
        device.name,
        f"{device.cores} NeuronCores" if device.cores else "",
        _size(device.memory_bytes) if device.memory_bytes else "",
        f"driver {device.driver}" if device.driver else "",
    ]
    known = ", ".join(filter(None, parts))
    return f"{device.id}: {known}" if known else device.id


def _engines(engines: "Iterable[EngineStatus]") -> str:
    rows = [
        [engine.name, engine.version or "-", ", ".join(engine.providers) or "-", engine.problem or "can run here"]
        for engine in engines
    ]
    return table(["engine", "version", "computes on", "state"], rows)


def _size(number: int) -> str:
    return f"{number / _GI:.1f} GiB"
