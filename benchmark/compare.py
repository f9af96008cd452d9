"""``python -m benchmark compare``: every stack side by side on this machine, in one run or section by section."""

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmark import document, record, sections, tables
from benchmark.cells import BF16, FP32, INT8, Cell, Overload, Row
from benchmark.machine import this_machine
from benchmark.record import FORMS, MEMORY, OVERLOAD, STACKS, Section, named
from benchmark.sections import Effort
from benchmark.stacks import Stacks
from benchmark.subjects import Subject, resnet50, subjects
from cortex import threads
from cortex.errors import UserError
from export.progress import Step, stopwatch

_ROOT = Path(__file__).parents[1]
_RECORD = _ROOT / "docs" / "performance.json"
_QUICK_RECORD = _ROOT / "build" / "benchmark" / "quick.json"
_DOCUMENT = _ROOT / "docs" / "performance.md"
_SECTIONS = (MEMORY, STACKS, FORMS, OVERLOAD)
_PRECISIONS = (FP32, BF16, INT8)
_QUICK = Effort(0.5, 1, 1)
_THREADS_PER_CORE = 2  # that ask the engine alone: one waits while the other computes


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how."""

    subjects: dict[str, Subject]
    effort: Effort
    processor: int | None
    step: Step

    def measured(self, chosen: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Measure the sections one after the other, and yield the name and the content of each."""
        precisions, several = tuple(self.subjects), _THREADS_PER_CORE * threads.available()
        if MEMORY in chosen:
            cells = sections.memory_cells(precisions, several)
            yield MEMORY, {"memory": sections.memory(cells, self._stacks, self.step)}
        with self._stacks() as running:
            if STACKS in chosen:
                yield STACKS, {"rows": self._rows(sections.stacks(precisions, several), running)}
            if FORMS in chosen:
                yield named(FORMS, precisions[-1]), {"rows": self._rows(sections.forms(precisions[-1]), running)}
            for each in precisions if OVERLOAD in chosen else ():
                yield named(OVERLOAD, each), {"overload": (self._overload(each, running),)}

    def _stacks(self) -> Stacks:
        return Stacks(self.subjects, self.step, self.processor)

    def _rows(self, cells: list[Cell], running: Stacks) -> tuple[Row, ...]:
        return sections.measure(cells, running, self.effort, self.step)

    def _overload(self, precision: str, running: Stacks) -> Overload:
        return sections.overload(precision, running, self.effort, self.step)


@click.command()
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A SavedModel with its version directories.  [default: models/resnet50, exported when missing]",
)
@click.option("--precision", type=click.Choice(_PRECISIONS), multiple=True, default=_PRECISIONS, show_default=True)
@click.option("--only", type=click.Choice(_SECTIONS), multiple=True, help="Measure this section. May be repeated.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=2.5, show_default=True, help="Of each run.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Rounds of each section.")
@click.option(
    "--slices",
    type=click.IntRange(1),
    default=24,
    show_default=True,
    help="Rounds, of a second a run, of what is set against the engine.",
)
@click.option("--quick", is_flag=True, help="One short run of everything, only to see that it works.")
@click.option(
    "--load-processor",
    type=click.IntRange(-1),
    default=max(os.sched_getaffinity(0)),
    help="The processor that the load generator runs on, -1 for any.  [default: the last]",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the figures are kept; sections in it that are not measured stay.  [default: docs/performance.json; "
    "with --quick build/benchmark/quick.json]",
)
@click.option("--write-docs", is_flag=True, help="Measure nothing: write the kept figures into docs/performance.md.")
@click.option("--document", "document_path", type=click.Path(path_type=Path), default=_DOCUMENT, hidden=True)
def compare(
    model: Path | None,
    precision: tuple[str, ...],
    only: tuple[str, ...],
    seconds: float,
    repeats: int,
    slices: int,
    quick: bool,
    load_processor: int,
    json_path: Path | None,
    write_docs: bool,
    document_path: Path,
) -> None:
    """Compare every stack on this machine, side by side in one run.

    \b
    memory    what each stack holds, started alone
    stacks    the engine in process, the model server by gRPC, the API by HTTP with 1, 8 and 32 clients, the least that
              Python can make of both in one process, the API on TensorFlow, and Flask + Gunicorn + Keras; one small
              picture a request
    forms     the API of the last --precision: JSON, multipart and raw, a small picture and one of 12 megapixels
    overload  the API at four times the load that it carries

    Runs take turns; throughput is the mean over the rounds, latency the median. Every finished section is kept at once.
    """
    kept = json_path or (_QUICK_RECORD if quick else _RECORD)
    if write_docs:
        document.write(record.read(kept), document_path)
        return
    step = stopwatch()
    effort = _QUICK if quick else Effort(seconds, repeats, slices)
    processor = load_processor if load_processor >= 0 else None
    if processor not in (None, *os.sched_getaffinity(0)):
        raise UserError(f"--load-processor {processor}: this process may not run on it")
    found = record.begun(kept, this_machine())
    models = subjects(model or resnet50(step), _in_order(precision), step)
    comparison = Comparison(models, effort, processor, step)
    for name, content in comparison.measured(only or _SECTIONS):
        found = found.with_section(name, _section(effort, content))
        found.write(kept)
        step(f"kept section {name} in {kept}")
    click.echo(tables.markdown(found))


def _in_order(precisions: tuple[str, ...]) -> tuple[str, ...]:
    """Return precisions from the slowest to the fastest."""
    return tuple(each for each in _PRECISIONS if each in precisions)


def _section(effort: Effort, content: dict[str, Any]) -> Section:
    command = shlex.join(["scripts/bench", *sys.argv[2:]])
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return Section(command, when, effort.seconds, effort.repeats, effort.slices, **content)
