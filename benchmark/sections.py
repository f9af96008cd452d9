"""The parts of the comparison. Each can be measured alone; within one, the runs of all cells take turns."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmark import processes
from benchmark.cells import (
    API,
    ENGINE,
    FLASK,
    FP32,
    GRPC,
    IN_PROCESS,
    JSON,
    LARGE,
    LINE,
    MODEL_SERVER,
    MULTIPART,
    ONE_PROCESS,
    RAW,
    SMALL,
    TENSORFLOW,
    Cell,
    Flood,
    Held,
    Overload,
    Row,
    Run,
)
from benchmark.payloads import payload
from benchmark.processes import Memory
from benchmark.stacks import Answered, Stacks
from cortex.errors import UserError
from cortex.loadtest import ClosedLoop, OpenLoop, Result
from cortex.loadtest.schedules import steady
from export.progress import Step

CLIENTS = (1, 8, 32)
MIDDLE = 8
"""The clients of the figures that are set against the engine's."""
MODEL_SERVER_CLIENTS = 4
BOUND = 1.0
"""Seconds within which an answer under overload counts."""
_SLICE = 1.0  # seconds
_TIMES = 4  # the capacity is offered
_ADMITTED = 16  # requests at once: half a second of work at 32/s, and so within the bound
_FLOOD_THREADS = 128
_REFUSED = "HTTP 503"

Runner = Callable[[Cell, float], Run]


@dataclass(frozen=True)
class Effort:
    """How long each run takes, and how often it is repeated; ``slices`` are runs of a second at most.

    The engine of a precision and what stands close to it are compared in slices, that an unsteady machine is as fast
    for the one as for the other. Floods are as long as other runs, and half as many as the slices.
    """

    seconds: float
    repeats: int
    slices: int


def stacks(precisions: Sequence[str], threads: int) -> list[Cell]:
    """Return the cells of every stack with one small picture a request; the engine alone with 1 and some threads."""
    cells = []
    for each in precisions:
        cells += [Cell(ENGINE, each, IN_PROCESS, SMALL, n) for n in (1, threads)]
        cells += [Cell(MODEL_SERVER, each, form, SMALL, MODEL_SERVER_CLIENTS) for form in (GRPC, LINE)]
        cells += [Cell(API, each, JSON, SMALL, n) for n in CLIENTS]
        cells.append(Cell(ONE_PROCESS, each, GRPC, SMALL, MODEL_SERVER_CLIENTS))
        cells += [Cell(ONE_PROCESS, each, JSON, SMALL, n) for n in (1, MIDDLE)]
    cells += [Cell(TENSORFLOW, FP32, JSON, SMALL, n) for n in CLIENTS if FP32 in precisions]
    return cells + [Cell(FLASK, FP32, MULTIPART, SMALL, n) for n in CLIENTS]


def forms(precision: str) -> list[Cell]:
    """Return the cells of every form of a request, and of the only one that Flask takes."""
    kinds = [(picture, form) for picture in (SMALL, LARGE) for form in (JSON, MULTIPART, RAW)]
    ours = [Cell(API, precision, form, picture, n) for picture, form in kinds for n in CLIENTS]
    return ours + [Cell(FLASK, FP32, MULTIPART, picture, MIDDLE) for picture in (SMALL, LARGE)]


def measure(cells: Sequence[Cell], running: Stacks, effort: Effort, step: Step) -> tuple[Row, ...]:
    """Run every cell as often as the effort says; those of one group take turns."""
    for cell in cells:
        running.start(cell)
    for cell in cells:
        if cell.picture == SMALL and cell.clients <= MIDDLE:  # as good as any other, and sooner over
            step(f"warming up: {cell}")
            running.warm_up(cell)
    rows: dict[Cell, Row] = {}
    for group, seconds, repeats in _groups(cells, effort):
        rows |= {row.cell: row for row in rounds(group, running.run, seconds, repeats, step)}
    return tuple(rows[cell] for cell in cells)


def _groups(cells: Sequence[Cell], effort: Effort) -> Iterator[tuple[list[Cell], float, int]]:
    """Yield cells that take turns, with the seconds of each run and the number of rounds."""
    left = list(cells)
    for precision in dict.fromkeys(cell.precision for cell in cells if cell.stack == ENGINE):
        close = [cell for cell in left if cell.precision == precision and _is_close(cell)]
        yield close, min(_SLICE, effort.seconds), effort.slices
        left = [cell for cell in left if cell not in close]
    yield left, effort.seconds, effort.repeats


def _is_close(cell: Cell) -> bool:
    return cell.stack in (ENGINE, MODEL_SERVER, ONE_PROCESS) or (cell.stack == API and cell.clients <= MIDDLE)


def rounds(cells: Sequence[Cell], run: Runner, seconds: float, repeats: int, step: Step) -> tuple[Row, ...]:
    """Run each cell once a round, in the opposite order every other round."""
    runs: dict[Cell, list[Run]] = {cell: [] for cell in cells}
    for number in range(repeats):
        for cell in cells if number % 2 == 0 else reversed(cells):
            step(f"round {number + 1} of {repeats}: {cell}")
            runs[cell].append(run(cell, seconds))
    return tuple(Row(cell, tuple(found)) for cell, found in runs.items())


def overload(precision: str, running: Stacks, effort: Effort, step: Step) -> Overload:
    """Find what an API carries, and offer it several times that, in turns."""
    api = running.deployment(precision, admitted=_ADMITTED)
    sent = payload(JSON, SMALL)
    floods = []
    repeats = max(effort.repeats, effort.slices // 2)
    for number in range(repeats):
        step(f"round {number + 1} of {repeats}: overload, {precision}")
        closed = running.http(api, ClosedLoop(threads=MIDDLE, seconds=effort.seconds), sent)
        best = closed.result.requests_per_second
        if closed.result.errors or not best:
            raise UserError(f"{API}, {precision}: requests failed: {dict(closed.result.errors)}")
        schedule = steady(_TIMES * best, effort.seconds)
        opened = running.http(api, OpenLoop(schedule, threads=_FLOOD_THREADS), sent)
        floods.append(flood(best, _TIMES * best, opened, max(closed.taken, opened.taken)))
    return Overload(precision, BOUND, _ADMITTED, tuple(floods))


def flood(best: float, offered: float, answered: Answered, taken: float) -> Flood:
    """Sum up one round of overload."""
    result = answered.result
    total = result.requests + result.failed
    if not total:
        raise UserError("overload: no request was answered in time")
    within = _within(result)
    refused = sum(count for kind, count in result.errors.items() if kind.startswith(_REFUSED))
    share = within / result.seconds if result.seconds else 0.0
    return Flood(best, offered, share, refused / total, (total - within - refused) / total, answered.load, taken)


def memory(cells: Iterable[Cell], alone: Callable[[], Stacks], step: Step) -> tuple[Held, ...]:
    """Start one stack after the other, alone, since what two share would be counted half in each."""
    found = []
    for cell in cells:
        step(f"memory: {cell}")
        with alone() as running:
            seconds = running.start(cell)
            running.warm_up(cell)
            held: Memory = processes.memory(running.processes(cell))
        found.append(Held(cell.stack, cell.precision, held, seconds))
    return tuple(found)


def memory_cells(precisions: Sequence[str], threads: int) -> list[Cell]:
    """Return a cell for each stack; the model server is a part of the API."""
    chosen = {ENGINE: threads, API: MIDDLE, TENSORFLOW: MIDDLE, FLASK: MIDDLE}
    return [cell for cell in stacks(precisions, threads) if chosen.get(cell.stack) == cell.clients]


def _within(result: Result) -> int:
    """Return how many were answered within the bound."""
    return sum(count for value, count in result.latency.values() if value <= BOUND) if result.latency else 0
