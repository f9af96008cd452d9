"""The `cortex env` commands."""

import dataclasses

import click

from cortex.console import document, text
from cortex.console.menu import Menu
from cortex.console.options import environment_argument, output_option
from cortex.console.text import message
from cortex.environments.registry import Registry


@click.group("env", cls=Menu, sections={"commands": ("list", "info", "configure", "default", "delete")})
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


@env_commands.command("info")
@output_option
def inform(output: str) -> None:
    """Show what this machine computes with, and which engines can run on it."""
    from cortex.console.machine import described
    from cortex.environments.machine import inspect

    machine = inspect()
    click.echo(document.line(dataclasses.asdict(machine)) if output == "json" else described(machine))


@env_commands.command("configure")
@environment_argument
@click.option("-p", "--provider", help="What runs its APIs; when not given, the provider NAME, or what ran them.")
@click.option("--context", help="Kubernetes: the context of kubectl's configuration.")
@click.option("--namespace", help="Kubernetes: the namespace of its APIs.")
@click.option("--registry", "images", help="Docker and Kubernetes: what the names of images begin with.")
@click.option("-s", "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Any other setting of the provider.")
@output_option
@click.pass_obj
def configure_environment(
    registry: Registry,
    name: str,
    provider: str | None,
    context: str | None,
    namespace: str | None,
    images: str | None,
    pairs: tuple[str, ...],
    output: str,
) -> None:
    """Add an environment, or replace it with all of its settings."""
    given = {"context": context, "namespace": namespace, "registry": images}
    settings = {key: value for key, value in given.items() if value is not None} | _settings(pairs)
    click.echo(message(registry.configure(name, provider, settings), output))


def _settings(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if not pair.partition("=")[0] or "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--set")
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


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
