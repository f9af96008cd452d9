"""The GPUs and NeuronCores of this machine, or why there are none. Looking is bounded in time and never fails."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cortex.environments.tool import Refused, ask, last_line
from cortex.topology import Core, this_topology

_DEV = Path("/dev")
_NVIDIA_SMI = (
    "nvidia-smi",
    "--query-gpu=index,name,memory.total,driver_version",
    "--format=csv,noheader,nounits",
)
_NEURON_LS = ("neuron-ls", "--json-output")
_MI = 2**20


@dataclass(frozen=True)
class Device:
    """One GPU or Inferentia chip. What its own tool did not say is empty or 0."""

    id: str
    """What CUDA calls the GPU; the number of the Neuron device."""
    name: str = ""
    memory_bytes: int = 0
    driver: str = ""
    cores: int = 0
    """NeuronCores; 0 for a GPU, whose cores nobody assigns."""


@dataclass(frozen=True)
class Found:
    """What was found of one kind. ``problem`` says why there is nothing, or why less is known than could be."""

    devices: tuple[Device, ...] = ()
    problem: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(device.id for device in self.devices)


@dataclass(frozen=True)
class Kind:
    """How one kind of device is found: by its tool, or else by the files that its driver makes."""

    title: str
    command: tuple[str, ...]
    file: str
    """What the names of its device files begin with; a number follows."""
    parse: Callable[[str], tuple[Device, ...]]
    """Reads what the tool prints; raises Refused when that is not what it should be."""
    failure_is_final: bool
    """Whether a tool that fails means that the devices do not work, although their files are there."""

    def find(self, dev: Path = _DEV) -> Found:
        """Ask the tool; where it is missing or does not answer, count the device files."""
        try:
            devices = self.parse(ask(self.command))
        except Refused as error:
            files = _numbered(dev, self.file)
            if not files or (error.failed and self.failure_is_final):
                return Found(
                    problem=f"no {self.title}: {error}{'' if files else f', and there is no {dev / self.file}0'}"
                )
            return Found(tuple(map(Device, files)), str(error))
        return Found(devices, "" if devices else f"no {self.title}: {self.command[0]} lists none")


def _gpus(output: str) -> tuple[Device, ...]:
    """Read the rows of nvidia-smi: index, name, MiB (or a remark in brackets), version of the driver."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(output.splitlines()) if row]
    if any(len(row) != 4 or not row[0].isdecimal() for row in rows):
        raise Refused(f"nvidia-smi printed what cannot be read: {last_line(output)}")
    return tuple(
        Device(index, name, int(memory) * _MI if memory.isdecimal() else 0, driver)
        for index, name, memory, driver in rows
    )


def _chips(output: str) -> tuple[Device, ...]:
    """Read the JSON of neuron-ls before Neuron 2.34: a list of devices."""
    try:
        rows = json.loads(output)
        if not isinstance(rows, list):
            raise TypeError("not a list")
        return tuple(
            Device(str(int(row["neuron_device"])), cores=int(row["nc_count"]), memory_bytes=int(row["memory_size"]))
            for row in rows
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused(f"neuron-ls printed what cannot be read: {last_line(output)}") from None


_NVIDIA = Kind("NVIDIA GPU", _NVIDIA_SMI, "nvidia", _gpus, failure_is_final=True)
_NEURON = Kind("AWS Inferentia device", _NEURON_LS, "neuron", _chips, failure_is_final=False)


def nodes() -> tuple[tuple[Core, ...], ...]:
    """Return the cores of each NUMA node to which processes can be bound: nothing where there is one, or no taskset."""
    return this_topology().nodes if shutil.which("taskset") else ()


def nvidia(dev: Path = _DEV) -> Found:
    """Return the GPUs that a process of this user sees: those of ``CUDA_VISIBLE_DEVICES``, when that is set."""
    found = _NVIDIA.find(dev)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not found.devices:
        return found
    known = {device.id: device for device in found.devices}
    wanted = [name.strip() for name in visible.split(",")]
    shown = tuple(
        known.get(name, Device(name)) for name in wanted if name in known or name.startswith(("GPU-", "MIG-"))
    )
    if shown:
        return Found(shown, found.problem)
    return Found(problem=f"no NVIDIA GPU: CUDA_VISIBLE_DEVICES={visible} hides all {len(found.devices)}")


def neuron(dev: Path = _DEV) -> Found:
    """Return the Inferentia devices."""
    return _NEURON.find(dev)


def _numbered(dev: Path, name: str) -> list[str]:
    """Return the numbers of the device files of a name, in order."""
    numbers = (path.name.removeprefix(name) for path in dev.glob(f"{name}[0-9]*"))
    return sorted((number for number in numbers if number.isdecimal()), key=int)
