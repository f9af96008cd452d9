"""The closing table, on consoles wide and narrow."""

import io
import re
from dataclasses import replace
from html import escape

import pytest
from rich.console import Console

from cortex.loadtest import html, units
from cortex.loadtest import report as reports
from cortex.loadtest.findings import Report


def _printed(report: Report, width: int = 100, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, _environ={"TERM": "xterm-256color"})
    console.print(reports.table(report))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize(
    "line",
    [
        "throughput 199.8 requests/s",
        "p99 1.84 s 36.2 ms",
        "errors 35 (0.87 %)",
        "HTTP 503 Service Unavailable 31",
        "8 (knee) 178 39.7 ms 47.7 ms 0 %",
        "192 held p99 80.0 ms",
        "latency p99 +15.8% +5.0% to +25.0% worse",
        "server execute 9.40 ms",
        "cost 0.24 for a million inferences",
        "replicas 3 for 1,000 inferences/s, 1.02 an hour",
        "errors<0.1% does not hold: 0.87%",
        "sent late 12 (0.3 %), by 4.10 ms at most",
    ],
)
def test_everything_found_is_in_the_table(whole: Report, line: str) -> None:
    """Figures have their names and units, those from sending beside those from the due time."""
    assert line in [" ".join(each.split()) for each in _printed(whole).splitlines()]


def test_what_an_interruption_left(whole: Report) -> None:
    """Requests that had no answer when the run was interrupted are told in the table and on the page."""
    result = replace(whole.result, interrupted=True, unanswered=1404)
    report = replace(whole, result=result)
    assert re.search(r"^unanswered +1,404 when it was interrupted", _printed(report), re.MULTILINE)
    assert "1,404 requests had no answer yet." in html.page(report)


def test_what_loadgen_says(whole: Report) -> None:
    """The verdict on a scenario stands among what one must know before believing the figures."""
    words = "LoadGen's verdict: INVALID: 3 requests failed, which LoadGen does not know"
    settings = dict(whole.result.settings) | {"LoadGen": words.partition(": ")[2]}
    report = replace(whole, result=replace(whole.result, settings=settings))
    assert words in _printed(report).splitlines()
    assert f'<li class="warn">{escape(words)}</li>' in html.page(report)


@pytest.mark.parametrize("width", [40, 46, 80, 200])
@pytest.mark.parametrize("name", ["whole", "plain", "unanswered", "hostile"])
def test_every_width_holds_every_figure(width: int, name: str, request: pytest.FixtureRequest) -> None:
    """No line is longer than the console, and no figure is cut off."""
    report = request.getfixturevalue(name)
    printed = _printed(report, width)
    assert max(map(len, printed.splitlines())) <= width
    assert "…" not in printed
    if report.result.latency:
        assert units.duration(report.result.latency.p99) in printed


def test_errors_of_a_server_do_not_style_the_terminal(hostile: Report) -> None:
    """Markup and escape sequences in what came from outside show as text."""
    printed = _printed(hostile, 200, terminal=True)
    assert "[bold]" in printed
    assert "\x1b[31m" not in printed
    assert set(re.findall(r"\x1b\[([\d;]*)m", printed)) <= {"0", "1", "33", "32", "1;31"}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (units.duration(0.0412), "41.2 ms"),
        (units.duration(8.5e-5), "85.0 µs"),
        (units.duration(0.0009996), "1.00 ms"),
        (units.duration(2.049), "2.05 s"),
        (units.duration(0), "0 s"),
        (units.duration(None), "–"),  # noqa: RUF001  # the dash that stands for nothing
        (units.tick(0.03), "30 ms"),
        (units.tick(1), "1 s"),
        (units.clock(125), "2:05 min"),
        (units.clock(3725), "1:02:05 h"),
        (units.clock(6.6), "7 s"),
        (units.clock(60), "1:00 min"),
        (units.clock(3600), "1:00:00 h"),
        (units.share(0), "0 %"),
        (units.share(1e-9), "< 0.001 %"),
        (units.share(0.99999), "> 99.9 %"),
        (units.share(0.125), "12.5 %"),
        (units.number(2531.4), "2,531"),
        (units.number(41.23), "41.2"),
        (units.number(9.996), "10.0"),
        (units.number(1.5), "1.50"),
        (units.number(0.996), "1.00"),
        (units.number(0.0123), "0.0123"),
        (units.number(999.96), "1,000"),
        (units.size(489_700_000), "490 MB"),
        (units.size(12), "12 B"),
        (units.money(0.236), "0.24"),
        (units.text({"a": [1, True], "b": None}), "a: 1, yes, b: –"),  # noqa: RUF001  # the same dash
    ],
)
def test_figures_read_well(shown: str, expected: str) -> None:
    """A number, a space, a unit; three digits."""
    assert shown == expected
