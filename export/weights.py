"""Where the numbers of a ResNet-50 come from: ImageNet, a file, or a seed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cortex.errors import UserError
from export.progress import reason

if TYPE_CHECKING:
    import keras

_SUFFIXES = (".h5", ".keras")
_SILENCE_S = 30.0  # of the download's server, before we give up


@dataclass(frozen=True)
class Weights:
    """The choice of ``--weights``: ``path`` is set for a file, ``seed`` for random ones."""

    kind: Literal["imagenet", "random", "file"]
    path: Path | None = None
    seed: int | None = None


def parse(text: str, seed: int) -> Weights:
    """Return the choice that ``--weights`` makes; UserError for one that is no choice, or a file that is not there."""
    if text == "imagenet":
        return Weights("imagenet")
    if text == "random":
        return Weights("random", seed=seed)
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # Path's raises for no such user
    if path.suffix not in _SUFFIXES:
        raise UserError(f"--weights {text}: must be imagenet, random, or a file that ends in {' or '.join(_SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"--weights {text}: there is no such file")
    return Weights("file", path=path)


def network(weights: Weights) -> keras.Model:
    """Return Keras' ResNet-50 (float32 BGR ``[n, 224, 224, 3]`` -> softmax ``[n, 1000]``) with these weights.

    Raises UserError when they cannot be downloaded, read, or are not those of a ResNet-50 with 1,000 classes.
    """
    if weights.kind == "imagenet":
        return _imagenet()
    if weights.path is not None:
        return _from_file(weights.path)
    return _random(weights.seed or 0)


def digest(model: keras.Model) -> str:
    """Return the SHA-256 of the weight values, layer by layer in the order of the network, as little-endian bytes.

    The same weights have the same digest, whether they were downloaded or read from either kind of file.
    """
    total = hashlib.sha256()
    for values in model.get_weights():
        total.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
    return total.hexdigest()


def _random(seed: int) -> keras.Model:
    """Use Keras' own initializers: their answers are well spread over the classes, and mean nothing."""
    import keras

    keras.utils.set_random_seed(seed)
    return keras.applications.ResNet50(weights=None)


def _imagenet() -> keras.Model:
    import keras

    try:
        with _download():
            return keras.applications.ResNet50(weights="imagenet")
    except Exception as error:  # Keras raises it bare when a download fails
        raise UserError(
            f"cannot get the ImageNet weights ({reason(error).rstrip('.:')}): download them elsewhere and pass "
            "--weights PATH (.h5 or .keras), or pass --weights random, whose labels mean nothing"
        ) from error


def _from_file(path: Path) -> keras.Model:
    import keras

    model = keras.applications.ResNet50(weights=None)
    try:
        with warnings.catch_warnings(action="ignore"):  # what Keras warns of here, it also raises
            model.load_weights(path)
    except Exception as error:  # Keras, h5py and zipfile each raise their own
        problem = f"not the weights of a ResNet-50 with 1,000 classes ({reason(error).rstrip('.:')})"
        raise UserError(f"--weights {path}: {problem}") from error
    return model


@contextlib.contextmanager
def _download() -> Iterator[None]:
    """Let Keras download: its progress goes to stderr, and a silent server ends it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_S)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)
