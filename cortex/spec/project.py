"""What a yaml may name in its project, which is the directory that the yaml is in."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

_OUTSIDE = "must be inside the project directory (the directory of the yaml), and relative to it"
_HIDDEN = "a name that starts with a dot is hidden, and what is hidden is not part of a project"


def wrong_file(project: Path, path: str) -> str:
    """Say what is wrong with the path of a file of the project; nothing when it is there."""
    return _wrong_place(path) or ("" if _is(project / path, Path.is_file) else "file does not exist")


def wrong_directory(project: Path, path: str) -> str:
    """Say what is wrong with the path of a directory of the project; nothing when it is there."""
    return _wrong_place(path) or ("" if _is(project / path, Path.is_dir) else "directory does not exist")


def _wrong_place(path: str) -> str:
    depth = 0
    for part in PurePosixPath(path).parts:
        depth += -1 if part == ".." else 1
        if depth < 0 or part == "/":
            return _OUTSIDE
        if part.startswith(".") and part != "..":
            return _HIDDEN
    return ""


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except OSError:  # a name that is too long, a directory that may not be read
        return False
