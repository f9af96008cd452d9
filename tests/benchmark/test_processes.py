"""What is read from /proc, and that nothing is left running."""

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from benchmark import processes
from benchmark.machine import this_machine
from cortex.pid import lives

# Two processes, of which the outer one does not end when it is asked to.
STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"])
child.wait()
signal.pause()
"""


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    env = os.environ | {"BENCHMARK_TEST": str(os.getpid())}
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, env=env)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        for each in processes.family(process.pid):
            each.kill()
        process.wait()
        process.stdout.close()


def test_family_and_memory(child: subprocess.Popen[bytes]) -> None:
    """A family is a process and all it started; its memory is more than nothing, and shared pages count once in PSS."""
    family = processes.family(child.pid)
    assert len(family) == 2
    memory = processes.memory(family)
    assert 0 < memory.pss < memory.rss
    assert memory.rss == pytest.approx(sum(each.memory_info().rss for each in family) / 1e6, rel=0.2)


def test_found_by_environment(child: subprocess.Popen[bytes]) -> None:
    """Processes are found by a variable that they inherited, whoever their parent is."""
    found = {each.pid for each in processes.with_environment("BENCHMARK_TEST", str(os.getpid()))}
    assert found == {each.pid for each in processes.family(child.pid)}


def test_maps(child: subprocess.Popen[bytes]) -> None:
    """A mapped library is found by a part of its name."""
    assert processes.maps(psutil.Process(child.pid), "libc")
    assert not processes.maps(psutil.Process(child.pid), "libtensorflow")


def test_end(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ignores SIGTERM is killed, and so is what it started; what is gone already is no error."""
    monkeypatch.setattr(processes, "_SECONDS_TO_END", 0.3)
    family = processes.family(child.pid)
    processes.end_child(child)
    assert child.returncode is not None
    assert not any(lives(each) for each in family)
    assert processes.family(child.pid) == []
    processes.end(family)
    assert processes.memory(family).rss == 0


def test_machine() -> None:
    """The machine is named by processor, cores and memory."""
    machine = this_machine()
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.memory_gb > 0
    assert machine.cpu in str(machine)
