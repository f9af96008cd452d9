"""A group of commands that are imported when they are asked for: none needs what only another does."""

import pkgutil
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """``places`` has ``package.module:attribute`` of each command, by its name."""

    def __init__(self, *args: Any, places: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in their order."""
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None for a name that there is not."""
        place = self._places.get(cmd_name)
        command: click.Command | None = pkgutil.resolve_name(place) if place else None
        return command
