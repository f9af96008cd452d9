"""A click group whose help has sections and whose commands may be shortened."""

from collections.abc import Mapping, Sequence
from typing import Any

import click


class Menu(click.Group):
    """Show commands under the titles of ``sections``, in that order; without arguments, show the help.

    A command that is in no section is not shown. `cortex dep` runs `cortex deploy`: any start of a shown name that fits
    only one will do.
    """

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self._sections.values() for name in names if name in self.commands]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, *rest = args
        fitting = [shown for shown in self.list_commands(ctx) if shown.startswith(name)]
        if name not in self.commands and len(fitting) == 1:
            return super().resolve_command(ctx, [*fitting, *rest])
        if name not in self.commands and fitting and not ctx.resilient_parsing:
            ctx.fail(f'"{name}" could be any of: {", ".join(fitting)}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for title, names in self._sections.items():
            rows = [(name.ljust(width), self.commands[name].get_short_help_str(90)) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows)
