"""The processors of a machine by NUMA node and core, read from a tree like Linux' own."""

from pathlib import Path

from cortex.topology import Topology, this_topology


def test_topology(tmp_path: Path) -> None:
    """Sockets are NUMA nodes; hardware threads of one core are one core; the affinity mask and the group bound both."""
    for node, processors in enumerate(("0-1,4-5", "2-3,6-7")):
        (tmp_path / f"sys/devices/system/node/node{node}").mkdir(parents=True)
        (tmp_path / f"sys/devices/system/node/node{node}/cpulist").write_text(processors + "\n")
    for number in range(8):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    whole = this_topology(tmp_path, set(range(8)))
    assert whole.nodes == (((0, 4), (1, 5)), ((2, 6), (3, 7)))
    assert whole == Topology({0: ((0, 4), (1, 5)), 1: ((2, 6), (3, 7))}, 4)
    assert whole.cores(1) == ((2, 6), (3, 7))
    assert whole.cores(2) == ()
    assert this_topology(tmp_path, {0, 1, 5}) == Topology({0: ((0,), (1, 5))}, 2)
    assert this_topology(tmp_path, {0, 1, 5}).nodes == (), "there is one node to be used"
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
    limited = this_topology(tmp_path, set(range(8)))
    assert len(limited.cores()) == 2
    assert limited.nodes == (), "which cores may compute is the control group's choice"


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    """Where Linux lists neither nodes nor cores, as in some containers, each processor is a core of one socket."""
    assert this_topology(tmp_path, {1, 3}) == Topology({0: ((1,), (3,))}, 2)
