"""Where ONNX Runtime computes: its execution providers, the preferred one first, and what each is told.

TensorRT's engines hold the weights and fit one kind of GPU, one TensorRT and one ONNX Runtime. So their directory is
named by all of these and by a digest of the model: ``assets.extra/tensorrt/NAME`` of the artifact when they were built
beforehand, else one in the user's cache, which the first load fills; that takes minutes, and the log says so.
"""

import hashlib
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from cortex.model_server.engines import onnxruntime_gpu
from cortex.model_server.engines.base import FP32, EngineOptions
from cortex.model_server.engines.onnxruntime_gpu import GPU, NoGPU
from cortex.model_server.engines.onnxruntime_recipe import CUDA, FILE, FP16, INT8, TENSORRT, Profile, Recipe
from cortex.model_server.model_file import ModelFile

_log = logging.getLogger(__name__)

BUILT = "assets.extra/tensorrt"
NAMES = {TENSORRT: "TensorrtExecutionProvider", CUDA: "CUDAExecutionProvider"}
ON_CPU = "CPUExecutionProvider"

Provider = tuple[str, dict[str, str]]


@dataclass(frozen=True)
class Choice:
    """The providers of a session, best first, the CPU last; the GPU; and why a GPU that was asked for is not used."""

    providers: tuple[Provider, ...]
    gpu: GPU | None = None
    missing: str = ""


def choose(model: ModelFile, recipe: Recipe | None, options: EngineOptions) -> Choice:
    """Return what to run a model with: a GPU where the artifact was made for one."""
    if recipe is None or not recipe.providers:
        return Choice(((ON_CPU, {}),))
    try:
        gpu, offered = reach(recipe.providers)
    except NoGPU as reason:
        return Choice(((ON_CPU, {}),), missing=str(reason))
    told = {
        TENSORRT: lambda: tensorrt(recipe, engines(model, gpu)),
        CUDA: lambda: cuda(recipe, gpu, options),
    }
    return Choice((*((NAMES[each], told[each]()) for each in offered), (ON_CPU, {})), gpu)


def reach(wanted: Sequence[str]) -> tuple[GPU, list[str]]:
    """Return the GPU and those of the wanted providers that this ONNX Runtime has, ready to load. Raises NoGPU."""
    gpu = onnxruntime_gpu.find()
    offered = _offered(wanted, ort.get_available_providers())
    onnxruntime_gpu.load_libraries()
    return gpu, offered


def tensorrt(recipe: Recipe, directory: Path) -> dict[str, str]:
    """Return TensorRT's options: its precision, its engines' directory, and the shapes they are built for."""
    shapes = {
        f"trt_profile_{bound}_shapes": ",".join(_shape(name, each, part) for name, each in recipe.profiles.items())
        for bound, part in (("min", "least"), ("opt", "best"), ("max", "most"))
        if recipe.profiles
    }
    return {
        "trt_fp16_enable": str(int(recipe.precision in (FP16, INT8))),  # what int8 does not cover is not left in fp32
        "trt_int8_enable": str(int(recipe.precision == INT8)),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(directory),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(directory),
        **shapes,
    }


def cuda(recipe: Recipe, gpu: GPU, options: EngineOptions) -> dict[str, str]:
    """Return CUDA's options. A graph in fp32 is not rounded to TF32, unless its artifact allows for fp16."""
    told = {"use_tf32": str(int(recipe.precision != FP32)), "cudnn_conv_algo_search": "HEURISTIC"}
    if options.gpu_memory_fraction:
        told["gpu_mem_limit"] = str(int(gpu.memory * options.gpu_memory_fraction))
    return told


def precision(recipe: Recipe | None, provider: str) -> str:
    """Return what a provider computes this artifact in: fp16 is TensorRT's doing, int8 is in the graph."""
    if recipe is None or (recipe.precision == FP16 and provider != NAMES[TENSORRT]):
        return FP32
    return recipe.precision


def engines(model: ModelFile, gpu: GPU) -> Path:
    """Return the directory with TensorRT's engines for this model and GPU; the user's cache if none were shipped."""
    name = engines_name(model, gpu)
    if (shipped := model.directory / BUILT / name).is_dir():
        return shipped
    cached = _cache() / name
    cached.mkdir(parents=True, exist_ok=True)
    if not any(cached.iterdir()):
        _log.warning("%s has no TensorRT engines for %s: building them takes minutes", model.directory, gpu.name)
    return cached


def engines_name(model: ModelFile, gpu: GPU) -> str:
    """Return the name of the directory of engines that may be used for exactly this model on exactly this machine."""
    capability = gpu.capability.replace(".", "")
    versions = f"tensorrt{onnxruntime_gpu.tensorrt_version()}-onnxruntime{ort.__version__}"
    return f"sm{capability}-{versions}-{_digest(model)[:16]}"


def _offered(wanted: Sequence[str], available: Collection[str]) -> list[str]:
    offered = [each for each in wanted if NAMES[each] in available]
    if not offered:
        names = " or ".join(NAMES[each] for each in wanted)
        raise NoGPU(f"this onnxruntime has no {names}: pip install onnxruntime-gpu in its place")
    return offered


def _digest(model: ModelFile) -> str:
    """Return the SHA-256 of the graph, of weights kept in files beside it, and of the recipe."""
    total = hashlib.sha256()
    recipe = model.directory / FILE
    for path in (*sorted(model.directory.glob(f"{model.path.name}*")), *[recipe] * recipe.is_file()):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cortex" / "tensorrt"


def _shape(name: str, profile: Profile, part: str) -> str:
    sizes: Any = getattr(profile, part)
    return f"{name}:{'x'.join(map(str, sizes))}"
