"""What the commands share: the options that several of them have, and what becomes of one that has no effect."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cortex.errors import UserError

MAX_VERSION = 2**63 - 1
"""TF Serving keeps a version in 64 bits."""


class _Place(click.Path):
    """A path. An empty text is none: it comes of a variable that is not set, and would be the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("expected a path, not an empty text", param, ctx)
        return super().convert(value, param, ctx)


path = _Place(path_type=Path)
path_or_random = _Place()
force = click.option("--force", is_flag=True, help="Replace the version if it exists.")
source = click.argument("source", type=path, default=Path("models/resnet50"))
version = click.option(
    "--version",
    type=click.IntRange(0, MAX_VERSION),
    help="The version of SOURCE to export.  [default: the newest]",
)


def output(suffix: str) -> Callable[[Any], Any]:
    """Return the option ``--output`` of the target whose artifacts are called SOURCE_suffix by default."""
    return click.option(
        "--output",
        type=path,
        help=f"The artifact's directory; the version keeps its number in it.  [default: SOURCE_{suffix}]",
    )


def refuse(name: str, where: str) -> None:
    """Raise UserError when the command that runs was given the option ``name``, which has no effect there."""
    if click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT:
        raise UserError(f"--{name.replace('_', '-')} has no effect {where}")
