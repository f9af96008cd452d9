"""The settings for machines of every shape, and the commands that come of them."""

from pathlib import Path
from typing import Any

import pytest

from benchmark import configuration, container
from benchmark.configuration import Configuration
from benchmark.settings import Settings, decide
from cortex.errors import UserError
from cortex.topology import Topology

ONE_SOCKET = Topology({0: ((0, 4), (1, 5), (2, 6), (3, 7))}, 4)
TWO_SOCKETS = Topology({0: ((0,), (1,)), 1: ((2,), (3,))}, 4)


@pytest.fixture
def asked(tmp_path: Path) -> Any:
    """Make a configuration; the graph is there."""
    (tmp_path / "graph.pb").touch()
    return lambda **options: Configuration(tmp_path / "graph.pb", tmp_path / "out", **options)


def _settings(asked: Configuration, topology: Topology, **environ: str) -> Settings:
    return decide(asked, topology, {}, environ, "/bin/numactl")


@pytest.mark.parametrize(
    ("topology", "options", "intra", "processors", "prefix"),
    [
        (ONE_SOCKET, {}, 4, (), ()),
        (ONE_SOCKET, {"num_cores": 2}, 2, (0, 1, 4, 5), ()),
        (ONE_SOCKET, {"num_cores": 2, "num_intra_threads": 8}, 8, (0, 1, 4, 5), ()),
        (TWO_SOCKETS, {}, 2, (0, 1), ("/bin/numactl", "--cpunodebind=0", "--membind=0")),
        (TWO_SOCKETS, {"socket_id": 1}, 2, (2, 3), ("/bin/numactl", "--cpunodebind=1", "--membind=1")),
        (TWO_SOCKETS, {"socket_id": -1}, 4, (), ()),
        (TWO_SOCKETS, {"num_cores": 3}, 3, (0, 1, 2), ()),
        (TWO_SOCKETS, {"num_cores": 1}, 1, (0,), ("/bin/numactl", "--cpunodebind=0", "--membind=0")),
    ],
)
def test_cores_and_sockets(
    asked: Any, topology: Topology, options: dict[str, int], intra: int, processors: tuple[int, ...], prefix: Any
) -> None:
    """A thread for each physical core, on one socket with its memory, unless more cores are asked for than it has.

    A process that may use all there is, is bound to nothing.
    """
    settings = _settings(asked(**options), topology)
    assert (settings.intra_threads, settings.inter_threads) == (intra, 1)
    assert settings.processors == processors
    assert settings.prefix == prefix
    assert settings.environment["OMP_NUM_THREADS"] == str(intra)


def test_only_tensorflow_reads_the_environment(asked: Any) -> None:
    """The other engines have settings of their own, and are told nothing that they do not read."""
    assert _settings(asked(framework="openvino"), ONE_SOCKET).environment == {}
    with pytest.raises(UserError, match="--num-inter-threads: openvino has none"):
        _settings(asked(framework="openvino", num_inter_threads=2), ONE_SOCKET)


def test_accuracy_sees_every_picture(asked: Any, tmp_path: Path) -> None:
    """With --accuracy-only there is no warm-up, and no end before the pictures'."""
    settings = _settings(asked(measure="accuracy", data_location=tmp_path), ONE_SOCKET)
    assert (settings.steps, settings.warmup_steps) == (0, 0)


def test_without_numactl(asked: Any) -> None:
    """Without numactl the processors are bound all the same, and it is said what is not."""
    settings = decide(asked(), TWO_SOCKETS, {}, {}, None)
    assert settings.prefix == ()
    assert settings.processors == (0, 1)
    assert any(each.name == "NUMACTL" and "memory is not bound" in each.source for each in settings.shown)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"socket_id": 2}, "--socket-id 2: this machine has 0, 1"), ({"num_cores": 5}, "--num-cores 5: there are 4")],
)
def test_what_the_machine_does_not_have(asked: Any, options: dict[str, int], message: str) -> None:
    """A socket or a number of cores that is not there is refused by its flag."""
    with pytest.raises(UserError, match=message):
        _settings(asked(**options), TWO_SOCKETS)


def test_docker_command(asked: Any, tmp_path: Path) -> None:
    """Everything is mounted where it lies outside, only the logs to be written to; start.sh gets no image to run in."""
    launched = asked(data_location=tmp_path / "..", docker_image="engine:1")
    argv = container.command(
        launched, "engine:1", False, tmp_path / "out/last.json", {"NOINSTALL": "True", "HOME": "/root"}
    )
    root = container.ROOT
    assert argv == (
        *("docker", "run", "--rm", "--init", "--cap-add=SYS_NICE"),
        *(f"--volume={root}:{root}:ro", f"--volume={tmp_path}:{tmp_path}:ro"),
        *(f"--volume={tmp_path}/..:{tmp_path}/..:ro", f"--volume={tmp_path}/out:{tmp_path}/out:rw"),
        *(f"--env=CONFIGURATION={tmp_path}/out/last.json", "--env=DOCKER_IMAGE=", "--env=PYTHON=python3"),
        *("--env=PYTHONDONTWRITEBYTECODE=1", "--env=NOINSTALL=True"),
        *(f"--workdir={root}/benchmark", "--entrypoint=bash", "engine:1", "./start.sh"),
    )
    shell = container.command(launched, "engine:1", True, tmp_path / "out/last.json", {})
    assert {"--interactive", "--tty"} <= set(shell)
    assert shell[-1] == "engine:1"


def test_a_configuration_that_cannot_be_kept(asked: Any) -> None:
    """The last one stays as it was, and can be started again."""
    path = configuration.write(asked(batch_size=1))
    path.with_suffix(".unfinished").mkdir()
    with pytest.raises(UserError, match=r"--output-dir .*/out: Is a directory"):
        configuration.write(asked(batch_size=2))
    assert configuration.read(path)["batch_size"] == 1
