"""How many cores there are to compute on, from a machine's own files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cortex import threads


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def siblings(cores: list[list[int]]) -> dict[str, str]:
    """Return the topology files of these cores, each a list of its hardware threads."""
    return {
        f"sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list": ",".join(map(str, core)) + "\n"
        for core in cores
        for processor in core
    }


TWO_BY_TWO = siblings([[0, 2], [1, 3]])
V2 = {"proc/self/cgroup": "0::/pod/box\n"}
QUOTA, PERIOD = (f"sys/fs/cgroup/cpu/box/cpu.cfs_{name}_us" for name in ("quota", "period"))
V1 = {"proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n1:name=systemd:/box\n"}


@pytest.mark.parametrize(
    ("files", "processors", "expected"),
    [
        pytest.param({}, {0, 1, 2}, 3, id="nothing known of the topology"),
        pytest.param(TWO_BY_TWO, {0, 1, 2, 3}, 2, id="hardware threads count once"),
        pytest.param(TWO_BY_TWO, {0, 2}, 1, id="the mask allows both threads of one core"),
        pytest.param(TWO_BY_TWO, {0, 1}, 2, id="the mask allows one thread of each core"),
        pytest.param(V2 | {"sys/fs/cgroup/pod/box/cpu.max": "200000 100000\n"}, set(range(8)), 2, id="v2 quota"),
        pytest.param(V2 | {"sys/fs/cgroup/pod/box/cpu.max": "150000 100000\n"}, set(range(8)), 2, id="v2 rounded up"),
        pytest.param(V2 | {"sys/fs/cgroup/pod/box/cpu.max": "20000 100000\n"}, set(range(8)), 1, id="v2 below one"),
        pytest.param(V2 | {"sys/fs/cgroup/pod/box/cpu.max": "max 100000\n"}, set(range(8)), 8, id="v2 without limit"),
        pytest.param(
            V2 | {"sys/fs/cgroup/pod/box/cpu.max": "max 100000", "sys/fs/cgroup/pod/cpu.max": "300000 100000"},
            set(range(8)),
            3,
            id="v2 the group around it has the limit",
        ),
        pytest.param(V2 | {"sys/fs/cgroup/cpu.max": "400000 100000"}, set(range(8)), 4, id="v2 in a container"),
        pytest.param(
            V1 | {QUOTA: "250000", PERIOD: "100000"},
            set(range(8)),
            3,
            id="v1 quota",
        ),
        pytest.param(
            V1 | {QUOTA: "-1", PERIOD: "100000"},
            set(range(8)),
            8,
            id="v1 without limit",
        ),
        pytest.param(V2 | {"sys/fs/cgroup/pod/box/cpu.max": "garbage"}, {0, 1}, 2, id="garbage is no limit"),
    ],
)
def test_cores_come_from_topology_mask_and_control_group(
    tmp_path: Path, files: dict[str, str], processors: set[int], expected: int
) -> None:
    """Hardware threads of a core count once, a quota counts rounded up, and what cannot be read does not count."""
    assert threads.available(machine(tmp_path, files), processors) == expected


def test_this_process_is_held_to_its_own_mask() -> None:
    """A process that was bound to one processor has one core, whatever the machine has."""
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); from cortex import threads; print(threads.available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
