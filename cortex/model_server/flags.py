"""The command line: every flag of tensorflow_model_server, spelled and defaulted as there, and a few of ours."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cortex.errors import UserError
from cortex.model_server.engines.selection import AUTO, ENGINES, PRECISIONS

_CPUS = os.cpu_count() or 1
_INT64 = range(-(2**63), 2**63)
_INT32 = range(-(2**31), 2**31)
_PORTS = range(2**16)
_COUNTS = range(2**63)
_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})


class BadFlag(UserError):
    """Say which flag has a value that cannot be read."""


def _flag(
    default: Any,
    text: str,
    *,
    choices: Sequence[str] = (),
    limits: range = _INT64,
    engine: str = "",
    idle: bool = False,
) -> Any:
    """Declare a flag; one with an ``engine`` counts for the models that this engine runs, and for no others."""
    known = {"help": text, "choices": tuple(choices), "limits": limits, "engine": engine, "idle": idle}
    return dataclasses.field(default=default, metadata=known)


def _idle(default: Any, text: str) -> Any:
    """Declare a flag that is accepted, so that start scripts keep working, and changes nothing here."""
    return _flag(default, text, idle=True)


@dataclass(frozen=True)
class Flags:
    """The parsed command line, one field per flag."""

    port: int = _flag(8500, "TCP port for gRPC. Disabled if port set to zero.", limits=_PORTS)
    grpc_socket_path: str = _flag("", "If non-empty, listen to a UNIX socket for gRPC API on the given path.")
    grpc_max_threads: int = _flag(4 * _CPUS, "Max threads of the gRPC server.")
    grpc_channel_arguments: str = _flag("", "Comma separated gRPC channel arguments: k=v,k=v.")
    rest_api_port: int = _flag(0, "TCP port for HTTP/REST. Disabled if port set to zero.", limits=_PORTS)
    rest_api_num_threads: int = _flag(4 * _CPUS, "Threads for HTTP/REST API processing.")
    rest_api_timeout_in_ms: int = _flag(30000, "Timeout for HTTP/REST API calls; 0 for none.", limits=_INT32)
    rest_api_enable_cors_support: bool = _flag(False, "Send CORS headers with every HTTP/REST answer.")
    rest_api_max_body_bytes: int = _flag(
        256 * 2**20, "Largest HTTP/REST request body, once inflated (ours).", limits=_COUNTS
    )
    enable_batching: bool = _flag(False, "Join requests to batches.")
    batching_parameters_file: str = _flag("", "Text proto of BatchingParameters; needs --enable_batching.")
    enable_per_model_batching_parameters: bool = _flag(False, "Read batching_params.pbtxt of each version directory.")
    model_config_file: str = _flag("", "Text proto of ModelServerConfig; --model_name and --model_base_path give way.")
    model_config_file_poll_wait_seconds: int = _flag(
        0, "Interval between polls of --model_config_file; 0 for none.", limits=_INT32
    )
    model_name: str = _flag("default", "Name of the model; ignored with --model_config_file.")
    model_base_path: str = _flag("", "Path of the model's version directories; ignored with --model_config_file.")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "Allow an unused label to be given to a version that does not serve yet."
    )
    num_load_threads: int = _flag(0, "Versions loaded at once; 0 for four.")
    num_unload_threads: int = _idle(0, "Versions unloaded at once.")
    max_num_load_retries: int = _flag(5, "Retries of a load that failed.")
    load_retry_interval_micros: int = _flag(60_000_000, "Time between retries of a load, in microseconds.")
    file_system_poll_wait_seconds: int = _flag(
        1, "Interval between polls of the base paths; 0 polls once.", limits=_INT32
    )
    flush_filesystem_caches: bool = _idle(True, "Flush filesystem caches after the first load.")
    tensorflow_session_parallelism: int = _flag(0, "Threads of a session, intra-op and inter-op.", engine="tensorflow")
    tensorflow_intra_op_parallelism: int = _flag(0, "Threads of one operation; 0 for all.", engine="tensorflow")
    tensorflow_inter_op_parallelism: int = _flag(0, "Operations at once; 0 lets it choose.", engine="tensorflow")
    tensorflow_session_config_file: str = _flag("", "Text proto of ConfigProto.", engine="tensorflow")
    platform_config_file: str = _idle("", "Text proto of PlatformConfigMap.")
    per_process_gpu_memory_fraction: float = _flag(0.0, "Share of the GPU's memory; 0 for all.", engine="tensorflow")
    saved_model_tags: str = _flag("serve", "Comma separated tags of the graph to load from a SavedModel.")
    ssl_config_file: str = _flag("", "Text proto of SSLConfig: TLS, or mTLS, for gRPC.")
    use_alts_credentials: bool = _flag(False, "Google ALTS credentials; refused.")
    enable_model_warmup: bool = _flag(True, "Replay the requests of assets.extra, and check recorded answers.")
    num_request_iterations_for_warmup: int = _flag(0, "Times each recorded request is replayed; 0 is once.")
    monitoring_config_file: str = _flag("", "Text proto of MonitoringConfig: TF Serving's metrics, on the REST port.")
    remove_unused_fields_from_bundle_metagraph: bool = _idle(True, "Drop what a loaded graph does not need.")
    prefer_tflite_model: bool = _flag(False, "Prefer model.tflite to saved_model.pb.")
    num_tflite_pools: int = _flag(_CPUS, "Interpreter pools.", engine="tflite")
    num_tflite_interpreters_per_pool: int = _flag(1, "Interpreters in a pool.", engine="tflite")
    enable_signature_method_name_check: bool = _flag(False, "Refuse signatures of an unknown method name.")
    enable_profiler: bool = _flag(True, "Serve TensorFlow's profiler.")
    thread_pool_factory_config_file: str = _idle("", "Text proto of ThreadPoolConfig.")
    mixed_precision: str = _flag("", "bfloat16 lets TensorFlow compute in mixed precision.", choices=("", "bfloat16"))
    xla_cpu_compilation_enabled: bool = _idle(False, "Compile for the CPU with XLA.")
    xla_gpu_compilation_enabled: bool = _idle(False, "Compile for the GPU with XLA.")
    skip_initialize_tpu: bool = _idle(False, "Do not initialize TPUs.")
    enable_grpc_healthcheck_service: bool = _flag(False, "Serve grpc.health.v1.")
    enable_serialization_as_tensor_content: bool = _flag(False, "Send outputs as tensor_content.")
    engine: str = _flag(AUTO, "What runs the models (ours).", choices=(AUTO, *ENGINES))
    precision: str = _flag(AUTO, "What the engine computes in (ours).", choices=PRECISIONS)
    inference_threads: int = _flag(0, "CPU threads for one request; 0 for all (ours).", limits=_COUNTS)
    batching: str = _flag(
        "", "auto batches without a file: sizes and waits follow what arrives (ours).", choices=("", "auto")
    )
    batching_latency_bound_micros: int = _flag(
        100_000, "With --batching=auto, the longest that batching may make a request take (ours).", limits=_COUNTS
    )
    request_log_max_file_bytes: int = _flag(
        64 * 2**20, "Size at which a file of a request log is full (ours).", limits=_COUNTS
    )
    request_log_max_total_bytes: int = _flag(
        2**30, "Bytes of all files of a request log; the oldest files give way (ours).", limits=_COUNTS
    )
    max_num_crashes: int = _flag(
        3,
        "Times in a row that a version may crash the server before it is not loaded again; 0 for no limit (ours).",
        limits=_COUNTS,
    )
    crash_records_path: str = _flag("", "Directory of the records of crashes; a private one in TMPDIR if empty (ours).")
    api_key_file: str = _flag("", "File of API keys, one a line, that both doors ask for (ours).")
    version: bool = _flag(False, "Print the version and exit.")


_FIELDS = {field.name: field for field in dataclasses.fields(Flags)}


@dataclass(frozen=True)
class CommandLine:
    """The flags, the arguments that are none, and the names of the flags that were given."""

    flags: Flags
    unknown: tuple[str, ...]
    given: frozenset[str]

    @property
    def not_in_effect(self) -> list[str]:
        """The flags that were given a value other than their default, and change nothing here."""
        return sorted(
            name
            for name in self.given
            if _FIELDS[name].metadata["idle"] and getattr(self.flags, name) != _FIELDS[name].default
        )

    @property
    def of_other_engines(self) -> list[tuple[str, str]]:
        """The flags that were given, and the engine that each is for, where it is not the one asked for."""
        engines = {name: _FIELDS[name].metadata["engine"] for name in sorted(self.given)}
        return [(name, engine) for name, engine in engines.items() if engine not in ("", self.flags.engine)]


def parse(arguments: Sequence[str]) -> CommandLine:
    """Parse ``--flag=value``, ``--flag value`` and, for booleans, ``--flag``. Raises BadFlag for a bad value."""
    values: dict[str, Any] = {}
    unknown: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, separator, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in _FIELDS:
            unknown.append(argument)
        elif separator:
            values[name] = _value(name, text)
        elif _FIELDS[name].type is bool:
            values[name] = True
        elif rest:
            values[name] = _value(name, rest.pop(0))
        else:
            raise BadFlag(f"--{name} needs a value")
    return CommandLine(Flags(**values), tuple(unknown), frozenset(values))


def print_usage() -> None:
    """Print every flag with its default, type and meaning."""
    print("usage: python -m cortex.model_server\nFlags:")
    for name, field in _FIELDS.items():
        default = str(field.default).lower() if field.type is bool else field.default
        print(f"\t--{name}={default}\t{_type(name).__name__}\t{field.metadata['help']}{_effect(name)}")


def _effect(name: str) -> str:
    if engine := _FIELDS[name].metadata["engine"]:
        return f" (engine {engine} only)"
    return " (no effect here)" if _FIELDS[name].metadata["idle"] else ""


def _type(name: str) -> type:
    kind = _FIELDS[name].type
    assert isinstance(kind, type)
    return kind


def _value(name: str, text: str) -> Any:
    kind, choices = _type(name), _FIELDS[name].metadata["choices"]
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise BadFlag(f"--{name} must be true or false, not {text!r}")
        return text.lower() in _TRUE
    try:
        value = kind(text)
    except ValueError as error:
        raise BadFlag(f"--{name} must be of type {kind.__name__}, not {text!r}") from error
    if choices and value not in choices:
        raise BadFlag(f"--{name} must be one of {', '.join(filter(None, choices))}, not {text!r}")
    if kind is int and value not in _FIELDS[name].metadata["limits"]:
        raise BadFlag(f"--{name} is out of range: {text}")
    return value
