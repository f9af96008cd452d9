"""What is measured, as frozen values: a cell is one stack under one load, a run is what it did once."""

from dataclasses import astuple, dataclass
from statistics import median

from benchmark.processes import Memory
from benchmark.usage import QUIET

ENGINE, MODEL_SERVER, API, TENSORFLOW, FLASK = "engine", "model server", "API", "API, TensorFlow engine", "Flask"
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
        return f"{self.stack}, {self.form}" if self.stack in (ENGINE, MODEL_SERVER) else self.stack

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
        return median(run.rate for run in self.runs)

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

    def times(self, other: "Row") -> float:
        """Return the ratio of throughputs: the median over the rounds, whose pairs had the same minutes."""
        return median(mine.rate / its.rate for mine, its in zip(self.runs, other.runs, strict=True))

    def slower(self, other: "Row") -> float:
        """Return the ratio of median latencies, in the same way."""
        return median(mine.p50 / its.p50 for mine, its in zip(self.runs, other.runs, strict=True))

    def later(self, other: "Row") -> float:
        """Return the difference of median latencies in seconds, in the same way."""
        return median(mine.p50 - its.p50 for mine, its in zip(self.runs, other.runs, strict=True))


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
    taken: float


@dataclass(frozen=True)
class Overload:
    """The floods of one API, which takes ``admitted`` requests at once. ``bound`` is on latency, in seconds."""

    precision: str
    bound: float
    admitted: int
    floods: tuple[Flood, ...]

    @property
    def kept(self) -> float:
        """The share of its best throughput that the API still serves in time."""
        return median(flood.within / flood.best for flood in self.floods)

    @property
    def typical(self) -> Flood:
        """The medians of every figure, and the worst of what failed and of what others took."""
        best, offered, within, refused, failed, taken = zip(*map(astuple, self.floods), strict=True)
        return Flood(median(best), median(offered), median(within), median(refused), max(failed), max(taken))

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
