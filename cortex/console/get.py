"""What `cortex get` shows: one API, or those of one environment or of all."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from cortex import endpoint
from cortex.console import document, text
from cortex.environments.registry import Registry
from cortex.errors import Error, UserError

if TYPE_CHECKING:
    from cortex.environments.base import API, Environment


def show_api(environment: "Environment", name: str, verbose: bool, output: str, show: Callable[[str], None]) -> None:
    """Show all about one API: as it is now, and what it was told."""
    from cortex.console.configuration import configuration

    api = environment.api(name)
    if output == "json":
        show(document.line([document.api(api)]))
    else:
        show(text.single(api, _schema(api), configuration(api, verbose=verbose), time.time()))


def _schema(api: "API") -> str:
    if api.spec.predictor.type == "python":
        return ""
    if api.status != "live":
        return text.NO_SCHEMA_YET
    try:
        return text.schema(endpoint.model_inputs(api))
    except UserError as error:
        return f"the model's input schema is not available: {error}"


def show_apis(registry: Registry, env: str | None, output: str, show: Callable[[str], None]) -> None:
    """Show the APIs of one environment, or of all; those that cannot say are reported after the others were shown."""
    found: list[tuple[str, tuple[API, ...], str]] = []
    for entry in [registry.named(env)] if env else registry.runnable():
        try:
            found.append((entry.name, registry.open(entry).apis(), ""))
        except Error as error:
            found.append((entry.name, (), str(error)))
    if output == "json":
        show(document.line([document.listing(*each) for each in found]))
    elif any(apis or not error for _, apis, error in found):
        show(text.listing([(name, api) for name, apis, _ in found for api in apis], time.time()))
    failures = "\n".join(text.about(name, error) for name, _, error in found if error)
    if failures:
        raise UserError(failures)


def repaint(frame: str) -> None:
    """Show a frame in place of the last one, or below it where nothing can be erased."""
    if sys.stdout.isatty():
        click.clear()
    else:
        click.echo()
    click.echo(frame)
