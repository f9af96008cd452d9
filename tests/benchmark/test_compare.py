"""From runs to what the documents say: rounds, ratios, aims, tables, plot, and the kept record."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from benchmark import aims, compare, document, plot, record, sections, tables
from benchmark.cells import (
    API,
    BF16,
    ENGINE,
    FLASK,
    FP32,
    GRPC,
    IN_PROCESS,
    INT8,
    JSON,
    LARGE,
    MODEL_SERVER,
    MULTIPART,
    SMALL,
    TENSORFLOW,
    Cell,
    Flood,
    Held,
    Overload,
    Row,
    Run,
)
from benchmark.commands import commands
from benchmark.machine import Machine
from benchmark.processes import Memory
from benchmark.record import Record, Section
from benchmark.sections import Effort
from benchmark.stacks import Answered
from cortex.errors import UserError
from cortex.loadtest import Result
from cortex.loadtest.latency import histogram, latency
from cortex.loadtest.latency import record as count

MACHINE = Machine("a processor", 2, 8.0, "Linux 6", "3.11.7")


def row(stack: str, precision: str, clients: int, *rates: float, p50: float = 0.01, taken: float = 0.0) -> Row:
    form = {ENGINE: IN_PROCESS, MODEL_SERVER: GRPC, FLASK: MULTIPART}.get(stack, JSON)
    cell = Cell(stack, precision, form, SMALL, clients)
    return Row(cell, tuple(Run(rate, p50, 0.05, taken) for rate in rates))


def section(**content: object) -> Section:
    return Section("scripts/bench", "2026-01-02T03:04:05+00:00", 3.0, 3, **content)  # type: ignore[arg-type]


@pytest.fixture
def measured() -> Record:
    """A record of every kind of section: int8 misses one aim, and somebody else was busy while fp32 ran."""
    rows = (
        row(ENGINE, FP32, 1, 40.0, p50=0.025),
        row(ENGINE, FP32, 4, 50.0, p50=0.08),
        row(API, FP32, 1, 36.0, p50=0.027),
        row(API, FP32, 8, 48.0, taken=0.5),
        row(ENGINE, INT8, 1, 80.0, p50=0.010),
        row(ENGINE, INT8, 4, 100.0),
        row(MODEL_SERVER, INT8, 4, 97.0),
        row(API, INT8, 1, 70.0, p50=0.0142),
        row(API, INT8, 8, 90.0),
        row(TENSORFLOW, FP32, 8, 25.0),
        row(FLASK, FP32, 1, 8.0, p50=0.142),
        row(FLASK, FP32, 8, 10.0),
    )
    kept = (Held(API, INT8, Memory(400, 300), 3.0), Held(FLASK, FP32, Memory(3000, 2400), 20.0))
    floods = Overload(INT8, 1.0, 16, (Flood(100.0, 400.0, 97.0, 0.75, 0.0, 0.2, 0.01),))
    large = [replace(each, cell=replace(each.cell, picture=LARGE)) for each in (row(API, INT8, 8, 30.0),)]
    return (
        Record(MACHINE)
        .with_section(record.MEMORY, section(memory=kept))
        .with_section(record.STACKS, section(rows=rows))
        .with_section(record.named(record.FORMS, INT8), section(rows=(rows[8], *large)))
        .with_section(record.named(record.OVERLOAD, INT8), section(overload=(floods,)))
    )


def test_rounds_take_turns() -> None:
    """Every round runs each cell once, and every other one goes backwards; a row keeps the order of the rounds."""
    cells = [Cell(API, FP32, JSON, SMALL, n) for n in (1, 2, 3)]
    ran: list[int] = []

    def run(cell: Cell, seconds: float) -> Run:
        ran.append(cell.clients)
        return Run(float(len(ran)), seconds, 0.0, 0.0)

    rows = sections.rounds(cells, run, 0.5, 3, lambda _: None)
    assert ran == [1, 2, 3, 3, 2, 1, 1, 2, 3]
    assert [[run.rate for run in each.runs] for each in rows] == [[1, 6, 7], [2, 5, 8], [3, 4, 9]]


def test_a_ratio_has_the_error_of_its_rounds() -> None:
    """What slows down both of a round is in no ratio, and hardly in its error; other numbers of runs have none."""
    ours, theirs = row(API, FP32, 8, 90.0, 45.0, 181.0), row(ENGINE, FP32, 4, 100.0, 50.0, 200.0)
    ratio = ours.times(theirs)
    assert ratio.value == pytest.approx(316 / 350)
    assert ratio.error == pytest.approx(0.0018, abs=1e-4)
    assert f"{ratio:.1%}" == "90.3% ±0.2"
    other = row(FLASK, FP32, 8, 10.0)
    assert (ours.times(other).error, f"{ours.times(other):.1f} times") == (None, "10.5 times")
    assert row(API, FP32, 1, 1.0, p50=0.012).later(row(ENGINE, FP32, 1, 1.0, p50=0.01)) == pytest.approx(0.002)


def test_what_is_close_takes_turns_by_the_second() -> None:
    """An engine, its model server, its API with few clients, and one process; all else in the usual runs."""
    cells = sections.stacks((FP32, INT8), 4)
    groups = list(sections._groups(cells, Effort(2.5, 3, 24)))
    assert [(len(group), seconds, repeats) for group, seconds, repeats in groups] == [
        (9, 1.0, 24),
        (9, 1.0, 24),
        (8, 2.5, 3),
    ]
    assert {cell for group, _, _ in groups for cell in group} == set(cells)
    assert [len(group) for group, _, _ in sections._groups(sections.forms(INT8), Effort(2.5, 3, 24))] == [20]


def test_every_stack_is_measured() -> None:
    """The cells are what docs/performance.md promises: forms, pictures, clients, and every reference."""
    cells = sections.stacks((FP32, INT8), 4)
    assert len(cells) == len(set(cells)) == 2 * 10 + 3 + 3
    assert {cell.clients for cell in cells if cell.stack == API} == {1, 8, 32}
    assert {cell.clients for cell in cells if cell.stack == ENGINE} == {1, 4}
    forms = sections.forms(INT8)
    ours = [cell for cell in forms if cell.stack == API]
    assert len(set(ours)) == 3 * 2 * 3
    assert [each.stack for each in sections.memory_cells((FP32,), 4)] == [ENGINE, API, TENSORFLOW, FLASK]


def test_flood() -> None:
    """Only answers within the bound count; 503 is a refusal, and late answers and other errors are failures."""
    found = histogram()
    for seconds in (0.2, 0.4, sections.BOUND + 0.5):
        count(found, seconds)
    errors = {"HTTP 503 Service Unavailable": 6, "timeout": 1}
    result = Result(seconds=2.0, requests=3, inferences=3, latency=latency(found), errors=errors)
    flood = sections.flood(1.25, 5.0, Answered(result, 0.0), 0.02)
    assert (flood.within, flood.refused, flood.failed, flood.taken) == (1.0, 0.6, 0.2, 0.02)
    worse = Flood(1.25, 5.0, 0.5, 0.7, 0.3, 0.2, 0.0)
    found = Overload(FP32, 1.0, 16, (flood, worse, flood))
    assert found.kept.value == pytest.approx(2.5 / 3.75)
    assert found.kept.error == pytest.approx(0.1333, abs=1e-4)
    assert (found.typical.within, found.typical.failed, found.typical.taken) == (1.0, 0.3, 0.02)


def test_aims(measured: Record) -> None:
    """Each aim says what was found, whether it holds, and whether the machine was ours."""
    found = {aim.what: (aim.found, aim.holds, aim.valid) for aim in aims.aims(measured)}
    assert found == {
        "API of the engine, fp32, 8 clients": ("96.0%", True, False),
        "API of the engine, int8, 8 clients": ("90.0%", True, True),
        "median latency above the engine's, fp32, 1 client": ("2.00 ms", True, True),
        "median latency above the engine's, int8, 1 client": ("4.20 ms", False, True),
        "throughput of Flask's, int8, 8 clients": ("9.00 times", True, True),
        "median latency of Flask's, int8, 1 client": ("10.0%", True, True),
        "memory of Flask's, int8": ("12.5%", True, True),
        "kept of the best throughput at 4 times the load, int8": ("97.0%, 0.0% failed or late", True, True),
    }
    assert aims.aims(Record(MACHINE)) == []


def test_tables(measured: Record) -> None:
    """Every section has a table, well formed, with ratios before absolutes, its command and the machine."""
    text = tables.markdown(measured)
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert [len({line.count("|") for line in block.splitlines()}) for block in blocks] == [1] * 5
    stacks = blocks[2].splitlines()
    names = [name.strip() for name in stacks[0].split("|")]
    assert names.index("of the engine") < names.index("throughput of Flask's") < names.index("answers/s")
    [ours] = [line for line in stacks if line.startswith("| API ") and "int8" in line and "| 8 " in line]
    assert [cell.strip() for cell in ours.split("|")][4:8] == ["90.0%", "", "9.00 times", "90.0"]
    assert sum("(not valid)" in line for line in stacks) == 1
    assert "33.3%" in blocks[3]
    assert text.count("    scripts/bench") == 4
    assert text.endswith(f"{MACHINE}.")


def test_plot(measured: Record) -> None:
    """The plot is XML that stands alone, with a bar for each stack, and colors for light and for dark pages."""
    drawn = plot.svg(measured.sections[record.STACKS].rows)
    root = ElementTree.fromstring(drawn)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 7
    assert "prefers-color-scheme: dark" in drawn
    assert "int8  API: 90.0" in drawn


def test_document(measured: Record, tmp_path: Path) -> None:
    """Only what is between the two comments changes, and writing again changes nothing."""
    path = tmp_path / "performance.md"
    path.write_text("before\n")
    with pytest.raises(UserError, match=r"performance\.md: has no place for it"):
        document.write(measured, path)
    assert path.read_text() == "before\n"
    path.write_text(f"before\n{document.FIGURES.begin}\nstale\n{document.FIGURES.end}\nafter\n")
    document.write(measured, path)
    first = path.read_text()
    assert first.startswith(f"before\n{document.FIGURES.begin}\n\n![")
    assert first.endswith(f"\n\n{document.FIGURES.end}\nafter\n")
    assert "stale" not in first
    assert (tmp_path / "performance.svg").exists()
    document.write(measured, path)
    assert path.read_text() == first


def test_record(measured: Record, tmp_path: Path) -> None:
    """A record is read back as it was; a section measured again replaces the old one, and the others stay."""
    path = tmp_path / "kept" / "record.json"
    assert record.begun(path, MACHINE) == Record(MACHINE)
    measured.write(path)
    assert record.read(path) == record.begun(path, MACHINE) == measured
    again = measured.with_section(record.STACKS, section(rows=()))
    assert list(again.sections) == list(measured.sections)
    assert [name for name in again.sections if again.sections[name] != measured.sections[name]] == [record.STACKS]
    assert json.loads(path.read_text())["machine"]["cpu"] == "a processor"


def test_records_that_cannot_be_used(measured: Record, tmp_path: Path) -> None:
    """Figures of another machine are not mixed in, and what is no record is refused by name."""
    path = tmp_path / "record.json"
    with pytest.raises(UserError, match=r"record\.json: No such file or directory; measure first"):
        record.read(path)
    measured.write(path)
    with pytest.raises(UserError, match=r"record\.json: figures of another machine \(2 cores of a processor"):
        record.begun(path, replace(MACHINE, cores=4))
    path.write_text("[]")
    with pytest.raises(UserError, match=r"record\.json: not a record"):
        record.read(path)


def test_precisions_have_an_order() -> None:
    """The forms are measured with the fastest of the precisions that are asked for."""
    assert compare._in_order((INT8, FP32)) == (FP32, INT8)
    assert compare._in_order((BF16,)) == (BF16,)


@pytest.mark.parametrize("command", [["compare"], ["compare", "--quick"], ["startup"]])
def test_a_file_that_cannot_be_written(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before anything is measured."""
    measured: list[object] = []
    for name in ("benchmark.startup.measured", "benchmark.compare.subjects"):
        monkeypatch.setattr(name, lambda *asked: measured.append(asked))
    done = CliRunner().invoke(commands, [*command, "--json", "/dev/null/figures.json"])
    assert (done.exit_code, measured) == (1, [])
    assert done.stderr.startswith("Error: /dev/null/figures.json: ")
    assert "\n" not in done.stderr.strip()


def test_a_processor_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before anything is measured, too."""
    monkeypatch.setattr("benchmark.compare.subjects", lambda *_: pytest.fail("it was measured"))
    options = ["--load-processor", "9999", "--json", str(tmp_path / "figures.json"), "--model", str(tmp_path)]
    done = CliRunner().invoke(commands, ["compare", *options])
    assert (done.exit_code, done.stderr) == (1, "Error: --load-processor 9999: this process may not run on it\n")


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that somebody chose is not exported to: only the default is."""
    made: list[object] = []
    monkeypatch.setattr("benchmark.subjects._export", lambda *asked: made.append(asked))
    options = ["--only", "memory", "--precision", "fp32", "--json", str(tmp_path / "figures.json")]
    done = CliRunner().invoke(commands, ["compare", "--model", str(tmp_path / "resnet5"), *options])
    assert (done.exit_code, made) == (2, [])
    assert "resnet5' does not exist" in done.stderr
