"""What is awaited, on stderr, while a command waits."""

import os
import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import click


class Steps(AbstractContextManager["Steps"]):
    """Be a `Progress`: print a line each time it changes; on a terminal the last one turns beside a spinner.

    Only stderr is written. While it is entered, nothing else may write to a terminal.
    """

    def __init__(self) -> None:
        self._line = ""
        self._spinner: Any = None

    def __enter__(self) -> "Steps":
        if sys.stderr and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._spinner = _spinner()
            self._spinner.start()
        return self

    def __call__(self, line: str) -> None:
        if line == self._line:
            return
        if self._spinner is None:
            click.echo(line, err=True)
        else:
            self._leave()
            self._spinner.update(_plain(line))
        self._line = line

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spinner is not None:
            self._leave()
            self._spinner.stop()

    def _leave(self) -> None:
        """Print the line beside the spinner above it, so that the steps taken stay in view."""
        if self._line:
            self._spinner.console.print(_plain(self._line))


def _spinner() -> Any:
    from rich.console import Console

    return Console(stderr=True).status("")


def _plain(line: str) -> Any:
    """Return text in which rich reads no markup."""
    from rich.text import Text

    return Text(line)
