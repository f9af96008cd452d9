"""The processors and the memory of this machine, as `cortex env info` tells them."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from cortex import threads
from cortex.processors import cpuinfo, model

_ROOT = Path("/")
_FEATURES = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "amx": ("amx_tile",),
    "neon": ("asimd",),
    "sve": ("sve",),
    "i8mm": ("i8mm",),
}
"""What matters to inference, and the kernel's names for it; any one of them will do."""


@dataclass(frozen=True)
class Processors:
    """The processors that this process may use."""

    model: str
    cores: int
    """Physical cores, within the affinity mask and the control group."""
    logical: int
    """Hardware threads of the whole machine."""
    features: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """Bytes. ``total`` is no more than the control group may have."""

    total: int
    available: int


def processors(root: Path = _ROOT) -> Processors:
    """Read ``proc/cpuinfo`` below ``root``; what it does not say is told by the platform, or left out."""
    info = cpuinfo(root)
    flags = set(info.get("flags", info.get("Features", "")).split())
    features = tuple(name for name, names in _FEATURES.items() if flags & set(names))
    return Processors(model(root), threads.available(), os.cpu_count() or 1, features)


def memory(root: Path = _ROOT) -> Memory:
    """Return what there is for processes, within the limit of a container."""
    machine = psutil.virtual_memory()
    limit = min([machine.total, *_limits(root / "sys/fs/cgroup")])
    return Memory(limit, min(machine.available, limit))


def _limits(cgroup: Path) -> list[int]:
    """Return the limits of memory that control groups of version 2 and 1 set; ``max`` is none."""
    found = []
    for file in (cgroup / "memory.max", cgroup / "memory/memory.limit_in_bytes"):
        try:
            found.append(int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return [limit for limit in found if limit > 0]
