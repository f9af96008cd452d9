"""The line that tells how a load goes."""

import io
from contextlib import suppress
from dataclasses import replace

import pytest
from rich.console import Console

from cortex.loadtest.live import PLAIN_INTERVAL, Line, line
from cortex.loadtest.progress import Progress

PROGRESS = Progress("measuring", 13.2, 1400, None, 201.4, 402.8, 0.0184, 0.0362, 1, 3)


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _console(terminal: bool, width: int = 120) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width)


def _written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_line_has_everything() -> None:
    """Rate, percentiles, errors, requests in flight, and the time or the number that is left."""
    rest = "201.4 req/s  p99 36.2 ms  1 error  p50 18.4 ms  3 in flight"
    assert line(PROGRESS) == f"measuring 13 s left  {rest}  402.8 inferences/s"
    assert line(replace(PROGRESS, left=None, total=2000, inference_rate=201.4)) == f"measuring 1,400 of 2,000  {rest}"


@pytest.mark.parametrize("width", range(20, 120, 7))
def test_a_narrow_terminal_gets_the_first_of_it(width: int) -> None:
    """What does not fit is left out as a whole, the least important first."""
    shown = line(PROGRESS, width)
    assert len(shown) <= max(width, len("measuring 13 s left"))
    assert line(PROGRESS).startswith(shown)


def test_a_terminal_shows_one_line_that_changes() -> None:
    """It is drawn over, and gone at the end."""
    console = _console(terminal=True)
    with Line(console) as live:
        live(PROGRESS)
        live(replace(PROGRESS, stage="\x1b[2Jdone"))
    written = _written(console)
    assert "done 13 s left" in written
    assert "\x1b[2J" not in written
    assert written.endswith("\x1b[2K")


def test_elsewhere_a_line_comes_every_few_seconds() -> None:
    """A log gets whole lines: the first, one per interval, and one when a new stage begins."""
    console, clock = _console(terminal=False, width=40), _Clock()
    with Line(console, clock=clock) as live:
        for _ in range(81):
            live(PROGRESS)
            clock.now += PLAIN_INTERVAL / 40
        live(replace(PROGRESS, stage="confirming"))
    lines = _written(console).splitlines()
    assert [each.split()[0] for each in lines] == ["measuring", "measuring", "measuring", "confirming"]
    assert lines[0] == line(PROGRESS)


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_silent(terminal: bool) -> None:
    """A script gets nothing but what it asked for."""
    console = _console(terminal)
    with Line(console, quiet=True) as live:
        live(PROGRESS)
    assert _written(console) == ""


def test_an_error_leaves_the_terminal_as_it_was() -> None:
    """The cursor is shown again when a run fails."""
    console = _console(terminal=True)
    with suppress(RuntimeError), Line(console) as live:
        live(PROGRESS)
        raise RuntimeError
    assert "\x1b[?25h" in _written(console)
