"""What an export says: while it works, of its artifact, and why it failed."""

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


def following(made: Path, manifest: str, usual: Path | None = None) -> str:
    """Return what is done next with an artifact: the yaml has its place already where that is the usual one."""
    place = click.format_filename(made.parent)
    change = "" if made.parent == usual else f"set model_path to {place} in {manifest}, then "
    return f"next: {change}cortex deploy {manifest}"


def written(made: Path) -> str:
    """Return where an artifact is, and the size of all its files in megabytes of 10**6 bytes."""
    size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    return f"{click.format_filename(made)}  {round(size / 1e6)} MB"


def reason(error: Exception) -> str:
    """Return the first line of what somebody else's code says that went wrong, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
