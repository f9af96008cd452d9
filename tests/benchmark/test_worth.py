"""What each recommended setting is worth: pairs of launches, and the table that they end in."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmark import document, worth
from benchmark.commands import commands
from cortex.topology import Topology


def test_the_ratio_is_that_of_a_pair() -> None:
    """Each changed rate is set against the recommended one of its own pair, whose minutes it had."""
    found = worth.Worth(worth.Change("openvino", "x"), ((10.0, 5.0), (100.0, 50.0), (20.0, 20.0)))
    assert found.ratio == 0.5


def test_each_change_departs_from_what_is_recommended() -> None:
    """A change changes something, and no two of an engine have the same name."""
    found = worth.changes(cores=4)
    assert all(each.options or each.environ for each in found)
    assert len({(each.framework, each.what) for each in found}) == len(found)


def test_the_cores_are_those_of_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several sockets a launch takes the first, so that two threads for each core are two for each of its cores."""
    monkeypatch.setattr(worth, "this_topology", lambda: Topology({0: ((0,), (1,), (2,)), 1: ((3,), (4,), (5,))}, 6))
    monkeypatch.setattr(worth, "_measured", lambda change, *_: worth.Worth(change, ((1.0, 1.0),)))
    done = CliRunner().invoke(commands, ["worth", "--framework", "openvino"])
    assert "threads: 6, two for each core" in done.output


def test_the_time_is_that_of_the_whole_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress counts seconds from the start of the command, not anew for each setting."""
    watches = []

    def measured(change: worth.Change, *rest: object) -> worth.Worth:
        watches.append(rest[-1])
        return worth.Worth(change, ((1.0, 1.0),))

    monkeypatch.setattr(worth, "_measured", measured)
    CliRunner().invoke(commands, ["worth", "--framework", "openvino"])
    assert len(watches) > len(set(watches)) == 1


def test_it_launches_and_writes(classifiers: Path, tmp_path: Path) -> None:
    """Every change of an engine is launched for real; the table stands in its place of the document."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{document.SETTINGS.begin}\nstale\n{document.SETTINGS.end}\nafter\n")
    options = ["--framework", "openvino", "--images", "8", "--batch-size", "4", "--rounds", "1"]
    arguments = ["--in-graph", str(classifiers / "saved"), *options, "--write-docs", "--document", str(page)]
    done = CliRunner().invoke(commands, ["worth", *arguments])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "stale" not in text
    for change in worth.changes(cores=1):
        if change.framework == "openvino" and not change.what.startswith("threads"):
            assert re.search(rf"\| openvino \| {change.what} +\| [\d.]+ times +\|", text), text


def test_what_the_launcher_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch that fails ends the command with the launcher's own words; a path is one from where the command is."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(commands, ["worth", "--in-graph", "none", "--framework", "openvino"])
    assert done.exit_code == 1
    assert f"\nError: openvino, as recommended: --in-graph {tmp_path}/none: No such file or directory" in done.output


def test_an_engine_without_settings_is_refused() -> None:
    """There would be nothing to measure, and the table would be empty."""
    done = CliRunner().invoke(commands, ["worth", "--framework", "onnxruntime"])
    assert done.exit_code == 2
    assert "'onnxruntime' is not one of 'tensorflow', 'openvino'" in done.output


def test_a_document_without_a_place_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of measurement is not made for a document that cannot take it."""
    monkeypatch.setattr(worth, "_measured", lambda *_: pytest.fail("it was measured"))
    arguments = ["--in-graph", str(tmp_path), "--write-docs", "--document", str(tmp_path / "none.md")]
    done = CliRunner().invoke(commands, ["worth", *arguments])
    assert (done.exit_code, done.stderr) == (1, f"Error: {tmp_path}/none.md: No such file or directory\n")


def test_a_document_that_goes_away_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured is printed all the same."""
    page = tmp_path / "page.md"
    page.write_text(f"{document.SETTINGS.begin}\n{document.SETTINGS.end}\n")

    def measured(change: worth.Change, *_: object) -> worth.Worth:
        page.unlink(missing_ok=True)
        return worth.Worth(change, ((1.0, 2.0),))

    monkeypatch.setattr(worth, "_measured", measured)
    arguments = ["--framework", "openvino", "--write-docs", "--document", str(page)]
    done = CliRunner().invoke(commands, ["worth", *arguments])
    assert done.exit_code == 1
    assert "| openvino | threads: 1 " in done.stdout
    assert done.stderr == f"Error: {page}: No such file or directory\n"
