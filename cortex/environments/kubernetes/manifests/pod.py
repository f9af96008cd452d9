"""The pod of one replica: the same processes as `cortex.environments.local.plan` plans, in containers.

    models, bundle   init containers: bring what is not on a volume of the cluster
    model-server-I   one for the pod; on Inferentia one for each worker
    api              all workers, on one socket (`cortex.environments.kubernetes.replica`)

They share ``/run/cortex``, where the model servers' sockets are, and ``/models``. Of the rest only ``/project`` and
``/tmp`` are written. A pod that ends is first taken out of its Service, then drains its workers, then stops its model
servers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cortex.environments import model_server
from cortex.environments.kubernetes.manifests.files import CONFIG, FILES, PROJECT, RUN
from cortex.environments.kubernetes.manifests.network import PORT
from cortex.environments.kubernetes.manifests.release import MODELS, Release, is_fetched
from cortex.environments.kubernetes.manifests.resources import resources
from cortex.environments.kubernetes.manifests.volumes import mounts, volumes
from cortex.environments.local.plan import Place, plan
from cortex.plan import Plan, ProcessPlan

READY, LOCK = f"{RUN}/ready", f"{RUN}/api.lock"
USER = 10001
"""The user of our images."""
UNROUTED_SECONDS = 5
"""How long a pod that is to end goes on as before, while the cluster's routers learn of it."""
DRAIN_SECONDS = 60
"""As `cortex.revision.DRAIN_SECONDS`."""
STOP_SECONDS = 10
"""As `cortex.revision.BACK_SECONDS`."""
START_SECONDS = 900
_MANY_CORES = 1024
_THREAD_FLAGS = ("--inference_threads=", "--tensorflow_intra_op_parallelism=")
_BUNDLE = "/bundle"


def pod(release: Release) -> dict[str, Any]:
    """Return the template of the pods of a release."""
    planned = planned_processes(release)
    config = config_files(release)
    return {
        "metadata": {
            "labels": {**release.labels, "cortex/revision": release.revision},
            "annotations": {
                "cortex/spec": release.spec.model_dump_json(),
                "cortex/notices": json.dumps(release.notices),
            },
        },
        "spec": {
            **_settings(release),
            "terminationGracePeriodSeconds": UNROUTED_SECONDS + DRAIN_SECONDS + STOP_SECONDS,
            "automountServiceAccountToken": bool(release.settings.service_account),
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": [_spread(release, "topology.kubernetes.io/zone"), _spread(release, _HOST)],
            **_tolerations(release),
            **_init(release),
            "containers": [
                _api(release, planned),
                *(_model_server(release, row, index, len(planned.back)) for index, row in enumerate(planned.back)),
            ],
            "volumes": volumes(release, config),
        },
    }


def config_files(release: Release) -> dict[str, str]:
    """Return the files of ``/cortex``, by name."""
    generated = {name: text for name, text in planned_processes(release).files.items() if "/" not in name}
    return {
        "spec.json": release.spec.with_models(release.models).model_dump_json(indent=2),
        "resolved.json": release.resolved.model_dump_json(indent=2),
        **generated,
    }


def planned_processes(release: Release) -> Plan:
    """Return the processes of one replica, as this machine would run them if it were the pod."""
    spec = release.spec
    return plan(
        release.resolved,
        Place(
            revision=release.revision,
            directory=Path(CONFIG),
            run_dir=Path(RUN),
            host="0.0.0.0",  # noqa: S104 - of the pod, which its NetworkPolicy guards
            port=PORT,
            python="python",
            model_server=model_server.command(spec, "python", spec.predictor.tensorflow_serving_image),
            cores=_MANY_CORES,
            gpus=spec.compute.gpu,
            gpu_engine=release.gpu_engine,
            notices=release.notices,
        ),
    )


_HOST = "kubernetes.io/hostname"


def _api(release: Release, planned: Plan) -> dict[str, Any]:
    worker = planned.front[0]
    command = [
        *("python", "-P", "-m", "cortex.environments.kubernetes.replica"),
        *("--workers", str(len(planned.front)), "--port", str(PORT), "--ready", READY, "--lock", LOCK),
        *(("--files", FILES) if release.project else ()),
        "--",
        *_any_worker(worker.argv, len(planned.back)),
    ]
    return {
        "name": "api",
        "image": release.spec.predictor.image or release.settings.own_image("api"),
        "command": command,
        "workingDir": PROJECT,
        "env": _env({**worker.env, "HOME": "/tmp"}),  # noqa: S108 - a volume of the container's own
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": {**_exec("test", "-e", READY), "periodSeconds": 2, "failureThreshold": START_SECONDS // 2},
        "readinessProbe": {**_get("/readyz"), "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**_get("/healthz"), "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": _exec("sleep", str(UNROUTED_SECONDS))},
        "resources": resources(release, holds_device=not planned.back, servers=len(planned.back)),
        "securityContext": _locked_in(),
        "volumeMounts": [
            *mounts(release),
            {"name": "project", "mountPath": PROJECT},
            *([{"name": "files", "mountPath": FILES, "readOnly": True}] if release.project else []),
        ],
    }


def _model_server(release: Release, row: ProcessPlan, index: int, count: int) -> dict[str, Any]:
    compute, env = release.spec.compute, dict(row.env)
    if count > 1:  # the device plugin says which NeuronCores this container was given
        env.pop("NEURON_RT_VISIBLE_CORES")
    if compute.gpu:  # and which GPUs
        env.pop("CUDA_VISIBLE_DEVICES")
    return {
        "name": f"model-server-{index}",
        "image": model_server.image(release.spec, release.settings.own_image, on_gpu=bool(compute.gpu)),
        "command": _model_server_command(release, row),
        "env": _env({**env, "HOME": "/tmp"}),  # noqa: S108 - a volume of the container's own
        "startupProbe": {**_exec("test", "-S", row.ready), "periodSeconds": 1, "failureThreshold": START_SECONDS},
        "lifecycle": {"preStop": _exec("flock", "-w", str(UNROUTED_SECONDS + DRAIN_SECONDS), LOCK, "true")},
        "resources": resources(release, holds_device=True, servers=count),
        "securityContext": _locked_in(),
        "volumeMounts": mounts(release),
    }


def _model_server_command(release: Release, row: ProcessPlan) -> list[str]:
    """Return a model server's command. Its configuration is in ``/cortex``; without a CPU limit it uses every core."""
    limited = release.spec.compute.cpu is not None
    flags = [flag for flag in row.argv if limited or not flag.startswith(_THREAD_FLAGS)]
    for name in ("models.config", "batching.config"):
        flags = [flag.replace(f"{RUN}/{name}", f"{CONFIG}/{name}") for flag in flags]
    return flags


def _init(release: Release) -> dict[str, Any]:
    containers = []
    if release.bundle:
        copy = {"name": "bundle", "image": release.bundle, "command": ["cp", "-R", f"{_BUNDLE}/.", "/data/"]}
        shown = [{"name": "models", "mountPath": "/data/models"}] if release.bundled_models else []
        shown += [{"name": "project", "mountPath": "/data/project"}] if release.bundles_project else []
        containers.append({**copy, "volumeMounts": shown})
    if any(is_fetched(model) for model in release.models):
        fetch = ["python", "-P", "-m", "cortex.environments.kubernetes.models"]
        secret = release.settings.model_secret
        containers.append(
            {
                "name": "models",
                "image": release.settings.own_image("api"),
                "command": [*fetch, "--spec", f"{CONFIG}/spec.json", "--models", MODELS],
                "env": _env({"HOME": "/tmp"}),  # noqa: S108 - a volume of the container's own
                **({"envFrom": [{"secretRef": {"name": secret}}]} if secret else {}),
                "volumeMounts": [
                    {"name": "config", "mountPath": CONFIG, "readOnly": True},
                    {"name": "models", "mountPath": MODELS},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the container's own
                ],
            }
        )
    return {"initContainers": [{**row, "securityContext": _locked_in()} for row in containers]} if containers else {}


def _settings(release: Release) -> dict[str, Any]:
    settings = release.settings
    return {
        **({"serviceAccountName": settings.service_account} if settings.service_account else {}),
        **({"imagePullSecrets": [{"name": settings.pull_secret}]} if settings.pull_secret else {}),
    }


def _tolerations(release: Release) -> dict[str, Any]:
    """Let pods that ask for a device onto the nodes that have some, which often refuse all others."""
    compute = release.spec.compute
    devices = [("nvidia.com/gpu", compute.gpu), ("aws.amazon.com/neuron", compute.inf)]
    rows = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key, count in devices if count]
    return {"tolerations": rows} if rows else {}


def _spread(release: Release, key: str) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"cortex/api": release.name}},
        "matchLabelKeys": ["pod-template-hash"],
    }


def _any_worker(argv: tuple[str, ...], servers: int) -> list[str]:
    """Return the command of any worker; the replica writes its number in place of ``{worker}``."""
    words = list(argv)
    words[words.index("--worker") + 1] = "{worker}"
    if servers > 1:
        words = [word.replace("model-server-0", "model-server-{worker}") for word in words]
    return words


def _env(env: Mapping[str, str]) -> list[dict[str, str]]:
    """Return environment variables; ``$`` is doubled, because Kubernetes reads ``$(NAME)``, and ``$$`` as one."""
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in env.items()]


def _exec(*command: str) -> dict[str, Any]:
    return {"exec": {"command": list(command)}}


def _get(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}}


def _locked_in() -> dict[str, Any]:
    """Return the rights of every container: none that it does not need."""
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
