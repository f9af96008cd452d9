"""The machine that a load was sent from: figures mean little without it."""

import platform
from pathlib import Path

import psutil

import cortex
from cortex.loadtest import units

_CPUINFO = Path("/proc/cpuinfo")


def facts() -> dict[str, str]:
    """Return what the machine is, as words in the order to show them. Names neither the host nor its user."""
    return {
        "processor": _processor(),
        "cores": f"{len(psutil.Process().cpu_affinity() or ())} usable of {psutil.cpu_count()}",
        "memory": units.size(psutil.virtual_memory().total),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cortex": cortex.__version__,
    }


def _processor() -> str:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
