"""The plan as services of a compose file: exact for the example, and by rule for what differs."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cortex.environments.docker import compose, compose_file, shares
from cortex.environments.docker.compose import Images, Run
from cortex.environments.docker.images import Shelf
from cortex.environments.docker.packages import Packages
from cortex.environments.docker.stats import parse
from cortex.environments.fields import FieldError
from cortex.spec import APISpec, Autoscaling, Compute, Model, Networking, Predictor, ServerSideBatching
from tests.waiting import DEADLINE, until

GOLDEN = Path(__file__).with_name("docker_compose.yaml")


def _run(*, spec: dict[str, Any] | None = None, predictor: dict[str, Any] | None = None, **options: Any) -> Run:
    row = Predictor(
        **{"type": "tensorflow", "path": "predictor.py", "models": (Model(path="/cache/abc"),), **(predictor or {})}
    )
    fields = {"name": "iris", "predictor": row, "networking": Networking(endpoint="/iris"), **(spec or {})}
    values = {"revision": "0123", "token": "t0k3n", "directory": "/home/apis/iris/revisions/0123", "cores": 4}
    return Run(
        **{**values, "spec": APISpec(**fields), "images": Images("cortex-api:1", "cortex-ms:1"), "gpus": 0, **options}
    )


def _servers(run: Run) -> list[dict[str, Any]]:
    return [row for name, row in compose.services(run).items() if "-model-server-" in name]


def _workers(run: Run) -> list[dict[str, Any]]:
    return [row for name, row in compose.services(run).items() if "-api-" in name]


def test_the_whole_file_of_an_api() -> None:
    """One API of two workers, its model server, its volumes and the front, as they are written."""
    batching = ServerSideBatching(max_batch_size=8, batch_interval=0.005)
    run = _run(predictor={"processes_per_replica": 2, "server_side_batching": batching, "env": {"PRICE": "5$"}})
    front = compose.front("nginx:stable", "/home/front", ["127.0.0.1:80:8080"])
    document = compose_file.rendered([run], front, {}, {})
    assert compose_file.text(document) == GOLDEN.read_text()


def test_every_service_is_confined() -> None:
    """No container is root, writes to its image, or gains a privilege; each ends by its own drain."""
    services = compose_file.rendered([_run()], compose.front("nginx", "/f", []), {}, {})["services"]
    for row in services.values():
        assert (row["user"], row["read_only"], row["cap_drop"]) == ("10001:10001", True, ["ALL"])
        assert row["security_opt"] == ["no-new-privileges:true"]
        assert row["stop_grace_period"] == "75s"
        assert all(mount["read_only"] for mount in row["volumes"] if mount["type"] == "bind")
    assert services["front"]["stop_signal"] == "SIGQUIT"


def test_replicas_have_their_own_model_server_and_volume() -> None:
    """autoscaling.init_replicas is the number of replicas, which share nothing but the front's sockets."""
    run = _run(spec={"autoscaling": Autoscaling(init_replicas=3)}, predictor={"processes_per_replica": 2})
    assert (len(_servers(run)), len(_workers(run))) == (3, 6)
    assert list(compose.volumes(run)) == ["iris-t0k3n-0", "iris-t0k3n-1", "iris-t0k3n-2"]
    assert len({row["volumes"][0]["source"] for row in _servers(run)}) == 3
    sockets = [row["environment"]["CORTEX_LISTEN"] for row in _workers(run)]
    assert len(set(sockets)) == 6
    links = compose.links(run.spec, run.name)
    assert sorted(f"unix:/run/front/{target[3:]}" for target in links.values()) == sorted(sockets)
    assert sorted(f"unix:/run/front/{link}" for link in links) == sorted(compose.upstreams(run.spec))


def test_a_python_api_has_no_model_server() -> None:
    """Its workers have the models themselves."""
    run = _run(predictor={"type": "python"})
    assert not _servers(run)
    assert "/models/abc" in [mount["target"] for mount in _workers(run)[0]["volumes"]]
    assert "depends_on" not in _workers(run)[0]


def test_models_are_where_the_resolved_spec_says() -> None:
    """The spec that a worker reads, the model server's configuration and the mounts agree."""
    run = _run()
    assert '"/models/abc"' in run.files["resolved.json"]
    assert 'base_path: "/models/abc"' in run.files["models.config"]
    assert "/models/abc" in [mount["target"] for mount in _servers(run)[0]["volumes"]]


@pytest.mark.parametrize(
    ("machine", "devices"),
    [(0, []), (4, [["0", "1"], ["2", "3"]])],
)
def test_each_replica_has_gpus_of_its_own(machine: int, devices: list[list[str]]) -> None:
    """GPUs are reserved by their numbers; on a machine without any, nothing is."""
    run = _run(spec={"compute": Compute(gpu=2), "autoscaling": Autoscaling(init_replicas=2)}, gpus=machine)
    rows = [row["deploy"]["resources"]["reservations"]["devices"][0] for row in _servers(run) if "deploy" in row]
    assert [row["device_ids"] for row in rows] == devices
    assert all((row["driver"], row["capabilities"]) == ("nvidia", ["gpu"]) for row in rows)


def test_more_gpus_than_there_are_is_refused() -> None:
    """Every replica has its own; on a machine without any, the API runs on the CPU."""
    spec = {"compute": Compute(gpu=2), "autoscaling": Autoscaling(init_replicas=2)}
    for machine in (0, 4):
        shares.check(_run(spec=spec, gpus=machine), frozenset())
    with pytest.raises(FieldError, match="2 replicas of 2 GPUs are more than this machine's 3") as caught:
        shares.check(_run(spec=spec, gpus=3), frozenset())
    assert caught.value.field == "autoscaling.init_replicas"


@pytest.mark.parametrize(("taken", "first"), [(set(), 0), ({0}, 1), ({1}, 2), ({2}, 0), ({0, 3}, 1)])
def test_inferentia_devices_are_in_a_row(taken: set[int], first: int) -> None:
    """Those of a run are the first next to each other that no other API has."""
    run = _run(spec={"compute": Compute(inf=1), "autoscaling": Autoscaling(init_replicas=2)})
    assert [*shares.shared(run, taken).neuron_devices] == [first, first + 1]


def test_neuron_devices_are_mounted() -> None:
    """Each of the model servers of an Inferentia chip sees the device, and NeuronCores of its own."""
    run = _run(spec={"compute": Compute(inf=1)}, predictor={"processes_per_replica": 2})
    assert [row["devices"] for row in _servers(run)] == [["/dev/neuron0:/dev/neuron0"]] * 2
    assert [row["environment"]["NEURON_RT_VISIBLE_CORES"] for row in _servers(run)] == ["0-1", "2-3"]
    assert _servers(run)[0]["entrypoint"][3:] == ["tensorflow_model_server_neuron"]


def test_compute_limits_the_model_server() -> None:
    """cpu is a limit, never above what the machine has; mem is kept free for it."""
    (row,) = _servers(_run(spec={"compute": Compute(cpu="1500m", mem="1Gi")}))
    assert (row["cpus"], row["mem_reservation"]) == (1.5, 2**30)
    (row,) = _servers(_run(spec={"compute": Compute(cpu="64")}))
    assert row["cpus"] == 4.0


@pytest.mark.parametrize("predictor", [{"type": "python"}, {"type": "onnx"}])
def test_compute_limits_workers_that_compute_themselves(predictor: dict[str, Any]) -> None:
    """What a replica may take is shared by its workers, each of which is a container."""
    run = _run(spec={"compute": Compute(cpu="3", mem="1Gi")}, predictor={**predictor, "processes_per_replica": 2})
    rows = list(compose.services(run).values())
    assert [(row["cpus"], row["mem_reservation"]) for row in rows] == [(1.5, 2**29)] * 2


def test_workers_of_a_model_server_have_no_limit() -> None:
    """They wait for it; on Inferentia the model servers share what a replica may take."""
    inferentia = {"compute": Compute(inf=1, cpu="3")}
    rows = compose.services(_run(spec=inferentia, predictor={"processes_per_replica": 2})).values()
    assert [row.get("cpus") for row in rows] == [1.5, 1.5, None, None]


def test_tensorflow_serving_takes_the_place_of_our_model_server() -> None:
    """An image of TF Serving gets its own program's name and flags, and no health check of ours."""
    (row,) = _servers(_run(predictor={"tensorflow_serving_image": "tensorflow/serving:2.19.1"}))
    assert row["entrypoint"][3:] == ["tensorflow_model_server"]
    assert "--grpc_socket_path=/run/cortex/model-server-0.sock" in row["command"]
    assert not [flag for flag in row["command"] if flag.startswith("--engine")]
    assert "healthcheck" not in row


@pytest.mark.parametrize(
    ("registry", "compute", "predictor", "api", "model_server"),
    [
        ("", {}, {}, "cortex-api:{v}", "cortex-model-server:{v}"),
        ("r.io/x/", {}, {}, "r.io/x/cortex-api:{v}", "r.io/x/cortex-model-server:{v}"),
        ("", {"gpu": 1}, {}, "cortex-api:{v}", "cortex-model-server-gpu:{v}"),
        ("", {"inf": 1}, {}, "cortex-api:{v}", "cortex-model-server-neuron:{v}"),
        ("", {}, {"model_server": "tensorflow_model_server"}, "cortex-api:{v}", "tensorflow/serving:2.19.1"),
        ("", {}, {"image": "a/b:1", "tensorflow_serving_image": "c:2"}, "a/b:1", "c:2"),
    ],
)
def test_images(registry: str, compute: dict[str, Any], predictor: dict[str, Any], api: str, model_server: str) -> None:
    """The yaml's own images first, else ours, from the registry of the environment."""
    import cortex

    spec = _run(spec={"compute": Compute(**compute)}, predictor=predictor).spec
    images = Shelf(registry).images(spec, gpus=1, packages=Packages({}))
    assert images.api == api.format(v=cortex.__version__)
    assert images.model_server == model_server.format(v=cortex.__version__)


def test_nothing_in_the_file_is_a_variable() -> None:
    """compose replaces $NAME by a variable of the shell; ours are texts."""
    run = _run(predictor={"env": {"A": "$HOME"}})
    assert _workers(run)[0]["environment"]["A"] == "$$HOME"
    assert compose.services(replace(run, directory="/a$b"))["iris-t0k3n-0-api-0"]["volumes"][1]["source"].startswith(
        "/a$$b"
    )


def test_counts_of_several_workers_are_summed() -> None:
    """Each worker tells its own, in Prometheus' form."""
    one = (
        'cortex_requests_total{status="2XX"} 3.0\ncortex_requests_total{status="4XX"} 1.0\n'
        'cortex_request_duration_seconds_bucket{le="0.1"} 4.0\n'
        "cortex_request_duration_seconds_count 4.0\ncortex_request_duration_seconds_sum 0.2\n"
    )
    stats = parse(f"# HELP x\n{one}\n{one}")
    assert (stats.code_2xx, stats.code_4xx, stats.code_5xx, stats.latency_ms) == (6, 2, 0, pytest.approx(50))


def test_a_model_server_ends_after_its_workers(tmp_path: Path) -> None:
    """An engine that stops tells all containers at once, and what the workers still have needs the model server."""
    server, worker = compose.services(_run()).values()
    script = server["entrypoint"][2].replace("$$", "$").replace("/run/cortex", str(tmp_path))
    lock = worker["environment"]["CORTEX_LOCK"].replace("/run/cortex", str(tmp_path))
    ended = tmp_path / "ended"
    ends = "trap 'sleep {1}; echo {0} >>ended; exit 0' TERM; touch {0}; while :; do sleep 0.1; done"
    listen = [sys.executable, str(Path(__file__).parents[3] / "deploy/listen.py")]
    commands = {
        "server": ["sh", "-c", script, "sh", "-c", ends.format("server", 0)],
        "worker": [*listen, "sh", "-c", ends.format("worker", 1)],
    }
    env = {**os.environ, "CORTEX_LOCK": lock, "CORTEX_LISTEN": f"unix:{tmp_path}/worker.sock"}
    started = {name: subprocess.Popen(argv, cwd=tmp_path, env=env) for name, argv in commands.items()}
    try:
        until(lambda: all((tmp_path / name).exists() for name in started))
        for process in started.values():
            process.terminate()
        for process in started.values():
            process.wait(DEADLINE)
        assert ended.read_text().split() == ["worker", "server"]
    finally:
        for process in started.values():
            process.kill()


def test_a_model_server_that_dies_is_told_of(tmp_path: Path) -> None:
    """Its exit code is its container's, and SIGHUP, upon which it reads its files again, reaches it."""
    (server,) = _servers(_run())
    script = server["entrypoint"][2].replace("$$", "$")
    dies = "trap 'exit 7' HUP; echo started; while :; do sleep 0.1; done"
    with subprocess.Popen(["sh", "-c", script, "sh", "-c", dies], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert process.wait(DEADLINE) == 7


def test_the_golden_file_is_yaml() -> None:
    """What is written is what is read back."""
    assert set(yaml.safe_load(GOLDEN.read_text())) == {"services", "volumes", "x-files"}
