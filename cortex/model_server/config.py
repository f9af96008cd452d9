"""Which models to serve: TF Serving's ModelServerConfig, as a text proto in a file or as a message."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from cortex.model_server.status import StatusError, invalid
from cortex.protos import model_server_config_pb2

_log = logging.getLogger(__name__)

_PLATFORM = "tensorflow"
_COLLECTORS = ("", "tfrecord")


@dataclass(frozen=True)
class LatestVersions:
    """Serve the newest ``count`` versions."""

    count: int = 1


@dataclass(frozen=True)
class AllVersions:
    """Serve every version there is."""


@dataclass(frozen=True)
class SpecificVersions:
    """Serve these versions and no other."""

    versions: frozenset[int]


Policy = LatestVersions | AllVersions | SpecificVersions


@dataclass(frozen=True)
class LoggingConfig:
    """Where requests to a model are logged, and which share of them: above 0, at most 1."""

    filename_prefix: str
    sampling_rate: float


@dataclass(frozen=True)
class ModelConfig:
    """One model: its name, the directory of its versions, which of them to serve, and names for some of them."""

    name: str
    base_path: Path
    policy: Policy = field(default_factory=LatestVersions)
    labels: Mapping[str, int] = field(default_factory=dict)
    logging: LoggingConfig | None = None


def single(name: str, base_path: str) -> ModelConfig:
    """Return the one model that the flags name. Raises StatusError (INVALID_ARGUMENT)."""
    try:
        return _model(model_server_config_pb2.ModelConfig(name=name, base_path=base_path))
    except UnicodeEncodeError as error:
        raise invalid(f"The model's name and base path must be UTF-8: {error}") from error


def read(path: Path) -> tuple[ModelConfig, ...] | None:
    """Read a ``--model_config_file``; None when it holds no list at all, which asks for no action.

    Raises StatusError (INVALID_ARGUMENT); protobuf's reason is part of the text.
    """
    message = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(path.read_text(), message)
    except text_format.ParseError as error:
        text = f"Error parsing text-format {message.DESCRIPTOR.full_name}: {error}"
        _log.error("%s", text)  # protobuf itself says so on stderr, and scripts look for it there
        raise invalid(f"Invalid protobuf file: '{path}': {text}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(f"Failed to read ModelServerConfig file: {path}: {error}") from error
    if message.HasField("custom_model_config"):
        raise invalid("ModelServer does not yet support custom model config.")
    return parse(message.model_config_list) if message.HasField("model_config_list") else None


def parse(message: model_server_config_pb2.ModelConfigList) -> tuple[ModelConfig, ...]:
    """Return the models of a list, checked as TF Serving checks them. Raises StatusError (INVALID_ARGUMENT)."""
    models = tuple(_model(entry) for entry in message.config)
    for name, count in Counter(model.name for model in models).items():
        if count > 1:
            raise invalid(f"Illegal to list model {name} multiple times in config list")
    return models


def _model(entry: model_server_config_pb2.ModelConfig) -> ModelConfig:
    if not entry.name:
        raise invalid(f"A model of the config list has no name (base_path {entry.base_path!r})")
    if entry.model_platform not in ("", _PLATFORM):
        raise invalid(
            f"Model {entry.name} has model_platform {entry.model_platform!r}; only {_PLATFORM!r} is supported"
        )
    if "\0" in entry.base_path + entry.logging_config.log_collector_config.filename_prefix:
        raise invalid(f"Model {entry.name} has a path with a null character in it, which no file system knows")
    base_path = Path(entry.base_path.removeprefix("file://"))
    if not base_path.is_absolute():
        raise _relative(entry)
    return ModelConfig(entry.name, base_path, _policy(entry), dict(entry.version_labels), _logging(entry))


def _relative(entry: model_server_config_pb2.ModelConfig) -> StatusError:
    return invalid(
        f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}"
        + (" (of URIs, only file:// is supported)" if "://" in entry.base_path else "")
    )


def _policy(entry: model_server_config_pb2.ModelConfig) -> Policy:
    policy = entry.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return AllVersions()
    if kind == "specific":
        return SpecificVersions(frozenset(policy.specific.versions))
    if kind == "latest" and policy.latest.num_versions < 0:
        raise invalid(f"Model {entry.name}: latest.num_versions must not be negative")
    return LatestVersions(policy.latest.num_versions or 1) if kind == "latest" else LatestVersions()


def _logging(entry: model_server_config_pb2.ModelConfig) -> LoggingConfig | None:
    """Return the request log that a model asks for; a sampling rate of 0 is none."""
    asked, where = entry.logging_config, f"Model {entry.name}: logging_config"
    collector, rate = asked.log_collector_config, asked.sampling_config.sampling_rate
    if asked.HasField("custom_logging_config") or asked.sampling_config.per_task_sampling_configs:
        raise invalid(f"{where}: only log_collector_config and sampling_config.sampling_rate are supported")
    if not 0 <= rate <= 1:
        raise invalid(f"{where}: sampling_rate must be between 0 and 1, not {rate}")
    if collector.type not in _COLLECTORS:
        raise invalid(f"{where}: Cannot find LogCollector::Factory for type: {collector.type}; 'tfrecord' is there")
    if not rate:
        return None
    if not Path(collector.filename_prefix).is_absolute():
        raise invalid(f"{where}: filename_prefix must be an absolute path, not {collector.filename_prefix!r}")
    return LoggingConfig(collector.filename_prefix, rate)
