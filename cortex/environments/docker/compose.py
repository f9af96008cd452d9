"""A plan as services of a compose file. Pure: nothing is made, started or asked.

A replica is one container per worker and one per model server. They share a volume at ``/run/cortex``, where the model
server opens its socket. Every worker listens on a socket of its own in the volume ``front``, which nginx has too: that
needs no network, no port and no name, and a container that comes back under another address is still found.

``/run/front/NAME/REPLICA-WORKER.sock`` is a link to the socket of the run that answers; `changeover` turns it from one
run to the next. A run is one start of a revision: ``NAME-TOKEN`` begins the names of its services, volumes and sockets.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex.environments import model_server, nginx
from cortex.environments.local import plan as local_plan
from cortex.plan import Plan, ProcessPlan
from cortex.quantity import parse_quantity
from cortex.spec import APISpec

Service = dict[str, Any]
FRONT = "front"
FRONT_SOCKETS = "/run/front"
FRONT_PORT, FRONT_TLS_PORT = 8080, 8443
NEURON_DEVICE = "/dev/neuron"
USER = "10001:10001"
STOP_GRACE = "75s"
"""Longer than a drain of a worker or of a model server takes."""
_CORTEX = Path("/cortex")
_RUN_DIR = Path("/run/cortex")
_MODELS = Path("/models")
_FRONT_FILE = "/etc/nginx/cortex/nginx.conf"
_NEWER = f"/tmp/{nginx.NEWER}"  # noqa: S108  # the container's own
_WORKERS = str(_RUN_DIR / "workers.lock")
"""Locked by every worker of a replica while it runs."""
_WORKERS_SECONDS = 65
_SERVE = "; ".join(
    (
        "trap 'kill -HUP $!' HUP",
        f"trap 'flock -w {_WORKERS_SECONDS} {_WORKERS} true; kill $! || exit' TERM",
        '"$0" "$@" & while kill -0 $! 2>/dev/null; do wait $!; code=$?; done',
        "exit $code",
    )
)
"""Run a model server that ends after its workers: an engine that stops tells all containers at once."""
_START_FRONT = "; ".join(
    (
        f"mkdir -p {_NEWER}",
        f"echo '{nginx.KEEP_IDLE}' >{_NEWER}/idle.conf",
        f"nginx -t -q -e stderr -c {_FRONT_FILE} 2>/dev/null || rm {_NEWER}/idle.conf",
        f"exec nginx -e stderr -c {_FRONT_FILE}",
    )
)


@dataclass(frozen=True)
class Images:
    """What the containers of an API are made from."""

    api: str
    model_server: str


@dataclass(frozen=True)
class Run:
    """One start of one revision. Paths are the host's; ``spec`` has its models where they are on the host."""

    spec: APISpec
    revision: str
    token: str
    directory: str
    """The revision's: it has ``project/``, and `files` in ``containers/``."""
    images: Images
    cores: int
    gpus: int
    """NVIDIA GPUs of the machine; without any, the API runs on the CPU."""
    neuron_device: int = 0
    """The first of the Inferentia devices that are this run's: no other API has them."""
    gpu_engine: str = "tensorflow"
    notices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.spec.name}-{self.token}"

    @property
    def neuron_devices(self) -> range:
        """The numbers of the Inferentia devices of all replicas."""
        return range(self.neuron_device, self.neuron_device + self.spec.replicas * self.spec.compute.inf)

    @property
    def contained(self) -> APISpec:
        """The spec with its models where a container has them."""
        return self.spec.with_models(
            model.model_copy(update={"path": str(_MODELS / Path(model.path).name)})
            for model in self.spec.predictor.models
        )

    @property
    def plan(self) -> Plan:
        """The processes of one replica, as they are in its containers."""
        place = local_plan.Place(
            revision=self.revision,
            directory=_CORTEX,
            run_dir=_RUN_DIR,
            host="",
            port=0,
            python="python",
            model_server=model_server.command(self.spec, "python", self.spec.predictor.tensorflow_serving_image),
            cores=self.cores,
            gpus=self.gpus,
            gpu_engine=self.gpu_engine,
            notices=self.notices,
        )
        return local_plan.plan(self.contained, place)

    @property
    def files(self) -> Mapping[str, str]:
        """What has to be in ``containers/`` of the revision's directory, by name."""
        generated = {name: text for name, text in self.plan.files.items() if not name.startswith("metrics/")}
        return {"resolved.json": self.contained.model_dump_json(indent=2), **generated}


def services(run: Run) -> dict[str, Service]:
    """Return the services of a run by name, model servers first."""
    plan = run.plan
    found: dict[str, Any] = {}
    for replica in range(run.spec.replicas):
        behind = [_service_name(run, replica, process) for process in plan.back]
        for index, process in enumerate(plan.back):
            found[behind[index]] = _model_server(run, replica, index, process) | _resources(run, len(behind))
        for index, process in enumerate(plan.front):
            found[_service_name(run, replica, process)] = _worker(run, replica, index, process, behind)
    return dict(literal(found))


def volumes(run: Run) -> dict[str, Any]:
    """Return the volumes of a run by name."""
    return {f"{run.name}-{replica}": {} for replica in range(run.spec.replicas)}


def links(spec: APISpec, run: str) -> dict[str, str]:
    """Return the links in `FRONT_SOCKETS` that lead to a run of an API, each with where it leads."""
    return {f"{spec.name}/{worker}.sock": f"../{run}-{worker}.sock" for worker in _workers(spec)}


def upstreams(spec: APISpec) -> tuple[str, ...]:
    """Return where nginx finds the workers of an API, of whichever run."""
    return tuple(f"unix:{FRONT_SOCKETS}/{spec.name}/{worker}.sock" for worker in _workers(spec))


def _workers(spec: APISpec) -> list[str]:
    return [f"{r}-{i}" for r in range(spec.replicas) for i in range(spec.predictor.processes_per_replica)]


def front(image: str, directory: str, ports: list[str]) -> Service:
    """Return the service of nginx; ``directory`` has its configuration and certificates."""
    sockets = {"type": "volume", "source": FRONT, "target": FRONT_SOCKETS}
    return {
        "image": image,
        "entrypoint": ["sh", "-c"],
        "command": [_START_FRONT],
        **_confined(),
        "stop_signal": "SIGQUIT",  # nginx answers what it has, too
        "ports": ports,
        "volumes": [_bind(directory, "/etc/nginx/cortex"), sockets],
    }


def literal(value: Any) -> Any:
    """Return a value that compose reads as it is: every ``$`` in it is one."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {literal(key): literal(each) for key, each in value.items()}
    return [literal(each) for each in value] if isinstance(value, list) else value


def _service_name(run: Run, replica: int, process: ProcessPlan) -> str:
    return f"{run.name}-{replica}-{process.name}"


def _worker(run: Run, replica: int, index: int, process: ProcessPlan, behind: list[str]) -> Service:
    # files of metrics are named by the process's number, which is the same in all containers
    env = {name: value for name, value in process.env.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    mounts = [_file(run, "resolved.json"), _bind(f"{run.directory}/project", str(_CORTEX / "project"))]
    mounts += [] if behind else _models(run)
    service: Service = {
        "image": run.images.api,
        "entrypoint": ["python", "/opt/cortex/listen.py"],
        **_container(run, replica, dataclasses.replace(process, env=env), mounts),
    }
    listen = f"unix:{FRONT_SOCKETS}/{run.name}-{replica}-{index}.sock"
    service["environment"]["CORTEX_LISTEN"] = service["labels"]["cortex.listen"] = listen
    service["volumes"].append({"type": "volume", "source": FRONT, "target": FRONT_SOCKETS})
    if behind:
        service["environment"]["CORTEX_LOCK"] = _WORKERS
        return {**service, "depends_on": behind}
    return {**service, **_resources(run, run.spec.predictor.processes_per_replica), **_devices(run, replica)}


def _model_server(run: Run, replica: int, index: int, process: ProcessPlan) -> Service:
    ours = process.argv[0] == "python"
    mounts = [*(_file(run, name) for name in run.files if name != "resolved.json"), *_models(run)]
    return {
        "image": run.images.model_server,
        "entrypoint": ["sh", "-c", _SERVE, process.argv[0]],
        **_container(run, replica, dataclasses.replace(process, argv=process.argv[1:]), mounts),
        **({"healthcheck": _listens(process.ready)} if ours else {}),
        **_devices(run, replica, index),
    }


def _container(run: Run, replica: int, process: ProcessPlan, mounts: list[dict[str, Any]]) -> Service:
    return {
        "command": list(process.argv),
        "working_dir": process.cwd,
        **_confined(),
        "environment": dict(process.env),
        "labels": {
            "cortex.api": run.spec.name,
            "cortex.run": run.name,
            "cortex.process": process.name if run.spec.replicas == 1 else f"{replica}/{process.name}",
        },
        "volumes": [{"type": "volume", "source": f"{run.name}-{replica}", "target": str(_RUN_DIR)}, *mounts],
    }


def _file(run: Run, name: str) -> dict[str, Any]:
    place = _CORTEX if name == "resolved.json" else _RUN_DIR
    return _bind(f"{run.directory}/containers/{name}", str(place / name))


def _models(run: Run) -> list[dict[str, Any]]:
    places = {model.path: str(_MODELS / Path(model.path).name) for model in run.spec.predictor.models}
    return [_bind(source, target) for source, target in places.items()]


def _confined() -> Service:
    return {
        "user": USER,
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108  # the container's own
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "restart": "always",  # an engine that crashed takes what it finds for stopped by hand: no `unless-stopped`
        "stop_grace_period": STOP_GRACE,
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }


def _bind(source: str, target: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": target, "read_only": True}


def _listens(socket: str) -> dict[str, Any]:
    test = ["CMD", "python", "/opt/cortex/probe.py", f"unix:{socket}"]
    return {"test": test, "interval": "10s", "timeout": "5s", "start_period": "120s"}


def _resources(run: Run, containers: int) -> Service:
    """Return what keeps each of so many containers that compute to its share of what one replica may take.

    Memory is a reservation, as in a cluster.
    """
    compute = run.spec.compute
    found: Service = {}
    if compute.cpu is not None:
        found["cpus"] = min(float(parse_quantity(compute.cpu)), float(run.cores)) / containers
    if compute.mem is not None:
        found["mem_reservation"] = int(parse_quantity(compute.mem)) // containers
    return found


def _devices(run: Run, replica: int, index: int = 0) -> Service:
    """Return the GPUs or Neuron devices of one replica: those that no other replica of the API has."""
    compute = run.spec.compute
    if compute.inf:
        own = run.neuron_devices[replica * compute.inf : (replica + 1) * compute.inf]
        return {"devices": [f"{NEURON_DEVICE}{each}:{NEURON_DEVICE}{each}" for each in own]}
    if not (compute.gpu and run.gpus):
        return {}
    ids = [str(each) for each in range(replica * compute.gpu, (replica + 1) * compute.gpu)]
    device = {"driver": "nvidia", "device_ids": ids, "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [device]}}}}
