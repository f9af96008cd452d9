"""The processors of this machine by socket and core, as Linux lists them below ``/sys``."""

import os
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from cortex import threads

_ROOT = Path("/")

Core = tuple[int, ...]
"""The numbers of one core's hardware threads."""


@dataclass(frozen=True)
class Topology:
    """What this process may use: the cores of each socket, and how many of them its control group lets compute.

    A socket is a NUMA node, under the number that ``numactl`` and ``--socket-id`` know it by.
    """

    sockets: dict[int, tuple[Core, ...]]
    available: int

    def cores(self, socket: int | None = None) -> tuple[Core, ...]:
        """Return the cores of one socket, or of all, as many as may compute at once."""
        chosen = [core for number, cores in self.sockets.items() if socket in (None, number) for core in cores]
        return tuple(chosen[: self.available])

    @property
    def nodes(self) -> tuple[tuple[Core, ...], ...]:
        """The cores of each NUMA node, where there are several and all of their cores may compute; else nothing."""
        nodes = tuple(self.sockets.values())
        return nodes if len(nodes) > 1 and sum(map(len, nodes)) <= self.available else ()


def this_topology(root: Path = _ROOT, processors: Set[int] | None = None) -> Topology:
    """Read the topology. ``root`` is where ``proc`` and ``sys`` are mounted, ``processors`` the affinity mask."""
    allowed = os.sched_getaffinity(0) if processors is None else processors
    nodes = {int(path.name[4:]): _numbers(path / "cpulist") & allowed for path in _nodes(root)} or {0: allowed}
    sockets = {number: _cores(root, members) for number, members in sorted(nodes.items()) if members}
    return Topology(sockets or {0: _cores(root, allowed)}, threads.available(root, allowed))


def _nodes(root: Path) -> list[Path]:
    return [path for path in root.glob("sys/devices/system/node/node*") if path.name[4:].isdecimal()]


def _cores(root: Path, processors: Set[int]) -> tuple[Core, ...]:
    siblings = {each: _siblings(root, each) & processors or {each} for each in processors}
    return tuple(sorted({tuple(sorted(each)) for each in siblings.values()}))


def _siblings(root: Path, processor: int) -> Set[int]:
    return _numbers(root / f"sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")


def _numbers(path: Path) -> Set[int]:
    """Return the numbers of a list such as ``0-3,8``; none where there is no such file."""
    try:
        parts = [part.partition("-") for part in path.read_text(encoding="ascii").strip().split(",") if part]
        return {number for low, _, high in parts for number in range(int(low), int(high or low) + 1)}
    except (OSError, ValueError):
        return set()
