"""The command ``python -m export``: make the artifacts of the targets."""

import sys

import click

from cortex.errors import Error
from export.lazy_group import LazyGroup

_PLACES = {name: f"export.{name}_command:command" for name in ("savedmodel", "cpu", "gpu", "accelerator")}
"""None of these modules imports a framework before its command runs."""


@click.group(cls=LazyGroup, places=_PLACES, context_settings={"help_option_names": ["-h", "--help"]})
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
