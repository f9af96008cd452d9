"""The places of measured tables and of the plot in a document: each between two comments, which stay."""

from dataclasses import dataclass
from pathlib import Path

from benchmark import plot, tables
from benchmark.record import STACKS, Record
from cortex.errors import UserError


@dataclass(frozen=True)
class Place:
    """Two lines of a document, between which something stands that a command has written."""

    begin: str
    end: str


FIGURES = Place("<!-- figures: written by scripts/bench --write-docs -->", "<!-- end of figures -->")
SETTINGS = Place("<!-- settings: written by python -m benchmark worth --write-docs -->", "<!-- end of settings -->")


def write(record: Record, path: Path) -> None:
    """Write the tables into a document, and the plot beside it. Raises UserError where the comments are missing."""
    section, image = record.sections.get(STACKS), path.with_suffix(".svg")
    shown = [f"![Answers per second of every stack]({image.name})"] if section else []
    put("\n\n".join([*shown, tables.markdown(record)]), path, FIGURES)
    if section:
        image.write_text(plot.svg(section.rows))


def put(text: str, path: Path, place: Place) -> None:
    """Write a text into its place in a document. Raises UserError where the comments are missing."""
    before, after = around(path, place)
    path.write_text(f"{before}{place.begin}\n\n{text}\n\n{place.end}{after}")


def around(path: Path, place: Place) -> tuple[str, str]:
    """Return what stands before and after a place. Raises UserError where the document or the comments are missing."""
    try:
        before, begin, rest = path.read_text().partition(place.begin)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    _, end, after = rest.partition(place.end)
    if not (begin and end):
        raise UserError(f"{path}: has no place for it; write the lines {place.begin} and {place.end} where it belongs")
    return before, after
