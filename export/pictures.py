"""Pictures as the model's users send them: decoded, turned upright, resized and cropped by ``predictor.py`` itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from cortex.errors import UserError
from cortex.protos import meta_graph_pb2, types_pb2
from export.signature import IMAGE_SIZE

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})

_SHAPE = (1, IMAGE_SIZE, IMAGE_SIZE, 3)


class BrokenPicture(ValueError):
    """Say which picture cannot be decoded, and why."""


def reader(signature: meta_graph_pb2.SignatureDef) -> Callable[[str, bytes], dict[str, NDArray[Any]]]:
    """Return what turns a name and an encoded picture into the inputs of one request; it raises BrokenPicture.

    Raises UserError for a signature that takes anything but ``uint8 [n, 224, 224, 3]``: how a picture becomes the
    input of another one is not known here.
    """
    alias = _input(signature)
    try:
        from predictor import pixels
    except ImportError as error:
        raise UserError(
            f"predictor.py, which decodes pictures, cannot be imported ({error}): run this in the project's directory"
        ) from error

    def read(name: str, data: bytes) -> dict[str, NDArray[Any]]:
        try:
            return {alias: np.asarray(pixels(name, data))[np.newaxis]}
        except HTTPException as error:
            raise BrokenPicture(error.detail) from error

    return read


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and the folders in it, also where these are links, as they are in subsets of a set.

    A link that leads back to a folder on the way to it is not followed.
    """
    for parent, folders, names in os.walk(folder, followlinks=True):
        here = Path(parent)
        way = {each.resolve() for each in (here, *here.parents)}
        folders[:] = [each for each in folders if (here / each).resolve() not in way]
        yield from (path for path in (here / name for name in names) if path.is_file())


def _input(signature: meta_graph_pb2.SignatureDef) -> str:
    """Return the alias of the one input."""
    for alias, info in signature.inputs.items():
        sizes = [dim.size for dim in info.tensor_shape.dim]
        fits = len(sizes) == len(_SHAPE) and all(size in (-1, want) for size, want in zip(sizes, _SHAPE, strict=True))
        if len(signature.inputs) == 1 and info.dtype == types_pb2.DT_UINT8 and fits:
            return str(alias)
    raise UserError(
        f"--calibration: pictures fit a model whose only input is uint8 [-1, {IMAGE_SIZE}, {IMAGE_SIZE}, 3]; for this "
        "one pass TFRecords of PredictionLogs, which a model server's logging_config collects"
    )
