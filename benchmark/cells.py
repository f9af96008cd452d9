"""What is measured, as frozen values: a cell is one stack under one load, a run is what it did once."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from statistics import mean, median, stdev

from benchmark.processes import Memory
from benchmark.usage import QUIET

ENGINE, MODEL_SERVER, API, ONE_PROCESS = "engine", "model server", "API", "one process"
TENSORFLOW, FLASK = "API, TensorFlow engine", "Flask"
FP32, BF16, INT8 = "fp32", "bf16", "int8"
JSON, MULTIPART, RAW = "json", "multipart", "raw"
SMALL, LARGE = "small", "large"
IN_PROCESS, GRPC, LINE = "in process", "gRPC", "line"


@dataclass(frozen=True)
class Cell:
    """One stack under one load. ``form`` is how a picture travels, ``clients`` how many ask at the same time."""

    stack: str
    precision: str
    form: str
    picture: str
    clients: int

    @property
    def name(self) -> str:
        """What a table calls it: stacks that are asked in one way only need not say in which."""
        return f"{self.stack}, {self.form}" if self.stack in (ENGINE, MODEL_SERVER, ONE_PROCESS) else self.stack

    @property
    def asks_the_model(self) -> bool:
        """Whether its clients send tensors for a model, not requests for an API."""
        return self.form in (GRPC, LINE)

    def __str__(self) -> str:
        clients = f"{self.clients} client{'s' * (self.clients > 1)}"
        return f"{self.stack}, {self.precision}, {self.form}, {self.picture} picture, {clients}"


@dataclass(frozen=True)
class Run:
    """One run of a cell."""

    rate: float
    """Answers per second."""
    p50: float
    """The median latency in seconds."""
    load: float
    """Processors that the load generator used."""
    taken: float
    """Processors that others took meanwhile."""


@dataclass(frozen=True)
class Row:
    """A cell with its runs, in the order of the rounds."""

    cell: Cell
    runs: tuple[Run, ...]

    @property
    def rate(self) -> float:
        return mean(run.rate for run in self.runs)

    @property
    def p50(self) -> float:
        return median(run.p50 for run in self.runs)

    @property
    def load(self) -> float:
        return median(run.load for run in self.runs)

    @property
    def taken(self) -> float:
        """The most that others took in any run."""
        return max(run.taken for run in self.runs)

    @property
    def valid(self) -> bool:
        return self.taken <= QUIET

    def times(self, other: "Row") -> "Ratio":
        """Return the ratio of throughputs over all runs, since a machine may be twice as fast in the next second."""
        return _ratio([run.rate for run in self.runs], [run.rate for run in other.runs])

    def slower(self, other: "Row") -> float:
        """Return the ratio of median latencies."""
        return self.p50 / other.p50

    def later(self, other: "Row") -> float:
        """Return the difference of median latencies in seconds."""
        return self.p50 - other.p50


@dataclass(frozen=True)
class Ratio:
    """A ratio of means, and its standard error where the runs of both took turns."""

    value: float
    error: float | None = None

    def __format__(self, form: str) -> str:
        """Write the value in this form, with the error behind it: ``94.7% ±1.2``."""
        if self.error is None:
            return format(self.value, form)
        return f"{self.value:{form}} ±{format(self.error, form).removesuffix('%')}"


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the ratio of the means; values that came in pairs have an error too."""
    ratio = mean(ours) / mean(theirs)
    if len(ours) != len(theirs) or len(ours) < 2:
        return Ratio(ratio)
    off = [mine - ratio * its for mine, its in zip(ours, theirs, strict=True)]
    return Ratio(ratio, stdev(off) / mean(theirs) / math.sqrt(len(off)))


@dataclass(frozen=True)
class Flood:
    """One round of an API that is offered several times what it carries, by an open loop."""

    best: float
    """Answers per second that a closed loop got a moment before."""
    offered: float
    """Requests per second that were due."""
    within: float
    """Answers per second whose latency, from when they were due, was within the bound."""
    refused: float
    """The share of requests answered with 503."""
    failed: float
    """The share of requests that ended in any other way, or were answered too late."""
    load: float
    """Processors that the load generator used."""
    taken: float


@dataclass(frozen=True)
class Overload:
    """The floods of one API, which takes ``admitted`` requests at once. ``bound`` is on latency, in seconds."""

    precision: str
    bound: float
    admitted: int
    floods: tuple[Flood, ...]

    @property
    def kept(self) -> Ratio:
        """The share of its best throughput that the API still serves in time, over all rounds."""
        return _ratio([flood.within for flood in self.floods], [flood.best for flood in self.floods])

    @property
    def typical(self) -> Flood:
        """The medians of every figure, and the worst of what failed and of what others took."""
        *medians, failed, load, taken = zip(*map(astuple, self.floods), strict=True)
        return Flood(*[*map(median, medians), max(failed), median(load), max(taken)])

    @property
    def valid(self) -> bool:
        return self.typical.taken <= QUIET


@dataclass(frozen=True)
class Held:
    """What a stack holds in memory when it runs alone, after a load, and how many seconds it took to be up."""

    stack: str
    precision: str
    memory: Memory
    seconds: float
