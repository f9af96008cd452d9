"""The figures of a record as tables in Markdown that are legible as they are: ratios first, absolutes beside them."""

from collections.abc import Sequence
from itertools import zip_longest

from benchmark.aims import Aim, aims, engine, find
from benchmark.cells import API, ENGINE, FLASK, FP32, JSON, MULTIPART, SMALL, Row
from benchmark.record import FORMS, STACKS, Record, Section
from benchmark.sections import MIDDLE

_NONE = ""
_NOT_VALID = " (not valid)"
_MEASURED = ("answers/s", "median latency", "load generator", "taken by others")

Line = Sequence[str]


def markdown(record: Record) -> str:
    """Return every table that the record has figures for, each with the command that measured it."""
    parts = [_aims(aims(record))]
    for name, section in record.sections.items():
        parts += [f"### {name[0].upper()}{name[1:]}", _section(name, section)]
        runs = f"{section.repeats} runs of {section.seconds:g} s, which took turns: mean rates and median latencies"
        if name == STACKS:
            runs += f"; {section.slices} of a second for what is set against the engine, with the standard error"
        if section.overload:
            count = len(section.overload[0].floods)
            runs = f"{count} floods of {section.seconds:g} s, each after as long a run of {MIDDLE} clients: medians"
        parts += [f"{runs}. {section.when[:10]}.", f"    {section.command}"]
    return "\n\n".join([*filter(None, parts), f"{record.machine}."])


def _aims(found: Sequence[Aim]) -> str:
    said = {True: "yes", False: "no"}
    rows = [(aim.what, aim.wanted, aim.found, said[aim.holds] + _NOT_VALID * (not aim.valid)) for aim in found]
    return table(("", "to show", "found", "holds"), rows) if rows else ""


def _section(name: str, section: Section) -> str:
    if section.overload:
        return _overload(section)
    if section.memory:
        return _memory(section)
    return _forms(section.rows) if name.startswith(FORMS) else _stacks(section.rows)


def _stacks(rows: Sequence[Row]) -> str:
    """Set each row against the engine of its precision, and against Flask with as many clients."""
    lines = []
    for row in rows:
        best, flask = engine(rows, row.cell.precision), find(rows, FLASK, FP32, row.cell.clients)
        first = engine(rows, row.cell.precision, 1)
        later = f"{row.later(first) * 1e3:+.1f} ms" if first and row.cell.clients == 1 else _NONE
        ratios = (f"{row.times(best):.1%}" if best else _NONE, later, _against(row, flask))
        lines.append((row.cell.name, row.cell.precision, _clients(row), *ratios, *_measured(row)))
    head = ("", "precision", "clients", "of the engine", "latency above it", "throughput of Flask's")
    return table((*head, *_MEASURED), lines)


def _forms(rows: Sequence[Row]) -> str:
    """Set each row against JSON with the small picture and as many clients, and against Flask with the same picture."""
    lines = []
    for row in rows:
        cell = row.cell
        known = {(each.cell.stack, each.cell.form, each.cell.picture, each.cell.clients): each for each in rows}
        base = known.get((API, JSON, SMALL, cell.clients))
        flask = known.get((FLASK, MULTIPART, cell.picture, cell.clients))
        ratios = (f"{row.times(base):.1%}" if base else _NONE, _against(row, flask))
        lines.append((row.cell.name, cell.form, cell.picture, str(cell.clients), *ratios, *_measured(row)))
    head = ("", "form", "picture", "clients", "of JSON, small", "throughput of Flask's")
    return table((*head, *_MEASURED), lines)


def _against(row: Row, flask: Row | None) -> str:
    return f"{row.times(flask):.2f} times" if flask and row.cell.stack != ENGINE else _NONE


def _overload(section: Section) -> str:
    lines = []
    for each in section.overload:
        found = each.typical
        shares = f"{each.kept:.1%}", f"{found.refused:.1%}", f"{found.failed:.1%}"
        rates = f"{found.within:.1f}/s", f"{found.best:.1f}/s", f"{found.offered:.1f}/s"
        others = f"{found.load:.2f}", _taken(found.taken, each.valid)
        lines.append((each.precision, *shares, *rates, f"{each.bound:g} s", *others))
    head = ("precision", "kept of the best", "refused with 503", "failed or late")
    return table((*head, "served in time", "best", "offered", "in time is", *_MEASURED[-2:]), lines)


def _memory(section: Section) -> str:
    flask = next((each for each in section.memory if each.stack == FLASK), None)
    lines = []
    for each in section.memory:
        share = f"{each.memory.pss / flask.memory.pss:.1%}" if flask else _NONE
        held = f"{each.memory.pss:.0f} MB", f"{each.memory.rss:.0f} MB"
        lines.append((each.stack, each.precision, share, *held, f"{each.seconds:.1f} s"))
    return table(("", "precision", "of Flask's", "PSS", "RSS", "until it was up"), lines)


def _clients(row: Row) -> str:
    count = row.cell.clients
    return f"{count} thread{'s' * (count > 1)}" if row.cell.stack == ENGINE else str(count)


def _measured(row: Row) -> Line:
    return f"{row.rate:.1f}", f"{row.p50 * 1e3:.1f} ms", f"{row.load:.2f}", _taken(row.taken, row.valid)


def _taken(taken: float, valid: bool) -> str:
    return f"{taken:.2f}{_NOT_VALID * (not valid)}"


def table(head: Line, rows: Sequence[Line]) -> str:
    """Return a table whose columns stand below each other as text, too."""
    widths = [max(map(len, column)) for column in zip_longest(head, *rows, fillvalue="")]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
