"""What computes on this machine: found by its tools, or by its driver's files; told why when it is not."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cortex.environments import devices, tool
from cortex.environments.devices import Device

STANDINS = Path(__file__).parents[1] / "standins"
Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that puts a shell script on the PATH, which has nothing else but the system's own."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def write(name: str, script: str) -> None:
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)

    return write


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """A /dev without any device."""
    (tmp_path / "dev").mkdir()
    return tmp_path / "dev"


def test_the_stand_ins_are_what_is_asked(monkeypatch: pytest.MonkeyPatch, dev: Path) -> None:
    """What the tools print becomes values; the stand-ins refuse any other question."""
    monkeypatch.setenv("PATH", f"{STANDINS}:/usr/local/bin:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert all((STANDINS / name).stat().st_mode & stat.S_IXUSR for name in ("nvidia-smi", "neuron-ls"))
    gpus, chips = devices.nvidia(dev), devices.neuron(dev)
    assert gpus.devices == tuple(Device(index, "Tesla T4", 15360 * 2**20, "535.104.05") for index in "01")
    assert chips.devices == (Device("0", memory_bytes=8 * 2**30, cores=4),)
    assert gpus.problem == chips.problem == ""


def test_nothing_at_all(install: Install, dev: Path) -> None:
    """Both places that were looked at are named."""
    found = devices.nvidia(dev)
    assert found.devices == ()
    assert found.problem == f"no NVIDIA GPU: nvidia-smi is not on the PATH, and there is no {dev}/nvidia0"


def test_a_driver_without_its_tool(install: Install, dev: Path) -> None:
    """The device files are counted, other files of the driver are not, and the reason for knowing no more is told."""
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "neuron0"):
        (dev / name).touch()
    assert devices.nvidia(dev) == devices.Found(
        (Device("0"), Device("1"), Device("10")), "nvidia-smi is not on the PATH"
    )
    assert devices.neuron(dev).ids == ("0",)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'driver/library version mismatch'; exit 18", "nvidia-smi failed: driver/library version mismatch (exit"),
        ("echo oops >&2; exit 1", "nvidia-smi failed: oops (exit code 1)"),
        ("exit 9", "nvidia-smi failed: it said nothing (exit code 9)"),
        ("kill -SEGV $$", "nvidia-smi failed: "),
        ("true", "nvidia-smi lists none"),
    ],
)
def test_an_nvidia_smi_that_says_no(script: str, problem: str, install: Install, dev: Path) -> None:
    """A driver that its own tool cannot talk to is of no use, although its files are there."""
    install("nvidia-smi", script)
    (dev / "nvidia0").touch()
    found = devices.nvidia(dev)
    assert found.devices == ()
    assert found.problem.startswith(f"no NVIDIA GPU: {problem}")
    assert "\n" not in found.problem


@pytest.mark.parametrize(
    "script",
    [
        "echo 'Tesla T4'",
        "echo 'a, b, c, d'",
        r"printf '\377\376 \033[2J'",
        "echo '0, T4, 15360, 1, and more'",
    ],
)
def test_an_nvidia_smi_that_talks_nonsense(script: str, install: Install, dev: Path) -> None:
    """What it printed is told, safe to print, and the files decide."""
    install("nvidia-smi", script)
    (dev / "nvidia0").touch()
    found = devices.nvidia(dev)
    assert found.ids == ("0",)
    assert found.problem.startswith("nvidia-smi printed what cannot be read: ")
    assert found.problem.isprintable()


@pytest.mark.parametrize("script", ["exec sleep 60", "sleep 60"], ids=["itself", "in a process of its own"])
def test_an_nvidia_smi_that_hangs(script: str, install: Install, dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than the limit, and what it started goes with it."""
    monkeypatch.setattr(tool, "SECONDS", 0.2)
    install("nvidia-smi", script)
    assert devices.nvidia(dev).problem.startswith("no NVIDIA GPU: nvidia-smi did not answer within 0.2 s")


def test_memory_that_the_tool_does_not_know(install: Install, dev: Path) -> None:
    """Machines with one memory for all say so in brackets."""
    install("nvidia-smi", "echo '0, NVIDIA GB10, [N/A], 580.1'")
    assert devices.nvidia(dev).devices == (Device("0", "NVIDIA GB10", 0, "580.1"),)


@pytest.mark.parametrize("script", ["exit 1", "echo '{}'", "echo '[1]'", "echo 'not json'", "echo '[{}]'"])
def test_a_neuron_ls_that_does_not_help(script: str, install: Install, dev: Path) -> None:
    """Later releases refuse the question (AWS dropped that output in 2.34): then the driver's files count."""
    install("neuron-ls", script)
    (dev / "neuron0").touch()
    found = devices.neuron(dev)
    assert found.ids == ("0",)
    assert found.problem.startswith("neuron-ls ")


@pytest.mark.parametrize(
    ("visible", "ids"),
    [("1", ("1",)), ("1,0", ("1", "0")), ("0,7", ("0",)), ("GPU-5f", ("GPU-5f",)), ("", ()), ("-1", ()), ("none", ())],
)
def test_the_users_choice_of_gpus_holds(
    visible: str, ids: tuple[str, ...], install: Install, dev: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA_VISIBLE_DEVICES of whoever deploys says which GPUs there are, in its order."""
    for name in ("nvidia0", "nvidia1"):
        (dev / name).touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = devices.nvidia(dev)
    assert found.ids == ids
    assert ids or found.problem == f"no NVIDIA GPU: CUDA_VISIBLE_DEVICES={visible} hides all 2"
