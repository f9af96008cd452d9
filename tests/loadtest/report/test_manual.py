"""docs/throughput_test.md: it names what there is."""

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

import throughput_test
from cortex.loadtest import findings, results
from cortex.loadtest.latency import Latency

MANUAL = Path(throughput_test.__file__).with_name("docs") / "throughput_test.md"


def test_the_manual_has_every_option_and_no_other() -> None:
    """Options of the command and of the manual's tables are the same."""
    options = {name for each in throughput_test.main.params if isinstance(each, click.Option)
               for name in (*each.opts, *each.secondary_opts)}  # fmt: skip
    tables = MANUAL.read_text().partition("## Options")[2].partition("## Reading")[0]
    first = (row.split(" | ")[0] for row in tables.splitlines() if row.startswith("| `"))
    named = {name for cell in first for name in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", cell)}
    assert named == options | {"--help"}


@pytest.mark.parametrize(
    "kind",
    [
        findings.Change,
        findings.Check,
        results.Client,
        findings.Comparison,
        results.Cost,
        findings.Objective,
        findings.Point,
        findings.Report,
        results.Result,
        findings.Search,
        results.Server,
        results.Stage,
        results.Steady,
        findings.Sweep,
        findings.Trial,
        results.Window,
        Latency,
    ],
)
def test_the_manual_has_every_key_of_the_json(kind: type) -> None:
    """A field of a report is a key of the file, so its name is in the manual."""
    text = MANUAL.read_text().partition("**JSON**")[2]
    assert [each.name for each in fields(kind) if f"`{each.name}`" not in text] == []


def test_the_manual_shows_pictures_that_are_there() -> None:
    """Every picture that is referred to is a small PNG file."""
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", MANUAL.read_text()):
        data = (MANUAL.parent / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) < 300_000
