"""The accelerator target, and TensorFlow Serving in the place of our model server, on stand-ins for the hardware.

The stand-ins (tests/standins) refuse flags that an old TF Serving does not know, NeuronCores that another process has,
and groups that do not go with them.
"""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.deployment import NAME, Cortex, copy_project, post, sample
from tests.waiting import until

pytestmark = pytest.mark.e2e

STANDINS = Path(__file__).parents[1] / "standins"
WORKERS = [f"api-{index}" for index in range(4)]
SERVERS = [f"model-server-{index}" for index in range(4)]


@dataclass
class Equipped(Cortex):
    """A command line on a machine with the stand-ins' hardware."""

    more: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        path = f"{STANDINS}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**super().env, "PATH": path, **self.more}

    def starts(self) -> list[dict[str, Any]]:
        """Return what the stand-ins wrote down, in the order of their starts."""
        lines = (Path(self.more["CORTEX_STANDIN_DIR"]) / "starts.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def equip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Equipped]]:
    """Return a function that makes a machine with its own home; what is left of any is ended."""
    made: list[Equipped] = []

    def machine() -> Equipped:
        notes = str(tmp_path_factory.mktemp("standins"))
        made.append(Equipped(tmp_path_factory.mktemp("home"), {"CORTEX_STANDIN_DIR": notes}))
        return made[-1]

    try:
        yield machine
        for command in made:
            command.clean()
    finally:
        for command in made:
            for pid in command.family():
                psutil.Process(pid).kill()


@pytest.fixture(scope="module")
def inferentia(
    equip: Callable[[], Equipped], tmp_path_factory: pytest.TempPathFactory, models: Path
) -> tuple[Equipped, Path]:
    """Deploy cortex_accelerator.yaml as it is shipped, on one chip."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    shutil.copytree(models / "colours", project / "models/resnet50_neuron")
    cortex = equip()
    cortex("deploy", project / "cortex_accelerator.yaml")
    return cortex, project


def answered(cortex: Equipped) -> Counter[str]:
    """Return how many requests each worker has answered since it was deployed, by its log."""
    logs = cortex.home / "apis" / NAME / "logs"
    return Counter({name: (logs / f"{name}.log").read_text().count("200 OK POST /") for name in WORKERS})


def test_four_groups_four_servers_four_workers(inferentia: tuple[Equipped, Path]) -> None:
    """Each worker has a model server of its own on a NeuronCore of its own: four started, none refused."""
    cortex, _ = inferentia
    assert sorted(cortex.pids()) == WORKERS + SERVERS
    starts = cortex.starts()
    assert {row["program"] for row in starts} == {"tensorflow_model_server_neuron"}
    assert sorted(row["env"]["NEURON_RT_VISIBLE_CORES"] for row in starts) == ["0", "1", "2", "3"]
    assert {row["env"]["NEURONCORE_GROUP_SIZES"] for row in starts} == {"1"}
    assert len({flag for row in starts for flag in row["argv"] if flag.startswith("--grpc_socket_path=")}) == 4


def test_every_worker_is_bound_to_its_own_server(inferentia: tuple[Equipped, Path]) -> None:
    """One to one, by the socket that the server listens on."""
    cortex, _ = inferentia
    commands = {name: psutil.Process(pid).cmdline() for name, pid in cortex.pids().items()}
    for worker, server in zip(WORKERS, SERVERS, strict=True):
        [socket] = [word.partition("=")[2] for word in commands[server] if word.startswith("--grpc_socket_path=")]
        assert f"unix:{socket}" in commands[worker]


def test_requests_reach_every_worker(inferentia: tuple[Equipped, Path]) -> None:
    """Under the load that its threads are made for, each answers sample.json, and each has a fair share of the work."""
    cortex, _ = inferentia
    endpoint, before, requests = str(cortex.get()["endpoint"]), answered(cortex), 256
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: post(endpoint, sample()), range(requests)))
    assert {(answer.status_code, len(answer.json())) for answer in answers} == {(200, 5)}
    until(lambda: (answered(cortex) - before).total() >= requests)
    shares = answered(cortex) - before
    assert min(shares[name] for name in WORKERS) >= requests / len(WORKERS) / 2, shares


def test_a_killed_server_is_started_again_on_its_cores(inferentia: tuple[Equipped, Path]) -> None:
    """The others go on; the new one takes the same NeuronCore; then its worker answers through it again."""
    cortex, _ = inferentia
    before, known = cortex.pids(), len(cortex.starts())
    os.kill(before["model-server-2"], signal.SIGKILL)
    until(lambda: len(cortex.starts()) > known)
    until(lambda: cortex.get()["status"]["status_code"] == "status_live" and None not in cortex.pids().values())
    after = cortex.pids()
    assert {name for name in after if after[name] != before[name]} == {"model-server-2"}
    assert cortex.starts()[-1]["env"]["NEURON_RT_VISIBLE_CORES"] == "2"
    endpoint, count = str(cortex.get()["endpoint"]), answered(cortex)["api-2"]
    until(lambda: post(endpoint, sample()).status_code == 200 and answered(cortex)["api-2"] > count)


def test_an_update_lets_go_of_the_cores_first(inferentia: tuple[Equipped, Path]) -> None:
    """No second revision could start beside the first: `refresh` stops the old one, and the new one has the cores."""
    cortex, _ = inferentia
    before = cortex.pids()
    cortex("refresh", NAME)
    assert not set(before.values()) & set(cortex.pids().values())
    assert post(str(cortex.get()["endpoint"]), sample()).status_code == 200


def test_three_processes_are_refused(inferentia: tuple[Equipped, Path]) -> None:
    """In Cortex's own words, and what runs goes on."""
    cortex, project = inferentia
    yaml = project / "cortex_accelerator.yaml"
    wrong = project / "three.yaml"
    wrong.write_text(yaml.read_text().replace("processes_per_replica: 4", "processes_per_replica: 3"))
    printed = cortex("deploy", wrong, code=1)
    assert (
        "cannot evenly distribute 1 Inferentia ASIC (4 NeuronCores total) over 3 processes - acceptable numbers of "
        "processes are 1, 2, or 4"
    ) in printed
    assert cortex.get()["status"]["status_code"] == "status_live"


def test_a_second_api_finds_no_chip(inferentia: tuple[Equipped, Path]) -> None:
    """The machine has one: the second API is refused in one line, before a process starts, and the first goes on."""
    cortex, project = inferentia
    known = len(cortex.starts())
    (project / "second.yaml").write_text((project / "cortex_accelerator.yaml").read_text().replace(NAME, "second"))
    assert (
        f"second.yaml:18: second: compute.inf: no chip is left of this machine's 4 NeuronCores: {NAME} has 0-3; "
        f"`cortex delete {NAME}` first, or deploy on a machine with more"
    ) in cortex("deploy", project / "second.yaml", code=1)
    assert len(cortex.starts()) == known
    assert cortex.get()["status"]["status_code"] == "status_live"


def test_tensorflow_serving_on_gpus(equip: Callable[[], Equipped], tmp_path: Path, models: Path) -> None:
    """`model_server: tensorflow_model_server`: one server, which sees the GPUs that the user lets it see."""
    project = copy_project(tmp_path, models / "colours")
    yaml = project / "cortex_gpu.yaml"
    text = yaml.read_text().replace("processes_per_replica: 4", "processes_per_replica: 2")
    yaml.write_text(text.replace("  compute:", "    model_server: tensorflow_model_server\n\n  compute:"))
    cortex = equip()
    cortex.more |= {
        "CORTEX_TENSORFLOW_MODEL_SERVER": str(STANDINS / "tensorflow_model_server"),
        "CUDA_VISIBLE_DEVICES": "1",
    }
    assert "without gpu access" not in cortex("deploy", yaml)
    [start] = cortex.starts()
    assert start["program"] == "tensorflow_model_server"
    assert start["env"] == {"CUDA_VISIBLE_DEVICES": "1", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    assert "--enable_batching" in start["argv"]
    assert len(post(str(cortex.get()["endpoint"]), sample()).json()) == 5


def test_a_model_server_that_is_missing(equip: Callable[[], Equipped], tmp_path: Path, models: Path) -> None:
    """One sentence names the line, the program and the variable."""
    project = copy_project(tmp_path, models / "colours")
    yaml = project / "cortex_cpu.yaml"
    yaml.write_text(yaml.read_text().replace("  compute:", "    model_server: tensorflow_model_server\n\n  compute:"))
    cortex = equip()
    cortex.more["CORTEX_TENSORFLOW_MODEL_SERVER"] = str(tmp_path / "nowhere")
    printed = cortex("deploy", yaml, code=1)
    assert (
        f"predictor.model_server: the program {tmp_path / 'nowhere'} was not found; install it, or give its path in "
        "CORTEX_TENSORFLOW_MODEL_SERVER"
    ) in printed
