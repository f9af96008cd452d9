"""`cortex render`, and what a deployment that is not carried out looks like."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from cortex.console import document
from cortex.environments.registry import Registry


def rendered(documents: Iterable[Mapping[str, Any]], output: str) -> str:
    """Return documents as JSON on one line, or, ``pretty``, as YAML with ``---`` before each but the first."""
    import yaml

    plain = json.loads(json.dumps(list(documents)))  # tuples as lists, which is all that YAML knows
    if output == "json":
        return document.line(plain)
    return yaml.dump_all(plain, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=float("inf")).rstrip()


@click.command()
@click.argument("provider")
@click.argument("config_file", type=click.Path(path_type=Path))
@click.pass_obj
def render(registry: Registry, provider: str, config_file: Path) -> None:
    """Print what deploying a yaml comes to, as YAML.

    PROVIDER is local, docker, kubernetes, or the name of an environment. Nothing is started, and nothing has to be
    there: no model, no device, no cluster.
    """
    from cortex.spec.config import read

    environment = registry.open(registry.provided(provider))
    click.echo(rendered(environment.render(read(config_file)), "pretty"))


def _dumper() -> type[Any]:
    """Return a YAML writer that shows texts of several lines as they are, and writes nothing as a reference."""
    import yaml

    from cortex.environments import dump

    class Dumper(dump.Dumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)

    Dumper.add_representer(str, text)
    return Dumper
