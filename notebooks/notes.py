"""Boxes between the cells: what was left out here, and why; what the reader must not overlook."""

from __future__ import annotations

from html import escape
from pathlib import Path

from IPython.display import HTML, display

_BOX = (
    '<div style="border-left:6px solid {color};background:{color}18;padding:.6em 1em;margin:.4em 0;max-width:60em">'
    "<b>{title}</b><br>{text}</div>"
)
_GREY, _RED, _BLUE = "#7a828c", "#c0392b", "#3b6ea8"


def skipped(what: str, reason: object) -> None:
    """Show that a part of the notebook did not run here, and why."""
    _show(_GREY, f"Skipped: {what}", reason)


def warning(title: str, text: object) -> None:
    """Show what makes the rest mean something else than it seems to."""
    _show(_RED, title, text)


def kept(directory: Path) -> None:
    """Show that an artifact was there already and is used as it is."""
    _show(_BLUE, f"{directory} is there already", "It is used as it is. Delete it to have it made anew.")


def _show(color: str, title: str, text: object) -> None:
    display(HTML(_BOX.format(color=color, title=escape(title), text=escape(str(text)))))
