"""The arguments and options that every command which makes an artifact from a SavedModel has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

MAX_VERSION = 2**63 - 1
"""TF Serving keeps a version in 64 bits."""

force = click.option("--force", is_flag=True, help="Replace the version if it exists.")
source = click.argument("source", type=click.Path(path_type=Path), default=Path("models/resnet50"))
version = click.option(
    "--version",
    type=click.IntRange(0, MAX_VERSION),
    help="The version of SOURCE to export.  [default: the newest]",
)


def output(suffix: str) -> Callable[[Any], Any]:
    """Return the option ``--output`` of the target whose artifacts are called SOURCE_suffix by default."""
    return click.option(
        "--output",
        type=click.Path(path_type=Path),
        help=f"The artifact's directory; the version keeps its number in it.  [default: SOURCE_{suffix}]",
    )
