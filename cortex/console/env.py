"""The `cortex env` commands."""

import click

from cortex.console import document, text
from cortex.console.menu import Menu
from cortex.console.options import environment_argument, output_option
from cortex.console.text import message
from cortex.environments.registry import Registry


@click.group("env", cls=Menu, sections={"commands": ("list", "configure", "default", "delete")})
def env_commands() -> None:
    """Choose where APIs run."""


@env_commands.command("list")
@output_option
@click.pass_obj
def list_environments(registry: Registry, output: str) -> None:
    """Show the configured environments."""
    entries = registry.configured()
    if output == "json":
        click.echo(document.line([document.environment(entry) for entry in entries]))
    else:
        click.echo(text.environments(entries))


@env_commands.command("configure")
@environment_argument
@click.option("-p", "--provider", help="What runs its APIs; when not given, the provider called NAME.")
@output_option
@click.pass_obj
def configure_environment(registry: Registry, name: str, provider: str | None, output: str) -> None:
    """Add an environment, or change its provider."""
    click.echo(message(registry.configure(name, provider), output))


@env_commands.command("default")
@environment_argument
@output_option
@click.pass_obj
def default_environment(registry: Registry, name: str, output: str) -> None:
    """Set the environment that commands use when they name none."""
    click.echo(message(registry.set_default(name), output))


@env_commands.command("delete")
@environment_argument
@output_option
@click.pass_obj
def delete_environment(registry: Registry, name: str, output: str) -> None:
    """Forget an environment's configuration.

    What it runs is left alone.
    """
    click.echo(message(registry.delete(name), output))
