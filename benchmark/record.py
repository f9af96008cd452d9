"""What was measured, kept as JSON: sections that were measured apart, on one machine, stand together in it."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from benchmark.cells import Held, Overload, Row
from benchmark.machine import Machine
from cortex.errors import UserError
from cortex.loadtest import files

STACKS, FORMS, OVERLOAD, MEMORY = "stacks", "forms", "overload", "memory"
"""The names of sections. Those of forms and of overload are `named` with a precision."""


@dataclass(frozen=True)
class Section:
    """A part of the comparison, with the command that measured it."""

    command: str
    when: str
    """Of its end, ISO 8601 in UTC."""
    seconds: float
    """Of each run."""
    repeats: int
    slices: int = 0
    """Rounds of what is set against the engine; their runs take a second at most."""
    rows: tuple[Row, ...] = ()
    overload: tuple[Overload, ...] = ()
    memory: tuple[Held, ...] = ()


@dataclass(frozen=True)
class Record:
    machine: Machine
    sections: dict[str, Section] = field(default_factory=dict)
    """By name, in the order in which they were first measured."""

    def with_section(self, name: str, section: Section) -> "Record":
        """Return the record with a section added, or replaced as a whole: ratios hold within one run of it."""
        return replace(self, sections={**self.sections, name: section})

    def write(self, path: Path) -> None:
        """Write all of it at once, so that the file is whole at any time. Raises UserError where that cannot be."""
        draft = path.with_name(f".{path.name}.draft")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(_RECORD.dump_json(self, indent=2) + b"\n")
            draft.replace(path)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from error


_RECORD = TypeAdapter(Record)


def named(section: str, precision: str) -> str:
    """Return the name of a section that is measured for each precision apart."""
    return f"{section}, {precision}"


def read(path: Path) -> Record:
    """Read a record. Raises UserError for a file that is none."""
    try:
        return _RECORD.validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; measure first") from error
    except ValidationError as error:
        raise UserError(f"{path}: not a record of `python -m benchmark compare`: {error.errors()[0]['msg']}") from error


def begun(path: Path, machine: Machine) -> Record:
    """Return the record to go on with: the one in the file, or a new one.

    Raises UserError for another machine's, and for a file that could not be written: better before a long run.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name another file with --json") from error
    files.check(path)
    if not path.exists():
        return Record(machine)
    found = read(path)
    if found.machine != machine:
        raise UserError(f"{path}: figures of another machine ({found.machine}); name another file with --json")
    return found
