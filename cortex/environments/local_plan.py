"""Turn one resolved spec into the processes that serve it on this machine. Pure: nothing is started, made or asked.

cpu, gpu      one model server for all workers of the API
accelerator   one model server for each worker, on a group of NeuronCores of its own
python, onnx  no model server: the workers run the model themselves
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cortex.plan import Plan, ProcessPlan
from cortex.protos import model_server_config_pb2, text_format
from cortex.quantity import parse_quantity
from cortex.spec import APISpec, ServerSideBatching

NEURON_CORES_PER_INF = 4


@dataclass(frozen=True)
class Place:
    """Where one run of one revision is to happen."""

    revision: str
    directory: Path
    """Holds ``resolved.json`` and ``project/``."""
    run_dir: Path
    host: str
    port: int
    python: str
    """The interpreter that runs the workers."""
    model_server: tuple[str, ...]
    """The command of the model server, without flags."""
    cores: int
    gpus: int
    notices: tuple[str, ...] = ()


def plan(spec: APISpec, place: Place) -> Plan:
    """Return the plan of one run. Sockets, metrics and generated files are all inside ``place.run_dir``."""
    servers = _model_servers(spec, place)
    processes = spec.predictor.processes_per_replica
    return Plan(
        revision=place.revision,
        host=place.host,
        port=place.port,
        run_dir=str(place.run_dir),
        back=servers,
        front=tuple(_worker(spec, place, index, servers) for index in range(processes)),
        files=_files(spec),
        stop_first=spec.update_strategy.max_surge in (0, "0%"),
        notices=place.notices,
    )


def _worker(spec: APISpec, place: Place, index: int, servers: tuple[ProcessPlan, ...]) -> ProcessPlan:
    # -P: the project's own files must not stand in for installed packages of the same name
    argv = [place.python, "-P", "-m", "cortex.api.server", "--spec", str(place.directory / "resolved.json")]
    argv += ["--worker", str(index)]
    if servers:
        argv += ["--model-server", f"unix:{servers[index % len(servers)].ready}"]
    env = {
        **spec.predictor.env,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(place.run_dir / "metrics"),
        "CORTEX_NOTICES": json.dumps(place.notices),
    }
    return ProcessPlan(f"api-{index}", tuple(argv), cwd=str(place.directory / "project"), ready="notify", env=env)


def _model_servers(spec: APISpec, place: Place) -> tuple[ProcessPlan, ...]:
    if spec.predictor.type != "tensorflow":
        return ()
    if not spec.compute.inf:
        return (_model_server(spec, place, 0, _device_env(spec, place)),)
    count = spec.predictor.processes_per_replica
    group = NEURON_CORES_PER_INF * spec.compute.inf // count
    return tuple(_model_server(spec, place, index, _neuron_env(index, group)) for index in range(count))


def _model_server(spec: APISpec, place: Place, index: int, env: Mapping[str, str]) -> ProcessPlan:
    socket = place.run_dir / f"model-server-{index}.sock"
    flags = [
        "--port=0",
        "--rest_api_port=0",
        f"--grpc_socket_path={socket}",
        f"--model_config_file={place.run_dir / 'models.config'}",
        "--max_num_load_retries=0",  # a model that does not load now is a failed deployment, at once
        *_thread_flags(spec, place),
    ]
    if spec.predictor.server_side_batching:
        flags += ["--enable_batching", f"--batching_parameters_file={place.run_dir / 'batching.config'}"]
    argv = (*place.model_server, *flags)
    return ProcessPlan(f"model-server-{index}", argv, cwd=str(place.directory), ready=str(socket), env=env)


def _thread_flags(spec: APISpec, place: Place) -> list[str]:
    cpu = parse_quantity(spec.compute.cpu) if spec.compute.cpu is not None else place.cores
    threads = max(1, min(place.cores, math.ceil(cpu)))
    if spec.predictor.model_server == "tensorflow_model_server" or spec.compute.inf:
        return [f"--tensorflow_intra_op_parallelism={threads}"]
    return [
        f"--engine={_engine(spec, place)}",
        f"--precision={spec.predictor.precision}",
        f"--inference_threads={threads}",
    ]


def _engine(spec: APISpec, place: Place) -> str:
    """Return the engine to ask for; of those that choose by themselves, only TensorFlow computes on a GPU."""
    on_gpu = spec.predictor.engine == "auto" and min(spec.compute.gpu, place.gpus)
    return "tensorflow" if on_gpu else spec.predictor.engine


def _device_env(spec: APISpec, place: Place) -> dict[str, str]:
    visible = min(spec.compute.gpu, place.gpus)
    # a key that the user's shell has for another model server would lock the workers out of this one
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(visible))), "CORTEX_MODEL_SERVER_API_KEY": ""}


def _neuron_env(index: int, group: int) -> dict[str, str]:
    first = index * group
    cores = str(first) if group == 1 else f"{first}-{first + group - 1}"
    return {"NEURON_RT_VISIBLE_CORES": cores, "NEURONCORE_GROUP_SIZES": str(group)}


def _files(spec: APISpec) -> dict[str, str]:
    files = {"metrics/.keep": ""}
    if spec.predictor.type == "tensorflow":
        files["models.config"] = _model_config(spec)
    if spec.predictor.server_side_batching:
        files["batching.config"] = _batching_config(spec.predictor.server_side_batching, spec)
    return files


def _model_config(spec: APISpec) -> str:
    config = model_server_config_pb2.ModelServerConfig()
    for model in spec.predictor.models:
        row = config.model_config_list.config.add(name=model.name, base_path=model.path, model_platform="tensorflow")
        row.model_version_policy.all.SetInParent()
    return text_format.MessageToString(config)


def _batching_config(batching: ServerSideBatching, spec: APISpec) -> str:
    rows = {
        "max_batch_size": batching.max_batch_size,
        "batch_timeout_micros": round(batching.batch_interval * 1e6),
        "num_batch_threads": spec.predictor.processes_per_replica,
    }
    return "".join(f"{name} {{ value: {value} }}\n" for name, value in rows.items())
