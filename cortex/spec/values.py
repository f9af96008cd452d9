"""An API as frozen values: what every part of the system reads, and what a worker is given as JSON.

The same classes hold the rules of single values (types, bounds, formats), so that each key, default and rule is
written once. Only ``predictor`` has another form in the yaml than here: see `cortex.spec.written`.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, FiniteFloat

from cortex.quantity import parse_quantity
from cortex.spec.scalars import (
    SINGLE_MODEL,
    APIName,
    Bytes,
    Cores,
    Endpoint,
    FreeMap,
    Image,
    Memory,
    Omittable,
    PythonPath,
    Share,
    Text,
    Variables,
    seconds,
)


class Frozen(BaseModel):
    """Refuse unknown keys and values of another type; NaN and infinity inside ``config`` survive JSON."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, ser_json_inf_nan="constants", protected_namespaces=()
    )


class Model(Frozen):
    """One model. ``path`` is as written in the yaml (or absolute, once an environment has resolved it)."""

    name: str = SINGLE_MODEL
    path: Text
    signature_key: str | None = None


class ServerSideBatching(Frozen):
    """How requests are put together for the model. ``batch_interval`` is in seconds."""

    max_batch_size: Annotated[int, Field(ge=2, le=1024)]
    batch_interval: Annotated[float, seconds(gt="0s")]


class PredictorSettings(Frozen):
    """What a predictor is, but for its models."""

    type: Literal["python", "tensorflow", "onnx"]
    path: Text
    """Relative to the project, which is the directory of the yaml."""
    python_path: Omittable[PythonPath] = None
    """Ends with a slash."""
    image: Omittable[Image] = None
    tensorflow_serving_image: Omittable[Image] = None
    processes_per_replica: Annotated[int, Field(ge=1, le=100)] = 1
    threads_per_process: Annotated[int, Field(ge=1)] = 1
    config: FreeMap = Field(default_factory=dict)
    env: Variables = Field(default_factory=dict)
    server_side_batching: ServerSideBatching | None = None
    engine: Literal["auto", "openvino", "tensorflow", "onnxruntime", "tflite"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    model_server: Literal["cortex", "tensorflow_model_server"] = "cortex"


class Predictor(PredictorSettings):
    """A predictor with its models, in one form for both dialects of the yaml."""

    models: tuple[Model, ...] = ()
    models_dir: str | None = None
    """A directory whose every subdirectory is a model; an environment resolves it into ``models``."""
    models_dir_signature_key: str | None = None
    cache_size: int | None = None
    disk_cache_size: int | None = None


class Monitoring(Frozen):
    """What a cluster records about predictions."""

    key: Omittable[Text] = None
    model_type: Literal["classification", "regression"]


class Networking(Frozen):
    """Where an API is reached."""

    endpoint: Omittable[Endpoint] = None
    """Starts with a slash. `cortex.spec.written.complete` fills in ``/NAME``."""
    local_port: Omittable[Annotated[int, Field(ge=1, le=65535)]] = None
    api_gateway: Literal["public", "none"] = "public"
    max_body_size: Bytes = "32Mi"
    """Quantity; a larger request body is refused with 413. Ours, not Cortex's."""

    @property
    def max_body_bytes(self) -> int:
        """Return ``max_body_size`` as a number of bytes."""
        return int(parse_quantity(self.max_body_size))


class Compute(Frozen):
    """What one replica needs. Quantities are kept as the user wrote them; None is no limit."""

    cpu: Cores | None = None
    mem: Memory | None = None
    gpu: Annotated[int, Field(ge=0)] = 0
    inf: Annotated[int, Field(ge=0)] = Field(default=0, validation_alias=AliasChoices("inf", "accelerator"))
    """``accelerator`` is its name before Cortex 0.18."""


class Autoscaling(Frozen):
    """How a cluster chooses the number of replicas. Durations are in seconds.

    `cortex.spec.written.complete` fills in ``init_replicas`` (``min_replicas``) and ``target_replica_concurrency``
    (processes times threads).
    """

    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 100
    init_replicas: Omittable[Annotated[int, Field(ge=1)]] = None
    target_replica_concurrency: Omittable[Annotated[FiniteFloat, Field(gt=0)]] = None
    max_replica_concurrency: Annotated[int, Field(ge=1, le=65535)] = 1024
    window: Annotated[float, seconds(ge="10s", multiple_of="10s")] = 60.0
    downscale_stabilization_period: Annotated[float, seconds(ge="0s")] = 300.0
    upscale_stabilization_period: Annotated[float, seconds(ge="0s")] = 60.0
    max_downscale_factor: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.75
    max_upscale_factor: Annotated[FiniteFloat, Field(gt=1)] = 1.5
    downscale_tolerance: Annotated[FiniteFloat, Field(ge=0, lt=1)] = 0.05
    upscale_tolerance: Annotated[FiniteFloat, Field(ge=0)] = 0.05


class UpdateStrategy(Frozen):
    """How many replicas an update may add and take away: a number, or a percentage of the replicas."""

    max_surge: Share = "25%"
    max_unavailable: Share = "25%"


class APISettings(Frozen):
    """What an API is, but for its models."""

    name: APIName
    kind: Literal["RealtimeAPI"] = "RealtimeAPI"
    predictor: PredictorSettings
    monitoring: Monitoring | None = None
    networking: Networking = Networking()
    compute: Compute = Compute()
    autoscaling: Autoscaling = Autoscaling()
    update_strategy: UpdateStrategy = UpdateStrategy()

    @property
    def endpoint(self) -> str:
        """The path under which a cluster serves it."""
        return self.networking.endpoint or f"/{self.name}"

    @property
    def replicas(self) -> int:
        """How many there are at first."""
        return self.autoscaling.init_replicas or self.autoscaling.min_replicas

    @property
    def target_concurrency(self) -> float:
        """How many requests in flight one replica is meant to have."""
        target = self.autoscaling.target_replica_concurrency
        return target or float(self.predictor.processes_per_replica * self.predictor.threads_per_process)


class APISpec(APISettings):
    """One API of a yaml, complete: every default filled in, every rule checked."""

    predictor: Predictor

    def with_models(self, models: Iterable[Model]) -> "APISpec":
        """Return this spec with these models in place of what the yaml names."""
        predictor = self.predictor.model_copy(update={"models": tuple(models), "models_dir": None})
        return self.model_copy(update={"predictor": predictor})
