"""The flags, as the options of the parts that they are for. Raises StatusError for flags that contradict each other."""

import errno
import logging
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cortex.line import address
from cortex.model_server import config, tls
from cortex.model_server.api_key import ApiKeys
from cortex.model_server.batching_parameters import BatchingSource
from cortex.model_server.config import ModelConfig
from cortex.model_server.crashes import Crashes, default_directory
from cortex.model_server.engines.base import BF16, EngineOptions
from cortex.model_server.engines.selection import AUTO
from cortex.model_server.flags import Flags
from cortex.model_server.grpc import GrpcOptions, parse_arguments
from cortex.model_server.lifecycle import Retries
from cortex.model_server.repository import RepositoryOptions
from cortex.model_server.request_log import RequestLogOptions
from cortex.model_server.servable import LoadOptions
from cortex.model_server.status import invalid

_log = logging.getLogger(__name__)


def has_rest(flags: Flags) -> bool:
    """Say whether the REST door opens: it was asked for, and not on gRPC's own port."""
    return bool(flags.rest_api_port) and flags.rest_api_port != flags.port


def check_doors(flags: Flags) -> None:
    """Raise StatusError where the flags open no door, or another server's: the models would be loaded for nobody."""
    if not (flags.port or flags.grpc_socket_path or flags.rest_api_port):
        raise invalid("server_options.grpc_port is not set, nor --grpc_socket_path or --rest_api_port")
    if flags.grpc_socket_path and _is_open(flags.grpc_socket_path):  # gRPC would take it from the other server
        raise invalid(f"Failed to BuildAndStart gRPC server: unix:{flags.grpc_socket_path} is in use")


def _is_open(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.setblocking(False)
        return connection.connect_ex(path) in (0, errno.EAGAIN)  # it is taken, or waits for its turn
    return False


def models(flags: Flags) -> Sequence[ModelConfig]:
    """Return the models to serve: those of the config file, or the one that the flags name."""
    if flags.model_config_file:
        models = config.read(Path(flags.model_config_file))
        if models is None:
            _log.info("Taking no action for empty config.")
        return models or ()
    if not flags.model_base_path:
        raise invalid("Both server_options.model_base_path and server_options.model_config_file are empty!")
    return [config.single(flags.model_name, flags.model_base_path)]


def batching(flags: Flags) -> BatchingSource | None:
    """Return where the batching parameters come from, or None when batching is off."""
    is_auto = flags.batching == AUTO
    if flags.batching_parameters_file and not (flags.enable_batching or is_auto):
        raise invalid(
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
        )
    if not (flags.enable_batching or is_auto):
        return None
    if is_auto and flags.batching_latency_bound_micros < 1:
        raise invalid(f"--batching_latency_bound_micros must be positive, not {flags.batching_latency_bound_micros}")
    return BatchingSource(
        file=Path(flags.batching_parameters_file) if flags.batching_parameters_file else None,
        per_model=flags.enable_per_model_batching_parameters,
        latency_bound_micros=flags.batching_latency_bound_micros if is_auto else 0,
    )


def load_options(flags: Flags) -> LoadOptions:
    """Return how versions are loaded."""
    session, intra, inter = (
        flags.tensorflow_session_parallelism,
        flags.tensorflow_intra_op_parallelism,
        flags.tensorflow_inter_op_parallelism,
    )
    if session and intra and inter:
        raise invalid(
            "tensorflow_session_parallelism is set together with tensorflow_intra_op_parallelism and "
            "tensorflow_inter_op_parallelism; set the first, or the other two."
        )
    bfloat16 = flags.mixed_precision == "bfloat16" and flags.precision == AUTO
    return LoadOptions(
        engine="tensorflow" if bfloat16 and flags.engine == AUTO else flags.engine,
        precision=BF16 if bfloat16 else flags.precision,
        options=EngineOptions(
            threads=flags.inference_threads,
            interpreters=max(1, flags.num_tflite_pools) * max(1, flags.num_tflite_interpreters_per_pool),
            intra_op_threads=intra or session,
            inter_op_threads=inter or session,
            session_config_file=flags.tensorflow_session_config_file,
            gpu_memory_fraction=flags.per_process_gpu_memory_fraction,
        ),
        tags=frozenset(flags.saved_model_tags.split(",")),
        prefer_tflite=flags.prefer_tflite_model,
        warm_up=flags.enable_model_warmup,
        warm_up_iterations=max(1, flags.num_request_iterations_for_warmup),
    )


def repository_options(flags: Flags) -> RepositoryOptions:
    """Return how the repository polls and loads."""
    return RepositoryOptions(
        poll_interval=flags.file_system_poll_wait_seconds,
        load_threads=flags.num_load_threads if flags.num_load_threads > 0 else RepositoryOptions.load_threads,
        retries=Retries(
            max(0, flags.max_num_load_retries), min(flags.load_retry_interval_micros / 1e6, threading.TIMEOUT_MAX)
        ),
        labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
    )


def crashes(flags: Flags) -> Crashes:
    """Return what is known of versions that crashed the server; another engine or precision is another matter."""
    directory = Path(flags.crash_records_path) if flags.crash_records_path else default_directory()
    return Crashes(directory, flags.max_num_crashes, repr(load_options(flags)))


def request_log(flags: Flags) -> RequestLogOptions:
    """Return the limits of request logs."""
    return RequestLogOptions(
        max_file_bytes=max(1, flags.request_log_max_file_bytes),
        max_total_bytes=max(1, flags.request_log_max_total_bytes),
    )


def line(flags: Flags, keys: ApiKeys) -> str:
    """Return where the line listens: beside gRPC's Unix socket, unless that is guarded by keys or TLS."""
    guarded = bool(flags.ssl_config_file or keys)
    return address(flags.grpc_socket_path) if flags.grpc_socket_path and not guarded else ""


def grpc_options(flags: Flags, keys: ApiKeys) -> GrpcOptions:
    """Return where and how gRPC listens, and for whom."""
    if flags.use_alts_credentials:
        raise invalid("--use_alts_credentials is not supported; --ssl_config_file is")
    return GrpcOptions(
        port=flags.port,
        socket_path=flags.grpc_socket_path,
        threads=max(1, flags.grpc_max_threads),
        arguments=parse_arguments(flags.grpc_channel_arguments),
        credentials=tls.credentials(Path(flags.ssl_config_file)) if flags.ssl_config_file else None,
        health=flags.enable_grpc_healthcheck_service,
        profiler=flags.enable_profiler,
        keys=keys,
    )
