"""The command ``python -m export``: make the artifacts of the targets."""

import importlib
import sys

import click

from cortex.errors import Error

_COMMANDS = {
    "savedmodel": "export.savedmodel_command",
    "cpu": "export.cpu_command",
    "gpu": "export.gpu_command",
    "accelerator": "export.accelerator_command",
}
"""The module of each command, which calls it ``command``. None of them imports a framework before it runs."""


class _Commands(click.Group):
    """Import a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name]).command
        command.name = cmd_name
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Make the model directories that the cortex_*.yaml files deploy."""


def main() -> None:
    """Run a command; a failure is one line on the standard error stream and an exit code."""
    try:
        commands(prog_name="python -m export")
    except Error as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # one without a name is that of the result, which cannot be printed
        click.echo(f"error: {error.filename or 'standard output'}: {error.strerror}", err=True)
        sys.exit(1)
