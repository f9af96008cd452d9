"""What an export says while it works, and how large its artifact is."""

import time
from collections.abc import Callable
from pathlib import Path

import click

Step = Callable[[str], None]
"""Is told, in a few words, what happens next or what was found."""


def stopwatch() -> Step:
    """Return a function that prints a step and the seconds since the start, on the standard error stream."""
    start = time.monotonic()
    return lambda text: click.echo(f"{time.monotonic() - start:5.1f} s  {text}", err=True)


def megabytes(directory: Path) -> int:
    """Return the size of all files in a directory, in megabytes of 10**6 bytes."""
    return round(sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6)
