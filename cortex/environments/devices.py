"""What this machine can compute with."""

import os
from pathlib import Path


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> int:
    """Return how many NVIDIA GPUs the driver shows."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def neuron_devices() -> int:
    """Return how many AWS Inferentia devices the driver shows."""
    return len(list(Path("/dev").glob("neuron[0-9]*")))
