"""The NVIDIA GPU that this process sees, and the TensorRT that it would build engines with."""

import contextlib
import ctypes
import importlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import onnxruntime as ort

_TENSORRT = ("libnvinfer.so.10", "libnvinfer.so.11", "libnvinfer.so.8")
_QUERY = "name,compute_cap,driver_version,memory.total"
_PATIENCE_S = 30.0  # a driver that has to wake the GPU takes seconds


class NoGPU(Exception):
    """Say why there is none."""


@dataclass(frozen=True)
class GPU:
    """One GPU: its name, its compute capability (``9.0``), the driver's version, and its memory in bytes."""

    name: str
    capability: str
    driver: str
    memory: int


def find() -> GPU:
    """Return the GPU that CUDA's device 0 is here, as nvidia-smi describes it. Raises NoGPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = "0" if visible is None else visible.split(",")[0].strip()
    if first in ("", "-1"):
        raise NoGPU(f"CUDA_VISIBLE_DEVICES={visible} hides every GPU")
    if shutil.which("nvidia-smi") is None:
        raise NoGPU("there is no nvidia-smi, which comes with NVIDIA's driver")
    argv = ["nvidia-smi", "-i", first, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoGPU(f"nvidia-smi: {error}") from error
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[:200]
        raise NoGPU(f"nvidia-smi ended with {done.returncode}: {said}")
    return _parse(done.stdout)


def load_libraries() -> None:
    """Load CUDA's and TensorRT's libraries from their wheels, where the linker does not look by itself.

    Libraries of the system are found without it, and what is missing is told by the session that needs it.
    """
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(Exception):
        ort.preload_dlls()
    with contextlib.suppress(ImportError, OSError):
        importlib.import_module("tensorrt")


def tensorrt_version() -> int:
    """Return the version of the TensorRT that is loaded, as its library counts (101303 is 10.13.3); 0 without one."""
    for name in _TENSORRT:
        with contextlib.suppress(OSError, AttributeError):
            return int(ctypes.CDLL(name).getInferLibVersion())
    return 0


def _parse(answer: str) -> GPU:
    fields = [field.strip() for field in answer.splitlines()[0].split(",")] if answer.strip() else []
    try:
        name, capability, driver, mebibytes = fields
        float(capability)
        return GPU(name, capability, driver, int(mebibytes) * 2**20)
    except ValueError as error:
        raise NoGPU(f"nvidia-smi answers {answer.strip()[:200]!r}") from error
