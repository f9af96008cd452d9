"""The machine that figures belong to."""

import os
import platform
from dataclasses import dataclass

import psutil

from cortex import processors


@dataclass(frozen=True)
class Machine:
    cpu: str
    cores: int
    """Processors that this process may use."""
    memory_gb: float
    system: str
    python: str

    def __str__(self) -> str:
        return f"{self.cores} cores of {self.cpu}, {self.memory_gb:.0f} GB, {self.system}, Python {self.python}"


def this_machine() -> Machine:
    """Describe the machine that this runs on."""
    return Machine(
        cpu=processors.model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )
