"""Turn one resolved spec into the processes that serve it on this machine. Pure: nothing is started, made or asked.

cpu, gpu      one model server for all workers of the API; on a GPU requests are batched
cpu, NUMA     one model server on each node, with workers of its own, where there are workers for all nodes
accelerator   one model server for each worker, on a group of NeuronCores of its own
python, onnx  no model server: the workers run the model themselves

Workers reach a model server over a Unix socket, which TF Serving can open as well (--grpc_socket_path): it is reached
from this machine only, and needs no free port.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cortex.environments.model_server import is_ours
from cortex.plan import Plan, ProcessPlan
from cortex.quantity import parse_quantity
from cortex.spec import APISpec, ServerSideBatching
from cortex.topology import Core

NEURON_CORES_PER_INF = 4
_ARENAS = {"MALLOC_ARENA_MAX": "2"}
"""Of glibc's heap: left to itself each thread of Python keeps one, full of what its last requests needed."""
_KEPT = str(4 * 2**20)
_HEAP = {**_ARENAS, "MALLOC_TRIM_THRESHOLD_": _KEPT, "MALLOC_MMAP_THRESHOLD_": _KEPT}
"""A worker's: what a request frees stays for the next one, which would have 180 page faults otherwise. Either setting
alone would make it worse: glibc then adapts neither."""


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
    nodes: tuple[tuple[Core, ...], ...] = ()
    """The cores of each NUMA node, where processes may be bound to one of several."""
    notices: tuple[str, ...] = ()
    gpu_ids: tuple[str, ...] = ()
    """What CUDA calls the GPUs; their numbers from 0 when not given."""
    neuron_core: int = 0
    """The first of the NeuronCores that are this API's."""
    gpu_engine: str = "tensorflow"
    """What runs these models on a GPU when the yaml leaves that open."""
    shared_metrics: bool = False
    """Whether workers tell the metrics of the model server too. Their files are named by process id, so this is only
    for processes that see each other's."""


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
        stop_first=spec.update_strategy.max_surge in (0, "0%") or _holds_device_alone(spec),
        notices=place.notices,
    )


def _worker(spec: APISpec, place: Place, index: int, servers: tuple[ProcessPlan, ...]) -> ProcessPlan:
    # -P: the project's own files must not stand in for installed packages of the same name
    argv = [*_binding(spec, place, index), place.python, "-P", "-m", "cortex.api.server"]
    argv += ["--spec", str(place.directory / "resolved.json"), "--worker", str(index)]
    if servers:
        argv += ["--model-server", f"unix:{servers[index % len(servers)].ready}"]
    share = 1 if servers else max(1, place.cores // spec.predictor.processes_per_replica)
    env = {
        **_HEAP,
        "OPENCV_FOR_THREADS_NUM": str(share),  # the cores are the model server's, or shared out among the workers
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
        env = _gpu_env(_gpus(spec, place))
        return tuple(_model_server(spec, place, index, env) for index in range(len(_nodes(spec, place)) or 1))
    count = spec.predictor.processes_per_replica
    group = NEURON_CORES_PER_INF * spec.compute.inf // count
    return tuple(
        _model_server(spec, place, index, _neuron_env(place.neuron_core + index * group, group))
        for index in range(count)
    )


def _nodes(spec: APISpec, place: Place) -> tuple[tuple[Core, ...], ...]:
    """Return the NUMA nodes that have processes of their own: all, if each has a worker; none where devices compute."""
    several = len(place.nodes) > 1 and spec.predictor.processes_per_replica >= len(place.nodes)
    return place.nodes if several and not (_gpus(spec, place) or spec.compute.inf) else ()


def _binding(spec: APISpec, place: Place, index: int) -> tuple[str, ...]:
    """Return what keeps a process on the processors of its node; memory is taken where it is first used: there."""
    nodes = _nodes(spec, place)
    if not nodes:
        return ()
    processors = sorted(processor for core in nodes[index % len(nodes)] for processor in core)
    return ("taskset", "--cpu-list", ",".join(map(str, processors)))


def _holds_device_alone(spec: APISpec) -> bool:
    """Tell whether no second revision could start beside this one.

    A NeuronCore belongs to one process until that ends (AWS: Neuron Runtime configuration, NeuronCore allocation). The
    memory of a GPU can be shared, since no model server takes more of it than it needs (`_gpu_env`).
    """
    return bool(spec.compute.inf)


def _model_server(spec: APISpec, place: Place, index: int, env: Mapping[str, str]) -> ProcessPlan:
    socket = place.run_dir / f"model-server-{index}.sock"
    flags = [
        "--port=0",
        "--rest_api_port=0",
        f"--grpc_socket_path={socket}",
        f"--model_config_file={place.run_dir / 'models.config'}",
        "--max_num_load_retries=0",  # a model that does not load now is a failed deployment, at once
        *_engine_flags(spec, place),
        *_batching_flags(spec, place),
    ]
    argv = (*_binding(spec, place, index), *place.model_server, *flags)
    # a key that the user's shell has for another model server would lock the workers out of this one
    env = {**env, "CORTEX_MODEL_SERVER_API_KEY": "", **(_ARENAS if is_ours(place.model_server) else {})}
    if place.shared_metrics and is_ours(place.model_server):
        env["PROMETHEUS_MULTIPROC_DIR"] = str(place.run_dir / "metrics")
    return ProcessPlan(f"model-server-{index}", argv, cwd=str(place.directory), ready=str(socket), env=env)


def _engine_flags(spec: APISpec, place: Place) -> list[str]:
    cpu = parse_quantity(spec.compute.cpu) if spec.compute.cpu is not None else place.cores
    servers = spec.predictor.processes_per_replica if spec.compute.inf else len(_nodes(spec, place)) or 1
    threads = max(1, min(place.cores, math.ceil(cpu)) // servers)
    if not is_ours(place.model_server):
        return [f"--tensorflow_intra_op_parallelism={threads}"]
    return [
        f"--engine={_engine(spec, place)}",
        f"--precision={spec.predictor.precision}",
        f"--inference_threads={threads}",
    ]


def _engine(spec: APISpec, place: Place) -> str:
    """Return the engine to ask for: the model server's own first choice, OpenVINO, cannot use an NVIDIA GPU."""
    if spec.predictor.engine == "auto" and _gpus(spec, place):
        return place.gpu_engine
    return spec.predictor.engine


def _batching_flags(spec: APISpec, place: Place) -> list[str]:
    """Return how requests are joined: as the yaml says; else, on a GPU, as our model server sees fit.

    TF Serving cannot tell which models may be batched, so that it only does when the yaml says so.
    """
    if spec.predictor.server_side_batching:
        return ["--enable_batching", f"--batching_parameters_file={place.run_dir / 'batching.config'}"]
    return ["--batching=auto"] if is_ours(place.model_server) and _gpus(spec, place) else []


def _gpus(spec: APISpec, place: Place) -> tuple[str, ...]:
    """Return the GPUs to use: as many as are asked for and there."""
    names = place.gpu_ids or tuple(map(str, range(place.gpus)))
    return names[: spec.compute.gpu]


def _gpu_env(gpus: Sequence[str]) -> dict[str, str]:
    """Show these GPUs to a process, and let TensorFlow take memory as it needs it, not all there is."""
    growth = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} if gpus else {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus), **growth}


def _neuron_env(first: int, group: int) -> dict[str, str]:
    """Give a process its group of NeuronCores, by the name of Neuron's runtime 2, and by that of runtime 1."""
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
    from google.protobuf import text_format  # these take a tenth of a second, which only a plan waits for

    from cortex.protos import model_server_config_pb2

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
