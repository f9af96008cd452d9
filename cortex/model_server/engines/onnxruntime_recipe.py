"""How an exported artifact wants ONNX Runtime to run it: ``assets.extra/onnxruntime.json`` of a version directory.

An artifact for GPUs states the providers it was made for, what TensorRT computes in, and the shapes that TensorRT's
engines are built for: building takes minutes, so no shape may be left to the first request that has it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cortex.model_server.engines.base import FP32, Unsupported

FILE = "assets.extra/onnxruntime.json"
TENSORRT, CUDA = "tensorrt", "cuda"
FP16, INT8 = "fp16", "int8"
PRECISIONS = (FP16, FP32, INT8)

_LONGEST = 2**16
_MOST_ELEMENTS = 2**31 - 1

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """The shapes of one input that an engine is built for: the smallest, the one it is tuned for, the largest."""

    least: Shape
    best: Shape
    most: Shape


@dataclass(frozen=True)
class Recipe:
    """The providers to try, best first (none: the CPU); TensorRT's precision; a profile for each input.

    ``int8`` says that the graph itself is quantized; ``fp16`` is what TensorRT makes of a graph in float32.
    """

    providers: tuple[str, ...] = (CUDA,)
    precision: str = FP32
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the recipe as the file has it."""
        shapes = {name: [list(each.least), list(each.best), list(each.most)] for name, each in self.profiles.items()}
        return {"providers": list(self.providers), "precision": self.precision, "profiles": shapes}


def read(directory: Path) -> Recipe | None:
    """Return the recipe of a version directory, or None without one. Raises Unsupported that names what is wrong."""
    path = directory / FILE
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > _LONGEST:
            raise ValueError(f"larger than {_LONGEST} bytes")
        return _recipe(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise Unsupported(f"cannot use {path}: {error}") from error


def _recipe(document: Any) -> Recipe:
    if not isinstance(document, dict) or document.keys() != {"providers", "precision", "profiles"}:
        raise ValueError("must be an object of providers, precision and profiles")
    providers, precision, profiles = document["providers"], document["precision"], document["profiles"]
    if not isinstance(providers, list) or any(each not in (TENSORRT, CUDA) for each in providers):
        raise ValueError(f"providers must be a list of {TENSORRT} and {CUDA}, not {providers!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if not isinstance(profiles, dict):
        raise ValueError("profiles must be an object")
    return Recipe(tuple(providers), precision, {name: _profile(name, each) for name, each in profiles.items()})


def _profile(name: str, shapes: Any) -> Profile:
    if not isinstance(shapes, list) or len(shapes) != 3:
        raise ValueError(f"profiles.{name} must be three shapes: the least, the best and the most")
    profile = Profile(*(_shape(name, shape) for shape in shapes))
    if len({len(profile.least), len(profile.best), len(profile.most)}) != 1:
        raise ValueError(f"profiles.{name}: the shapes differ in rank")
    for least, best, most in zip(profile.least, profile.best, profile.most, strict=True):
        if not least <= best <= most:
            raise ValueError(f"profiles.{name}: {least}, {best}, {most} are not in order")
    return profile


def _shape(name: str, shape: Any) -> Shape:
    if not isinstance(shape, list) or any(type(size) is not int or not 0 < size <= _MOST_ELEMENTS for size in shape):
        raise ValueError(f"profiles.{name}: {shape!r} is not a list of positive sizes")
    return tuple(shape)
