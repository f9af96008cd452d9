"""The commands of ``python -m benchmark``.

This is the one place where what is raised for a person becomes a line on standard error, and an exit code.
"""

from typing import Any

import click

from cortex.errors import Error
from export.lazy_group import LazyGroup

_NAMES = ("compare", "gpu_target", "launch", "startup", "tfrecords", "worth")
_PLACES = {name: f"benchmark.{name}:{name}" for name in _NAMES}


class _Commands(LazyGroup):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Error as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Commands, places=_PLACES, context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Measure the whole stack on this machine."""
