"""What an engine is: something that runs the signatures of one model.

An engine is opened on a `SavedModel` or a `ModelFile`, answers `run` from many threads at once, and is closed when its
version unloads. It raises `Unsupported` when it is opened on a model it cannot run, and `StatusError` for a request it
cannot answer.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cortex.errors import Error
from cortex.model_server.model_file import Model
from cortex.model_server.saved_model import Signatures
from cortex.model_server.status import Code, StatusError
from cortex.threads import available

Array = NDArray[Any]
Arrays = dict[str, Array]

BF16 = "bf16"
FP32 = "fp32"
_FOREVER = 30 * 24 * 3600.0  # a call without a deadline has billions of seconds left, as gRPC tells it


class Unsupported(Error):
    """Say, in one line, why this engine cannot run this model."""


class UnsupportedPrecision(Unsupported):
    """Say that this machine does not compute in the precision asked for; another precision may still run."""


@dataclass(frozen=True)
class EngineOptions:
    """What an engine may be told; an engine ignores what it has no use for.

    ``precision`` is ``fp32`` or ``bf16``. ``threads`` is the number of CPU threads for one request, 0 for all.
    ``every_signature`` asks for a refusal when any signature of the model cannot run, not just the first.
    ``interpreters`` bounds the requests that run at once in TF Lite, 0 for one per CPU.
    """

    precision: str = FP32
    threads: int = 0
    interpreters: int = 0
    every_signature: bool = False
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    session_config_file: str = ""
    gpu_memory_fraction: float = 0.0

    @property
    def cores(self) -> int:
        """The threads that all of this engine's requests share: as asked for, or one for each core there is."""
        return self.threads or available()


@dataclass(frozen=True)
class Description:
    """What is really running: the engine, the precision it computes in, its threads for one request, and how many
    streams these divide into when requests come together."""

    engine: str
    precision: str
    threads: int
    streams: int = 1

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())


class Engine(Protocol):
    """One loaded model. Every method but `close` may be called from several threads at once."""

    @property
    def signatures(self) -> Signatures:
        """What the model states or, of a graph without signatures, what the engine makes of it."""
        ...

    @classmethod
    def open(cls, model: Model, options: EngineOptions) -> Self:
        """Load the model. Raises Unsupported when this engine cannot run it."""
        ...

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str], deadline: float | None = None
    ) -> Arrays:
        """Return the named outputs of one signature, as arrays the caller owns.

        ``deadline`` is a point on `time.monotonic`'s clock. Raises StatusError for inputs the model refuses.
        """
        ...

    def describe(self) -> Description:
        """Return what is really running."""
        ...

    def close(self) -> None:
        """Give the model's memory back; called once, after the last `run` has returned."""
        ...


def remaining(deadline: float | None) -> float | None:
    """Return the seconds left until the deadline, or None without one. Raises DEADLINE_EXCEEDED when there are none."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise timed_out()
    return left


def deadline_after(seconds: float) -> float | None:
    """Return when that many seconds from now are over, by `time.monotonic`; None where it is as good as never."""
    return time.monotonic() + seconds if seconds < _FOREVER else None


def timed_out() -> StatusError:
    """Return the error of a run that outlived its deadline, in TensorFlow's words."""
    return StatusError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")


def fitted(array: Array, rank: int | None) -> Array:
    """Return the array with the declared rank where only dimensions of size one differ, else as it is.

    TF Serving's session accepts a rank-1 tensor for an input declared ``[-1,1]``; its clients rely on it.
    """
    if rank is None or array.ndim == rank:
        return array
    if array.ndim < rank:
        return array.reshape(array.shape + (1,) * (rank - array.ndim))
    tail = array.shape[rank:]
    return array.reshape(array.shape[:rank]) if set(tail) == {1} else array


def size_of(array: Array) -> int:
    """Return the bytes of a tensor's values; of strings those of their text."""
    return sum(map(len, array.flat)) if array.dtype == np.object_ else int(array.nbytes)


def writable(array: Array) -> Array:
    """Return the array as contiguous memory that a native library may hold; copies only when it is not that already."""
    return np.require(array, requirements=["C", "W"])


def one_line(error: Exception) -> str:
    """Return what a native library said, on one line of bounded length."""
    return " ".join(str(error).split())[:500]
