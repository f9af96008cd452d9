"""The rules that tie several keys of one API together, or a key to the project.

Rules of single values are in `cortex.spec.scalars`; what must differ between APIs is in `cortex.spec.unique`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cortex.spec import project
from cortex.spec.problem import Problem, Steps, steps_of
from cortex.spec.shape import Shape
from cortex.spec.wording import bare, number, quote
from cortex.spec.written import WrittenAPI, WrittenModels

_NEURON_CORES = 4
"""The NeuronCores of one Inferentia chip, as Cortex counts them."""
_TENSORFLOW_ONLY = (
    "signature_key",
    "tensorflow_serving_image",
    "server_side_batching",
    "engine",
    "precision",
    "model_server",
)
"""The keys of a predictor that are about signatures and the model server, which other types do not have."""
_TENSORFLOWS = {"engine": ("auto", "tensorflow"), "precision": ("auto", "fp32")}
"""What the real TensorFlow Serving, and Neuron's, can be asked for."""
_ON_CPUS = ("openvino", "tflite")
"""The engines that take no GPU."""

_PREDICTOR: Steps = ("predictor",)
_MODELS: Steps = ("predictor", "models")
_BATCHING: Steps = ("predictor", "server_side_batching")


def broken(shape: Shape, directory: Path) -> Iterator[Problem]:
    """Yield what breaks a rule in one API of the project in ``directory``."""
    for rule in _RULES:
        if shape.api and not shape.touches(rule.reads):
            yield from rule.check(shape.api, directory)


def _predictor_file(api: WrittenAPI, directory: Path) -> Iterator[Problem]:
    if wrong := project.wrong_file(directory, api.predictor.path):
        yield Problem(("predictor", "path"), f"{bare(api.predictor.path)}: {wrong}")


def _python_path(api: WrittenAPI, directory: Path) -> Iterator[Problem]:
    path = api.predictor.python_path
    if path and (wrong := project.wrong_directory(directory, path)):
        yield Problem(("predictor", "python_path"), f"{bare(path)}: {wrong}")


def _keys_of_type(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    predictor = api.predictor
    if predictor.type == "tensorflow":
        return
    for key in _TENSORFLOW_ONLY:
        if key in predictor.model_fields_set and getattr(predictor, key) is not None:
            yield _not_for_type(api, _PREDICTOR, key)
    for steps, model in predictor.listed():
        if model.signature_key:
            yield _not_for_type(api, steps, "signature_key")
    if isinstance(predictor.models, WrittenModels) and predictor.models.signature_key:
        yield _not_for_type(api, _MODELS, "signature_key")


def _not_for_type(api: WrittenAPI, steps: Steps, key: str) -> Problem:
    return Problem(steps, f"{key} is not a supported field for the {api.predictor.type} predictor type", key=key)


def _some_model(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    predictor = api.predictor
    if predictor.model_path and predictor.models:
        message = "please specify either the model_path or models field (both cannot be specified at the same time)"
        yield Problem(_PREDICTOR, message, key="models")
    if predictor.type != "python" and not predictor.model_path and not predictor.models:
        message = (
            f"at least one model must be specified for {predictor.type} predictor type; "
            "use fields predictor:model_path or predictor:models to add model(s)"
        )
        yield Problem(_PREDICTOR, message)


def _names_of_models(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    seen: Counter[str] = Counter()
    for steps, model in api.predictor.listed():
        seen[model.name] += 1
        if seen[model.name] == 2:
            yield Problem(steps, f"cannot have multiple models with the same name ({model.name})", key="name")


def _map_of_models(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    models = api.predictor.models
    if not isinstance(models, WrittenModels):
        return
    if models.paths and models.dir:
        message = "please specify either the paths or dir field (both cannot be specified at the same time)"
        yield Problem(_MODELS, message, key="dir")
    if not models.paths and not models.dir:
        yield Problem(_MODELS, "either the paths or the dir field must be specified")
    cache, disk = models.cache_size, models.disk_cache_size
    if (cache is None) != (disk is None):
        yield Problem(_MODELS, "cache_size and disk_cache_size must be specified together, or not at all")
    if cache and disk and cache > disk:
        message = f"cache_size ({cache}) must be less than or equal to disk_cache_size ({disk})"
        yield Problem(_MODELS, message, key="cache_size")


def _cached_processes(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    """Each process would have a cache of its own, and together they would hold more models than were allowed."""
    models, processes = api.predictor.models, api.predictor.processes_per_replica
    if isinstance(models, WrittenModels) and models.cache_size and processes != 1:
        message = f"{processes} must be 1 when models are cached (predictor.models.cache_size)"
        yield Problem(("predictor", "processes_per_replica"), message)


def _tensorflow_serving(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    server = "tensorflow_model_server_neuron" if api.compute.inf else api.predictor.model_server
    if server == "cortex" or api.predictor.type != "tensorflow":
        return
    for key, supported in _TENSORFLOWS.items():
        value = getattr(api.predictor, key)
        if value not in supported:
            message = f"{quote(value)} is not supported by the model server {server}"
            yield Problem(("predictor", key), f"{message} (only {' and '.join(map(quote, supported))})")


def _devices(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    gpu, inf = api.compute.gpu, api.compute.inf
    if gpu and inf:
        yield Problem(("compute",), "gpu and inf resources cannot be used together")
    if inf > 1:
        message = (
            f"cannot request {inf} Infs (currently only 1 Inf can be used per API replica, due to AWS's bug: "
            "https://github.com/aws/aws-neuron-sdk/issues/110)"
        )
        yield Problem(("compute",), message, key="inf")


def _engine_on_gpu(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    predictor = api.predictor
    if predictor.type != "tensorflow" or predictor.model_server != "cortex":
        return
    if api.compute.gpu and predictor.engine in _ON_CPUS:
        message = f"{quote(predictor.engine)} computes on CPUs, and compute.gpu asks for a GPU (auto takes what can)"
        yield Problem(("predictor", "engine"), message)


def _onnx_on_inferentia(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    if api.compute.inf and api.predictor.type == "onnx":
        yield _not_for_type(api, ("compute",), "inf")


def _neuron_cores(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    processes = api.predictor.processes_per_replica
    if api.compute.inf == 1 and _NEURON_CORES % processes:
        message = (
            f"cannot evenly distribute 1 Inferentia ASIC ({_NEURON_CORES} NeuronCores total) over {processes} processes"
            " - acceptable numbers of processes are 1, 2, or 4"
        )
        yield Problem(_PREDICTOR, message, key="processes_per_replica")


def _batch_size(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    """A batch is never full when fewer requests than that can be under way. Each Inferentia process has its own."""
    predictor = api.predictor
    if predictor.server_side_batching is None:
        return
    size, processes, threads = (
        predictor.server_side_batching.max_batch_size,
        predictor.processes_per_replica,
        predictor.threads_per_process,
    )
    message = f"max_batch_size ({size}) must be less than or equal to "
    if api.compute.inf and size > threads:
        yield Problem(_BATCHING, f"{message}threads_per_process ({threads})", key="max_batch_size")
    if not api.compute.inf and size > processes * threads:
        product = f"processes_per_replica * threads_per_process ({processes} * {threads} = {processes * threads})"
        yield Problem(_BATCHING, f"{message}{product}", key="max_batch_size")


def _replicas(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    scaling = api.autoscaling
    low, high, start = scaling.min_replicas, scaling.max_replicas, scaling.init_replicas
    if low > high:
        yield _above("min_replicas", low, "max_replicas", high)
    if start is not None and start > high:
        yield _above("init_replicas", start, "max_replicas", high)
    if start is not None and low > start:
        yield _above("min_replicas", low, "init_replicas", start)


def _concurrency(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    target, limit = api.target_concurrency, api.autoscaling.max_replica_concurrency
    if "autoscaling" in api.model_fields_set and target > limit:
        yield _above("target_replica_concurrency", target, "max_replica_concurrency", limit)


def _above(key: str, value: float, other: str, bound: float) -> Problem:
    return Problem(
        ("autoscaling",), f"{key} ({number(value)}) cannot be greater than {other} ({number(bound)})", key=key
    )


def _update(api: WrittenAPI, _: Path) -> Iterator[Problem]:
    strategy = api.update_strategy
    if all(int(str(share).rstrip("%")) == 0 for share in (strategy.max_surge, strategy.max_unavailable)):
        yield Problem(("update_strategy",), "max_surge and max_unavailable cannot both be zero")


@dataclass(frozen=True)
class _Rule:
    """A rule, and the keys that it reads: it is not applied where one of them is wrong already."""

    check: Callable[[WrittenAPI, Path], Iterator[Problem]]
    reads: tuple[Steps, ...]


def _rule(check: Callable[[WrittenAPI, Path], Iterator[Problem]], *reads: str) -> _Rule:
    return _Rule(check, tuple(steps_of(path) for path in reads))


_TYPE, _PROCESSES, _THREADS = "predictor.type", "predictor.processes_per_replica", "predictor.threads_per_process"
_INF = ("compute.inf", "compute.accelerator")
_LIMIT = "autoscaling.max_replica_concurrency"
_RULES = (
    _rule(_predictor_file, "predictor.path"),
    _rule(_python_path, "predictor.python_path"),
    _rule(_keys_of_type, _TYPE),
    _rule(_some_model, _TYPE, "predictor.model_path", "predictor.models"),
    _rule(_names_of_models, "predictor.models"),
    _rule(_map_of_models, "predictor.models"),
    _rule(_cached_processes, "predictor.models", _PROCESSES),
    _rule(_tensorflow_serving, _TYPE, "predictor.model_server", "predictor.engine", "predictor.precision", *_INF),
    _rule(_devices, "compute.gpu", *_INF),
    _rule(_engine_on_gpu, _TYPE, "predictor.engine", "predictor.model_server", "compute.gpu"),
    _rule(_onnx_on_inferentia, _TYPE, *_INF),
    _rule(_neuron_cores, _PROCESSES, *_INF),
    _rule(_batch_size, "predictor.server_side_batching", _PROCESSES, _THREADS, *_INF),
    _rule(_replicas, "autoscaling.min_replicas", "autoscaling.max_replicas", "autoscaling.init_replicas"),
    _rule(_concurrency, "autoscaling.target_replica_concurrency", _LIMIT, _PROCESSES, _THREADS),
    _rule(_update, "update_strategy"),
)
