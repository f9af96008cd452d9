"""When requests of an open loop are due, in seconds from its beginning, whatever the server does meanwhile.

A profile is a rate that changes over time in straight lines. Its arrivals are found on the integral of the rate:
evenly, one for each unit of it, or as a Poisson process, at exponentially distributed distances (time rescaling).
"""

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cortex.errors import UserError

CONSTANT, POISSON = "constant", "poisson"
_DURATION = r"(?P<seconds>\d+(?:\.\d+)?)s?"
_RAMP = re.compile(rf"ramp:(?P<first>[\d.]+)\.\.(?P<last>[\d.]+)/{_DURATION}")
_STEPS = re.compile(rf"steps:(?P<rates>[\d.]+(?:,[\d.]+)*)/{_DURATION}")
_FORMS = "ramp:10..100/30s, steps:10,20,40/10s, or a file with one arrival a line, in seconds"


class Schedule(Protocol):
    """A value that can be pickled."""

    @property
    def seconds(self) -> float:
        """How long it lasts."""

    @property
    def first_rate(self) -> float:
        """Requests per second at its beginning: what a warm-up sends."""

    def offsets(self) -> Iterator[float]:
        """Yield when requests are due, ascending. The same every time."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a profile, in which the rate goes from ``first`` to ``last`` in a straight line."""

    seconds: float
    first: float
    last: float

    @property
    def arrivals(self) -> float:
        """The integral of the rate."""
        return self.seconds * (self.first + self.last) / 2

    def when(self, arrivals: float) -> float:
        """Return the time at which the integral reaches a value: the root of a quadratic equation, in a stable form."""
        slope = (self.last - self.first) / self.seconds
        return 2 * arrivals / (self.first + math.sqrt(max(self.first**2 + 2 * slope * arrivals, 0.0)))


@dataclass(frozen=True)
class Profile:
    """Segments one after the other."""

    segments: tuple[Segment, ...]
    arrivals: str = CONSTANT
    seed: int = 1

    @property
    def seconds(self) -> float:
        return sum(segment.seconds for segment in self.segments)

    @property
    def first_rate(self) -> float:
        return self.segments[0].first or self.segments[0].last

    def offsets(self) -> Iterator[float]:
        distances = self._distances()
        begin, passed, due = 0.0, 0.0, next(distances) if self.arrivals == POISSON else 0.0
        for segment in self.segments:
            while due < passed + segment.arrivals:
                yield begin + (segment.when(due - passed) if due > passed else 0.0)
                due += next(distances)
            begin, passed = begin + segment.seconds, passed + segment.arrivals

    def _distances(self) -> Iterator[float]:
        chance = random.Random(self.seed)  # noqa: S311  # arrivals are to be repeatable, not secret
        while True:
            yield chance.expovariate(1.0) if self.arrivals == POISSON else 1.0


@dataclass(frozen=True)
class Trace:
    """Recorded arrivals."""

    times: tuple[float, ...]

    @property
    def seconds(self) -> float:
        return self.times[-1]

    @property
    def first_rate(self) -> float:
        return len(self.times) / self.seconds if self.seconds else 1.0

    def offsets(self) -> Iterator[float]:
        return iter(self.times)


def steady(rate: float, seconds: float, arrivals: str = CONSTANT) -> Profile:
    """Return one rate for all the time."""
    return Profile((Segment(seconds, rate, rate),), arrivals)


def schedule(text: str, arrivals: str = CONSTANT) -> Schedule:
    """Read what ``--schedule`` says. Raises UserError for anything but its three forms."""
    if match := _RAMP.fullmatch(text):
        segments = [(match["first"], match["last"])]
    elif match := _STEPS.fullmatch(text):
        segments = [(rate, rate) for rate in match["rates"].split(",")]
    elif text.startswith(("ramp:", "steps:")):
        raise UserError(f"{text}: not a schedule; it looks like {_FORMS}")
    else:
        return trace(Path(text))
    return Profile(tuple(_segment(text, match["seconds"], *ends) for ends in segments), arrivals)


def _segment(text: str, seconds: str, first: str, last: str) -> Segment:
    try:
        segment = Segment(float(seconds), float(first), float(last))
    except ValueError:
        raise UserError(f"{text}: not a schedule; it looks like {_FORMS}") from None
    if not segment.arrivals:
        raise UserError(f"{text}: each part needs a rate and a duration above 0")
    return segment


def trace(path: Path) -> Trace:
    """Read recorded arrivals: a number of seconds a line, ascending; lines that begin with # are left out."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', 'not a text')}; a schedule is {_FORMS}") from error
    times: list[float] = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            times.append(_time(f"{path}, line {number}", line, times[-1] if times else 0.0))
    if not times:
        raise UserError(f"{path}: no arrivals in it; write one a line, in seconds")
    return Trace(tuple(times))


def _time(where: str, line: str, before: float) -> float:
    try:
        when = float(line)
    except ValueError:
        raise UserError(f"{where}: {line.strip()!r} is not a number of seconds") from None
    if not math.isfinite(when) or when < before:
        raise UserError(f"{where}: {line.strip()} must not be before the line above, which says {before:g}")
    return when
