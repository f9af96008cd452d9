"""The place of the tables and the plot in a document: between two comments, which stay."""

from pathlib import Path

from benchmark import plot, tables
from benchmark.record import STACKS, Record
from cortex.errors import UserError

BEGIN, END = "<!-- figures: written by scripts/bench --write-docs -->", "<!-- end of figures -->"


def write(record: Record, path: Path) -> None:
    """Write the tables into a document, and the plot beside it. Raises UserError where the comments are missing."""
    try:
        before, begin, rest = path.read_text().partition(BEGIN)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"{path}: has no place for the figures; write the lines {BEGIN} and {END} where they belong")
    parts = [tables.markdown(record)]
    if section := record.sections.get(STACKS):
        image = path.with_suffix(".svg")
        image.write_text(plot.svg(section.rows))
        parts.insert(0, f"![Answers per second of every stack]({image.name})")
    path.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}")
