"""What one command found: a run, and what was made of several, as frozen values.

A `Report` is everything. It always has one `Result`: of the run, of the sweep's knee, or of the run that confirmed a
latency bound. The rest of it is there when it was asked for.

``Report.as_dict()`` is the JSON file: keys are the field names, ``schema`` is `SCHEMA`, and keys are only ever added to
one version of it. ``Report.from_dict`` reads it back.
"""

from dataclasses import asdict, dataclass
from typing import Any

from cortex.errors import UserError
from cortex.loadtest.results import Result, read_back

SCHEMA = "cortex.loadtest/1"


@dataclass(frozen=True)
class Point:
    """One run of a sweep. ``value`` is the number of connections, or the rate asked for in requests/s."""

    value: float
    result: Result


@dataclass(frozen=True)
class Sweep:
    """Runs over one setting, ascending."""

    over: str
    """``connections`` or ``rate``."""
    points: tuple[Point, ...]
    knee: int | None
    """Index of the point after which latency grows faster than throughput; None when the sweep does not reach it."""
    words: str
    """A sentence or more for people."""


@dataclass(frozen=True)
class Objective:
    """A bound on a latency percentile: ``p99`` at most ``bound`` seconds."""

    percentile: float
    bound: float

    @property
    def name(self) -> str:
        return f"p{self.percentile:g}"


@dataclass(frozen=True)
class Trial:
    """One rate of a search, in requests/s, and whether it held the objective."""

    rate: float
    held: bool
    why: str
    """What decided it, such as ``p99 41.2 ms``."""
    result: Result


@dataclass(frozen=True)
class Search:
    """The search for the highest rate that holds an objective. ``trials`` stand in the order in which they were run."""

    objective: Objective
    trials: tuple[Trial, ...]
    rate: float | None
    """The highest rate that held, in requests/s, confirmed by a longer run; None when none did."""
    words: str


@dataclass(frozen=True)
class Change:
    """One figure of two runs. ``low`` and ``high`` bound ``after / before`` with 95 % confidence (bootstrap)."""

    name: str
    """``requests/s``, ``latency p50``, ``latency p99``, ..."""
    before: float
    after: float
    ratio: float
    low: float
    high: float
    verdict: str
    """``better``, ``worse`` or ``no change``: the last whenever 1.0 lies between ``low`` and ``high``."""


@dataclass(frozen=True)
class Comparison:
    """This run against an earlier one."""

    source: str
    """The file that holds the earlier one."""
    before: Result
    changes: tuple[Change, ...]
    words: str


@dataclass(frozen=True)
class Check:
    """One condition of ``--assert``."""

    text: str
    """As it was written: ``p99<100ms``."""
    actual: str
    """What was measured, in the unit of the condition: ``41.2ms``."""
    passed: bool


@dataclass(frozen=True)
class Report:
    """Everything that one command found."""

    result: Result
    sweep: Sweep | None = None
    search: Search | None = None
    comparison: Comparison | None = None
    checks: tuple[Check, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values that ``json.dumps`` takes, under `SCHEMA`."""
        whole = asdict(self)
        whole["result"] = self.result.as_dict()
        if self.sweep:
            for plain, point in zip(whole["sweep"]["points"], self.sweep.points, strict=True):
                plain["result"] = point.result.as_dict()
        if self.search:
            for plain, trial in zip(whole["search"]["trials"], self.search.trials, strict=True):
                plain["result"] = trial.result.as_dict()
        if self.comparison:
            whole["comparison"]["before"] = self.comparison.before.as_dict()
        return {"schema": SCHEMA} | whole

    @staticmethod
    def from_dict(source: str, data: Any) -> "Report":
        """Read back what `as_dict` wrote. Raises UserError, naming the source, for anything else.

        Of a sweep, a search and a comparison only the result is read.
        """
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise UserError(f"{source}: not a report of throughput_test.py --json (its schema must be {SCHEMA})")
        try:
            return Report(read_back(data["result"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{source}: not a whole report; write it again with --json") from error
