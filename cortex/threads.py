"""How many cores there are to compute on: the one place that engines, servers, workers and plans ask.

A thread for each hardware thread, or for each core of a machine of which a container may use two, is the classic way
to lose a third of the speed.
"""

import math
import os
from collections.abc import Iterable, Set
from pathlib import Path

_ROOT = Path("/")


def available(root: Path = _ROOT, processors: Set[int] | None = None) -> int:
    """Return the physical cores that this process may use: at least 1.

    They are those of its affinity mask (``processors``), hardware threads of one core counted once, and no more than
    the processor time that its control group may use. ``root`` is where ``proc`` and ``sys`` are mounted.
    """
    allowed = os.sched_getaffinity(0) if processors is None else processors
    cores = len({_core(root, processor) for processor in allowed})
    return max(1, min([cores, *(math.ceil(limit) for limit in _limits(root))]))


def _core(root: Path, processor: int) -> str:
    """Return what the hardware threads of one core have in common."""
    siblings = root / f"sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list"
    return _read(siblings).strip() or str(processor)


def _limits(root: Path) -> Iterable[float]:
    """Yield the processors' worth of time that each control group around this process may use (versions 2 and 1)."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for group in _upwards(root / "sys/fs/cgroup", path):
                quota, _, period = _read(group / "cpu.max").partition(" ")
                yield from _share(quota, period)
        elif "cpu" in controllers.split(","):
            for group in _upwards(root / "sys/fs/cgroup/cpu", path):
                yield from _share(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))


def _upwards(mount: Path, path: str) -> Iterable[Path]:
    """Yield a group and those around it. In a container its path may be the host's: then the mount itself is it."""
    group = mount / path.strip("/")
    while group != mount:
        yield group
        group = group.parent
    yield mount


def _share(quota: str, period: str) -> Iterable[float]:
    """Yield quota / period, or nothing without a limit (``max`` or -1)."""
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return
    if share > 0:
        yield share


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
