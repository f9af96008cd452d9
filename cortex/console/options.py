"""Arguments and options that several commands share, with what a shell completes them to."""

from typing import TYPE_CHECKING

import click

from cortex.errors import Error

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_environments(ctx: click.Context, _: click.Parameter, start: str) -> "list[str | CompletionItem]":
    """Return the configured environments that begin so."""
    try:
        return [entry.name for entry in ctx.obj.configured() if entry.name.startswith(start)]
    except Error:
        return []


def complete_apis(ctx: click.Context, _: click.Parameter, start: str) -> "list[str | CompletionItem]":
    """Return the APIs of the chosen environment that begin so; none where it cannot say."""
    try:
        apis = ctx.obj.open(ctx.obj.named(ctx.params.get("env"))).apis()
    except Error:
        return []
    return [api.spec.name for api in apis if api.spec.name.startswith(start)]


environment_option = click.option(
    "-e", "--env", metavar="ENV", shell_complete=complete_environments, help="Environment to use."
)
output_option = click.option(
    "-o", "--output", type=click.Choice(["pretty", "json"]), default="pretty", show_default=True, help="Output format."
)
api_argument = click.argument("name", shell_complete=complete_apis)
environment_argument = click.argument("name", shell_complete=complete_environments)
