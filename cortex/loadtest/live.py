"""The line that tells how a load goes while it runs."""

import time
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cortex.loadtest import units
from cortex.loadtest.progress import Progress

PLAIN_INTERVAL = 5.0
"""Seconds between two lines where lines cannot be written over."""


class Line:
    """Show progress on a console: one line that changes on a terminal, one every few seconds elsewhere, none if quiet.

    A context manager, called with each `Progress`. Leaving it clears the line of a terminal.
    """

    def __init__(self, console: Console, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._quiet = quiet
        self._clock = clock
        self._live: Live | None = None
        self._stage = ""
        self._next = 0.0

    def __enter__(self) -> "Line":
        if self._console.is_terminal and not self._quiet:
            self._live = Live(Text("starting ..."), console=self._console, transient=True, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        if self._live:
            self._live.update(Text(line(progress, self._console.width), no_wrap=True, overflow="ellipsis"))
        elif not self._quiet and self._due(progress.stage):
            self._console.print(Text(line(progress)), soft_wrap=True)

    def _due(self, stage: str) -> bool:
        """Tell whether it is time for a plain line: every few seconds, and at once when a new stage begins."""
        now = self._clock()
        due = stage != self._stage or now >= self._next
        if due:
            self._stage, self._next = stage, now + PLAIN_INTERVAL
        return due


def line(progress: Progress, width: int | None = None) -> str:
    """Return progress in one line. What does not fit into ``width`` columns is left out, the least important first."""
    head, *parts = _parts(progress)
    kept = head
    for part in parts:
        longer = f"{kept}  {part}"
        if width is not None and len(longer) > width:
            break
        kept = longer
    return kept


def _parts(progress: Progress) -> Iterable[str]:
    yield f"{units.text(progress.stage)} {_done(progress)}"
    yield f"{units.number(progress.rate)} req/s"
    yield f"p99 {units.duration(progress.p99)}"
    yield f"{progress.errors:,} {'error' if progress.errors == 1 else 'errors'}"
    yield f"p50 {units.duration(progress.p50)}"
    yield f"{progress.in_flight:,} in flight"
    if progress.inference_rate != progress.rate:
        yield f"{units.number(progress.inference_rate)} inferences/s"


def _done(progress: Progress) -> str:
    if progress.left is not None:
        return f"{units.clock(progress.left)} left"
    return f"{progress.done:,} of {progress.total:,}" if progress.total is not None else f"{progress.done:,}"
