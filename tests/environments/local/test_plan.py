"""Plans are pure: for any target, on any machine, the exact processes that would run."""

from dataclasses import replace
from pathlib import Path

import pytest

from cortex.environments.local.plan import Place, plan
from cortex.environments.model_server import command
from cortex.spec import APISpec

PLACE = Place(
    revision="r1",
    directory=Path("/home/apis/a/revisions/r1"),
    run_dir=Path("/run/a/x"),
    host="0.0.0.0",
    port=8888,
    python="/venv/bin/python",
    model_server=("/venv/bin/python", "-P", "-m", "cortex.model_server"),
    cores=8,
    gpus=0,
    notices=("random weights",),
)


def spec(**fields: object) -> APISpec:
    predictor = {
        "type": "tensorflow",
        "path": "predictor.py",
        "models": ({"name": "_cortex_default", "path": "/cache/d1"},),
        **fields.pop("predictor", {}),  # type: ignore[dict-item]
    }
    return APISpec.model_validate({"name": "a", "predictor": predictor, **fields})


def test_cpu_is_one_model_server_and_a_worker_per_process() -> None:
    """All workers of a CPU target share one model server, over a Unix socket inside the run directory."""
    made = plan(spec(predictor={"processes_per_replica": 2, "env": {"A": "1"}}), PLACE)
    server, first, second = *made.back, *made.front
    assert server.argv == (
        *PLACE.model_server,
        "--port=0",
        "--rest_api_port=0",
        "--grpc_socket_path=/run/a/x/model-server-0.sock",
        "--model_config_file=/run/a/x/models.config",
        "--max_num_load_retries=0",
        "--engine=auto",
        "--precision=auto",
        "--inference_threads=8",
    )
    assert (server.ready, server.env) == (
        "/run/a/x/model-server-0.sock",
        {"CUDA_VISIBLE_DEVICES": "", "CORTEX_MODEL_SERVER_API_KEY": "", "MALLOC_ARENA_MAX": "2"},
    )
    assert first.argv == (
        *("/venv/bin/python", "-P", "-m", "cortex.api.server"),
        *("--spec", "/home/apis/a/revisions/r1/resolved.json", "--worker", "0"),
        *("--model-server", "unix:/run/a/x/model-server-0.sock"),
    )
    assert first.cwd == "/home/apis/a/revisions/r1/project"
    assert first.ready == "notify"
    assert first.env == {
        "A": "1",
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TRIM_THRESHOLD_": "4194304",
        "MALLOC_MMAP_THRESHOLD_": "4194304",
        "OPENCV_FOR_THREADS_NUM": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PROMETHEUS_MULTIPROC_DIR": "/run/a/x/metrics",
        "CORTEX_NOTICES": '["random weights"]',
    }
    assert second.argv[-4:] == ("--worker", "1", "--model-server", "unix:/run/a/x/model-server-0.sock")
    assert 'base_path: "/cache/d1"' in made.files["models.config"]


@pytest.mark.parametrize(
    ("cpu", "threads"), [(None, 8), ("200m", 1), ("1500m", 2), ("4", 4), ("64", 8)], ids=lambda value: f"cpu={value}"
)
def test_threads_follow_compute_cpu(cpu: str | None, threads: int) -> None:
    """The engine gets as many threads as the yaml's cpu, rounded up, and never more than there are cores."""
    argv = plan(spec(compute={"cpu": cpu}), PLACE).back[0].argv
    assert argv[-1] == f"--inference_threads={threads}"


def test_gpu_shows_the_server_its_devices() -> None:
    """One model server, that sees as many GPUs as were asked for and are there, and shares their memory."""
    made = plan(spec(compute={"gpu": 2}, predictor={"processes_per_replica": 4}), replace(PLACE, gpus=4))
    [server] = made.back
    assert server.env == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "CORTEX_MODEL_SERVER_API_KEY": "",
        "MALLOC_ARENA_MAX": "2",
    }
    assert "--engine=tensorflow" in server.argv, "OpenVINO, the first choice of auto, has no NVIDIA GPUs"
    assert not made.stop_first, "a new revision can start beside the old one on the same GPU"


def test_gpus_are_called_what_cuda_calls_them() -> None:
    """The user's own choice of devices is kept, in its order."""
    place = replace(PLACE, gpus=2, gpu_ids=("3", "GPU-5f"))
    for asked, visible in ((1, "3"), (2, "3,GPU-5f"), (4, "3,GPU-5f"), (0, "")):
        assert plan(spec(compute={"gpu": asked}), place).back[0].env["CUDA_VISIBLE_DEVICES"] == visible


def test_a_gpu_that_is_missing_leaves_the_cpus_plan() -> None:
    """The plan is that of the CPU, to the letter."""
    assert plan(spec(compute={"gpu": 1}), PLACE) == plan(spec(), PLACE)


@pytest.mark.parametrize(
    ("engine", "made_for", "asked"),
    [
        ("auto", "tensorflow", "tensorflow"),
        ("auto", "onnxruntime", "onnxruntime"),
        ("openvino", "onnxruntime", "openvino"),
        ("tensorflow", "onnxruntime", "tensorflow"),
    ],
)
def test_the_engine_on_a_gpu(engine: str, made_for: str, asked: str) -> None:
    """What reads the models there, unless the yaml says which one it must be."""
    place = replace(PLACE, gpus=1, gpu_engine=made_for)
    made = plan(spec(compute={"gpu": 1}, predictor={"engine": engine}), place)
    assert f"--engine={asked}" in made.back[0].argv


@pytest.mark.parametrize(
    ("gpu", "server", "batching", "flags"),
    [
        (1, "cortex", False, ["--batching=auto"]),
        (1, "cortex", True, ["--enable_batching", "--batching_parameters_file=/run/a/x/batching.config"]),
        (
            1,
            "tensorflow_model_server",
            True,
            ["--enable_batching", "--batching_parameters_file=/run/a/x/batching.config"],
        ),
        (1, "tensorflow_model_server", False, []),
        (0, "cortex", False, []),
    ],
)
def test_batching_is_on_where_it_pays(gpu: int, server: str, batching: bool, flags: list[str]) -> None:
    """On a GPU our model server batches by itself; TF Serving only when told, since not every model can be batched."""
    predictor: dict[str, object] = {"model_server": server, "threads_per_process": 32}
    if batching:
        predictor["server_side_batching"] = {"max_batch_size": 32, "batch_interval": 0.1}
    asked = spec(compute={"gpu": gpu}, predictor=predictor)
    made = plan(asked, replace(PLACE, model_server=command(asked, "python"), gpus=1))
    assert [flag for flag in made.back[0].argv if "batching" in flag] == flags


def test_tensorflow_serving_is_told_its_own_flags_only() -> None:
    """The real server knows none of ours, and a flag that it does not know keeps it from starting."""
    place = replace(PLACE, model_server=("/opt/tensorflow_model_server",), gpus=1)
    made = plan(spec(compute={"gpu": 1}, predictor={"model_server": "tensorflow_model_server"}), place)
    assert made.back[0].argv == (
        "/opt/tensorflow_model_server",
        "--port=0",
        "--rest_api_port=0",
        "--grpc_socket_path=/run/a/x/model-server-0.sock",
        "--model_config_file=/run/a/x/models.config",
        "--max_num_load_retries=0",
        "--tensorflow_intra_op_parallelism=8",
    )
    assert made.back[0].env["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


@pytest.mark.parametrize(
    ("processes", "cores"), [(1, ["0-3"]), (2, ["0-1", "2-3"]), (4, ["0", "1", "2", "3"])], ids=str
)
def test_accelerator_is_one_model_server_per_worker(processes: int, cores: list[str]) -> None:
    """Each worker has a model server of its own, on its own group of NeuronCores."""
    place = replace(PLACE, model_server=("/opt/tensorflow_model_server_neuron",))
    made = plan(spec(compute={"inf": 1}, predictor={"processes_per_replica": processes}), place)
    assert [server.env["NEURON_RT_VISIBLE_CORES"] for server in made.back] == cores
    assert {server.env["NEURONCORE_GROUP_SIZES"] for server in made.back} == {str(4 // processes)}
    assert [worker.argv[-1] for worker in made.front] == [f"unix:{server.ready}" for server in made.back]
    threads = f"--tensorflow_intra_op_parallelism={8 // processes}"
    assert made.back[0].argv[-1] == threads, "the real server knows none of our flags, and its kin share the cores"
    assert made.stop_first, "a NeuronCore belongs to one process until that ends"


TWO_NODES = replace(PLACE, cores=4, nodes=(((0, 4), (1, 5)), ((2, 6), (3, 7))))


def test_each_numa_node_has_a_model_server_and_workers() -> None:
    """Workers and a model server of one node stay on its processors, and ask each other; the threads are shared out."""
    made = plan(spec(predictor={"processes_per_replica": 3}), TWO_NODES)
    first, second = ("taskset", "--cpu-list", "0,1,4,5"), ("taskset", "--cpu-list", "2,3,6,7")
    assert [server.argv[:3] for server in made.back] == [first, second]
    assert [worker.argv[:3] for worker in made.front] == [first, second, first]
    sockets = [f"unix:{server.ready}" for server in made.back]
    assert [worker.argv[-1] for worker in made.front] == [sockets[0], sockets[1], sockets[0]]
    assert {server.argv[-1] for server in made.back} == {"--inference_threads=2"}


@pytest.mark.parametrize(
    ("fields", "gpus"),
    [({}, 0), ({"predictor": {"processes_per_replica": 2}, "compute": {"gpu": 1}}, 1)],
    ids=["one worker", "a GPU"],
)
def test_numa_nodes_that_are_not_told_apart(fields: dict[str, object], gpus: int) -> None:
    """One worker can ask one model server, which then has all cores; and a GPU computes wherever the process runs."""
    made = plan(spec(**fields), replace(TWO_NODES, gpus=gpus))
    assert len(made.back) == 1
    assert not any("taskset" in process.argv for process in (*made.back, *made.front))


@pytest.mark.parametrize("kind", ["python", "onnx"])
def test_python_and_onnx_need_no_model_server(kind: str) -> None:
    """The workers of these types run the model themselves."""
    made = plan(spec(predictor={"type": kind, "processes_per_replica": 2}), PLACE)
    assert made.back == ()
    assert "--model-server" not in made.front[0].argv
    assert made.front[0].env["OPENCV_FOR_THREADS_NUM"] == "4", "they share the eight cores"


def test_batching_writes_tf_servings_own_file() -> None:
    """`server_side_batching` becomes TF Serving's batching parameters, in its units."""
    batching = {"max_batch_size": 32, "batch_interval": 0.1}
    made = plan(spec(predictor={"server_side_batching": batching, "threads_per_process": 32}), PLACE)
    assert made.back[0].argv[-2:] == ("--enable_batching", "--batching_parameters_file=/run/a/x/batching.config")
    assert made.files["batching.config"] == (
        "max_batch_size { value: 32 }\nbatch_timeout_micros { value: 100000 }\nnum_batch_threads { value: 1 }\n"
    )


@pytest.mark.parametrize(("surge", "first"), [(0, True), ("0%", True), (1, False), ("25%", False)])
def test_max_surge_zero_stops_the_old_revision_first(surge: str | int, first: bool) -> None:
    """Without room for a second revision the old one must end before the new one starts."""
    assert plan(spec(update_strategy={"max_surge": surge}), PLACE).stop_first is first
