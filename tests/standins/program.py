"""What the stand-ins share: they check what they were started with as strictly as they can, and write it down.

CORTEX_STANDIN_DIR is a directory of the test: `starts.jsonl` gets one line for each start, and the files that are
locked for as long as a process holds a NeuronCore are there.
"""

import fcntl
import json
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

FLAGS = frozenset(
    {
        "port",
        "grpc_socket_path",
        "rest_api_port",
        "rest_api_num_threads",
        "rest_api_timeout_in_ms",
        "enable_batching",
        "allow_version_labels_for_unavailable_models",
        "batching_parameters_file",
        "model_config_file",
        "model_config_file_poll_wait_seconds",
        "model_name",
        "model_base_path",
        "max_num_load_retries",
        "load_retry_interval_micros",
        "file_system_poll_wait_seconds",
        "flush_filesystem_caches",
        "tensorflow_session_parallelism",
        "tensorflow_intra_op_parallelism",
        "tensorflow_inter_op_parallelism",
        "ssl_config_file",
        "platform_config_file",
        "per_process_gpu_memory_fraction",
        "saved_model_tags",
        "grpc_channel_arguments",
        "enable_model_warmup",
        "version",
        "monitoring_config_file",
        "remove_unused_fields_from_bundle_metagraph",
    }
)
"""The flags of an old TF Serving, about as old as Neuron's (1.15), which lacks many of today's."""
NEURON_CORES = 4
_held: list[int] = []


def refuse(message: str) -> NoReturn:
    """End as TF Serving does when it cannot start."""
    print(f"Failed to start server. Error: {message}", flush=True)
    sys.exit(255)


def check_flags(arguments: Collection[str]) -> None:
    """Accept `--flag` and `--flag=value` of flags that there are."""
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0]
        if not argument.startswith("--") or name not in FLAGS:
            refuse(f"unknown argument: {argument}")


def directory() -> Path:
    return Path(os.environ["CORTEX_STANDIN_DIR"])


def write_down(*names: str) -> None:
    """Record this start: the program, its arguments, and these variables of its environment."""
    row = {
        "program": Path(sys.argv[0]).name,
        "pid": os.getpid(),
        "argv": sys.argv[1:],
        "env": {name: os.environ[name] for name in names if name in os.environ},
    }
    with (directory() / "starts.jsonl").open("a") as log:
        log.write(json.dumps(row) + "\n")


def hold_cores() -> None:
    """Take the NeuronCores that the environment gives, which no other process may hold, until this one ends."""
    visible = os.environ.get("NEURON_RT_VISIBLE_CORES", "")
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", visible)
    if not match:
        refuse(f"NEURON_RT_VISIBLE_CORES={visible!r} is no range of NeuronCores")
    cores = range(int(match[1]), int(match[2] or match[1]) + 1)
    if not cores or cores[-1] >= NEURON_CORES:
        refuse(f"NEURON_RT_VISIBLE_CORES={visible} names NeuronCores that there are not")
    if os.environ.get("NEURONCORE_GROUP_SIZES") != str(len(cores)):
        refuse(f"NEURONCORE_GROUP_SIZES={os.environ.get('NEURONCORE_GROUP_SIZES')} does not go with {visible}")
    for core in cores:
        _held.append(os.open(directory() / f"core-{core}", os.O_RDWR | os.O_CREAT))
        try:
            fcntl.flock(_held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refuse(f"NeuronCore {core} belongs to another process")


def check_gpus() -> None:
    """Want to be told which GPUs there are, and not to take all of their memory."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not re.fullmatch(r"(\d+(,\d+)*)?", visible):
        refuse(f"CUDA_VISIBLE_DEVICES={visible!r} is no list of GPUs")
    if visible and os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH") != "true":
        refuse("TF_FORCE_GPU_ALLOW_GROWTH is not true")


def serve() -> None:
    """Answer `--version`, or be this project's own model server under another name."""
    if sys.argv[1:] == ["--version"]:
        print("TensorFlow ModelServer: 1.15.0-stand-in\nTensorFlow Library: 1.15.5")
        return
    from cortex.model_server.server import main

    main()
