"""What the figures are to show, and whether they do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmark.cells import API, BF16, ENGINE, FLASK, FP32, INT8, Row
from benchmark.record import MEMORY, STACKS, Record
from benchmark.sections import MIDDLE

_OF_ENGINE = {FP32: 0.95, BF16: 0.92, INT8: 0.88}
_LATER = 3e-3  # seconds
_TIMES_FLASK = {BF16: 4.4, INT8: 7.0}
_MEMORY = {BF16: 1 / 3, INT8: 1 / 6}
_LATENCY = 1 / 5
_KEPT = 0.95


@dataclass(frozen=True)
class Aim:
    """A figure as it is to be, and as it was found. ``valid`` tells that the machine was ours meanwhile."""

    what: str
    wanted: str
    found: str
    holds: bool
    valid: bool = True


def find(rows: Sequence[Row], stack: str, precision: str, clients: int) -> Row | None:
    """Return the row of a stack."""
    for row in rows:
        if (row.cell.stack, row.cell.precision, row.cell.clients) == (stack, precision, clients):
            return row
    return None


def engine(rows: Sequence[Row], precision: str, clients: int | None = None) -> Row | None:
    """Return the row of the engine alone: at its best setting for throughput, or with as many threads."""
    found = [row for row in rows if (row.cell.stack, row.cell.precision) == (ENGINE, precision)]
    found = [row for row in found if clients in (None, row.cell.clients)]
    return max(found, key=lambda row: row.rate, default=None)


def aims(record: Record) -> list[Aim]:
    """Return the aims that the record has figures for."""
    return [aim for source in (_stacks, _memory, _overload) for aim in source(record)]


def _stacks(record: Record) -> Iterator[Aim]:
    section = record.sections.get(STACKS)
    if section:
        yield from _beside_engine(section.rows)
        yield from _beside_flask(section.rows)


def _beside_engine(rows: Sequence[Row]) -> Iterator[Aim]:
    for precision, least in _OF_ENGINE.items():
        ours, best = find(rows, API, precision, MIDDLE), engine(rows, precision)
        if ours and best:
            yield _at_least(f"API of the engine, {precision}, {MIDDLE} clients", least, ours, best, "{:.1%}")
    for precision in _OF_ENGINE:
        ours, best = find(rows, API, precision, 1), engine(rows, precision, 1)
        if ours and best:
            later = ours.later(best)
            what = f"median latency above the engine's, {precision}, 1 client"
            holds, valid = later <= _LATER, ours.valid and best.valid
            yield Aim(what, f"at most {_LATER * 1e3:.0f} ms", f"{later * 1e3:.2f} ms", holds, valid)


def _beside_flask(rows: Sequence[Row]) -> Iterator[Aim]:
    for precision, least in _TIMES_FLASK.items():
        ours, theirs = find(rows, API, precision, MIDDLE), find(rows, FLASK, FP32, MIDDLE)
        if ours and theirs:
            yield _at_least(
                f"throughput of Flask's, {precision}, {MIDDLE} clients", least, ours, theirs, "{:.2f} times"
            )
    for precision in _TIMES_FLASK:
        ours, theirs = find(rows, API, precision, 1), find(rows, FLASK, FP32, 1)
        if ours and theirs:
            what = f"median latency of Flask's, {precision}, 1 client"
            yield _at_most(what, _LATENCY, ours.slower(theirs), ours.valid and theirs.valid)


def _at_least(what: str, least: float, ours: Row, other: Row, form: str) -> Aim:
    found = ours.times(other)
    holds, valid = found.value >= least, ours.valid and other.valid
    return Aim(what, f"at least {form.format(least)}", form.format(found), holds, valid)


def _at_most(what: str, most: float, found: float, valid: bool = True) -> Aim:
    return Aim(what, f"at most {most:.1%}", f"{found:.1%}", found <= most, valid)


def _memory(record: Record) -> Iterator[Aim]:
    section = record.sections.get(MEMORY)
    held = {(each.stack, each.precision): each for each in (section.memory if section else ())}
    theirs = held.get((FLASK, FP32))
    for precision, most in _MEMORY.items():
        ours = held.get((API, precision))
        if ours and theirs:
            yield _at_most(f"memory of Flask's, {precision}", most, ours.memory.pss / theirs.memory.pss)


def _overload(record: Record) -> Iterator[Aim]:
    for each in (each for section in record.sections.values() for each in section.overload):
        what, failed = f"kept of the best throughput at 4 times the load, {each.precision}", each.typical.failed
        found = f"{each.kept:.1%}, {failed:.1%} failed or late"
        holds = each.kept.value >= _KEPT and not failed
        yield Aim(what, f"at least {_KEPT:.1%}, the rest refused", found, holds, each.valid)
