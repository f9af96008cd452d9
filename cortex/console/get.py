"""What `cortex get` shows: one API, or those of one environment or of all."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from cortex import endpoint
from cortex.console import document, text
from cortex.environments.registry import LOCAL, Registry
from cortex.errors import Error, UserError

if TYPE_CHECKING:
    from cortex.environments.base import API, Environment
    from cortex.environments.processors import Processors


def show_api(environment: "Environment", name: str, verbose: bool, output: str, show: Callable[[str], None]) -> None:
    """Show all about one API: as it is now, and what it was told."""
    from cortex.console.configuration import configuration

    api = environment.api(name)
    summary, problem = _summary(api)
    here = _processors() if environment.provider == LOCAL else None
    if output == "json":
        show(document.line([document.api(api) | document.runtime(summary, here)]))
    else:
        models = problem or text.blocks([text.running(summary, here), text.schema(summary.inputs)])
        show(text.single(api, models, configuration(api, verbose=verbose), time.time()))


def _processors() -> "Processors":
    from cortex.environments.processors import processors  # psutil, which other commands need not import

    return processors()


def _summary(api: "API") -> tuple[endpoint.Summary, str]:
    """Return what an API says of its models, or else why that is not known; nothing of an API without models."""
    if api.spec.predictor.type == "python":
        return endpoint.Summary(), ""
    if api.status != "live":
        return endpoint.Summary(), text.NO_SCHEMA_YET
    try:
        summary = endpoint.summary(api)
        return summary, "" if summary.inputs or summary.running else text.none_served(api.spec.name)
    except UserError as error:
        return endpoint.Summary(), f"the model's input schema is not available: {error}"


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
