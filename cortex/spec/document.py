"""A yaml file as plain data, with the line of every value.

What stands in the file is hostile until it is read: its size, depth and number of values are bounded (what an alias
names counts each time), only plain data is accepted, and every complaint names its line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cortex.errors import UserError
from cortex.spec.nodes import Builder, Loader
from cortex.spec.problem import Problem, Steps

_LARGEST_FILE = 256 * 1024
"""Bytes: a few seconds of parsing."""
_LONGEST_MESSAGE = 300
_HINTS = {"\t": " (indent with spaces, not with tabs)", "@": ' (text cannot start with "@")'}


@dataclass(frozen=True)
class Document:
    """One file: its data, the line of every value, and what is wrong with its text."""

    file: str
    data: Any
    lines: Mapping[Steps, int]
    problems: tuple[Problem, ...]

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Read a yaml file. UserError when it cannot be read or is no yaml: nothing more can be said about it then."""
        text = _text(path)
        try:
            loader = Loader(text)
            builder = Builder(loader)
            root = loader.get_single_node()
            data = None if root is None else builder.value(root, ())
        except yaml.MarkedYAMLError as error:
            raise UserError(f"{path}:{_explain(error, text)}") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise UserError(f"{path}:{line}: invalid yaml: a control character, is this a text file?") from None
        except RecursionError:
            raise UserError(f"{path}: invalid yaml: nested too deeply") from None
        return cls(str(path), data, builder.lines, tuple(builder.problems))

    def line(self, steps: Steps) -> int:
        """Return the line of a value, or of the nearest thing around it that is in the file."""
        return next((self.lines[steps[:end]] for end in range(len(steps), 0, -1) if steps[:end] in self.lines), 1)


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is not a file")
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
        if len(raw) > _LARGEST_FILE:  # before it is decoded: it may end in the middle of a character
            raise UserError(f"{path}: larger than {_LARGEST_FILE // 1024} KiB, is this an API configuration file?")
        return raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: file does not exist") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: invalid yaml: the file is not UTF-8 text") from None


def _explain(error: yaml.MarkedYAMLError, text: str) -> str:
    """Return ``LINE: invalid yaml: what the parser says``, on one line."""
    mark = error.problem_mark or error.context_mark
    said = ", ".join(part for part in (error.context, error.problem) if part)[:_LONGEST_MESSAGE]
    if mark is None:
        return f" invalid yaml: {said}"
    return f"{mark.line + 1}: invalid yaml: {said}{_HINTS.get(text[mark.index : mark.index + 1], '')}"
