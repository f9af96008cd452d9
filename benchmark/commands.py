"""The commands of ``python -m benchmark``, each imported when it is asked for: none needs what only another does.

This is the one place where what is raised for a person becomes a line on standard error, and an exit code.
"""

import importlib
from typing import Any

import click

from cortex.errors import Error

_NAMES = ("compare", "gpu_target", "launch", "startup", "tfrecords", "worth")
"""Each is in the module of its name."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _NAMES:
            return None
        command: click.Command = getattr(importlib.import_module(f"benchmark.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Error as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Measure the whole stack on this machine."""
