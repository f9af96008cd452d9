"""The machine that a load was sent from: figures mean little without it."""

import platform

import psutil

import cortex
from cortex import processors
from cortex.loadtest import units


def facts() -> dict[str, str]:
    """Return what the machine is, as words in the order to show them. Names neither the host nor its user."""
    return {
        "processor": processors.model(),
        "cores": f"{len(psutil.Process().cpu_affinity() or ())} usable of {psutil.cpu_count()}",
        "memory": units.size(psutil.virtual_memory().total),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cortex": cortex.__version__,
    }
