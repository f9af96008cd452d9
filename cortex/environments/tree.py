"""Files as one value: their names, what is in them, and a copy that nobody sees half made."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from cortex.errors import UserError

TEMPORARY = ".tmp-"
"""Begins the name of every directory that is not finished. What a killed process left under it may be removed."""

_MOST_FILES = 100_000

Skip = Callable[[str, "os.DirEntry[str]"], bool]
"""Called with the name in the tree and the entry; True leaves it out, a directory with all that is in it."""


@dataclass(frozen=True)
class Tree:
    """Map names (relative, ``/`` between the parts) to the regular files that have their content."""

    files: Mapping[str, Path]

    @classmethod
    def of(cls, root: Path, skip: Skip = lambda name, entry: False) -> "Tree":
        """Find the files below a directory; sockets, pipes, devices and dangling links are left out, links followed.

        UserError when a directory cannot be read, or when there are more than 100,000 files.
        """
        files: dict[str, Path] = {}
        with plainly("cannot read the directory"):
            for name, path in _walk(root, skip):
                files[name] = path
                if len(files) > _MOST_FILES:
                    raise UserError(f"{root} holds more than {_MOST_FILES:,} files")
        return cls(files)

    def under(self, directory: str) -> "Tree":
        """Return the same files with ``directory/`` in front of their names."""
        return Tree({f"{directory}/{name}": path for name, path in self.files.items()})

    def __or__(self, other: "Tree") -> "Tree":
        return Tree({**self.files, **other.files})

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file."""
        with plainly("cannot read the file"):
            return {name: path.stat().st_size for name, path in self.files.items()}

    @cached_property
    def digest(self) -> str:
        """SHA-256, as hex, over names, sizes, executable bits and bytes: not over times, owners or order."""
        with plainly("cannot read the file"):
            rows = [_row(name, path) for name, path in sorted(self.files.items())]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def copy_to(self, destination: Path) -> None:
        """Copy the files into a directory that appears whole or not at all; one that is there already is left alone.

        UserError when a file changed since it was digested, or when the disk is full, read-only or forbidden.
        """
        digest = self.digest
        with plainly("cannot copy"), unfinished(destination.parent) as temporary:
            copy = temporary / "copy"
            self._write(copy)
            if Tree.of(copy).digest != digest:
                raise UserError("the files changed while they were being copied; try again")
            with contextlib.suppress(FileExistsError):
                _rename(copy, destination)

    def _write(self, directory: Path) -> None:
        directory.mkdir(mode=0o700)
        for name, path in self.files.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(stat.S_IMODE(path.stat().st_mode) & 0o777 | 0o600)


@contextlib.contextmanager
def unfinished(parent: Path) -> Iterator[Path]:
    """Lend a directory of one's own inside ``parent``, which is made when missing; it is removed afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def plainly(doing: str, place: Path | None = None) -> Iterator[None]:
    """Turn an OSError into a UserError of one line: what was being done, to which file, and what went wrong.

    ``place`` is named where the error names no file: one of a disk that is full does not.
    """
    try:
        yield
    except OSError as error:
        names = " -> ".join(os.fspath(name) for name in (error.filename or place, error.filename2) if name)
        raise UserError(f"{doing}{f' {names}' if names else ''}: {error.strerror or error}") from error


def inner_name(name: str) -> str:
    """Return a name that others chose for a file, when it stays inside the directory it is put in; else UserError."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise UserError(f"{name!r} is not a name that a file of a model can have")
    return "/".join(parts)


def human_size(size: int) -> str:
    """Write a number of bytes for a person, as ``1.2 GB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size} bytes"


def _walk(root: Path, skip: Skip) -> Iterator[tuple[str, Path]]:
    """Yield every regular file. A directory that a link leads back into, from below itself, is not entered again."""
    todo: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(root, "", frozenset())]
    while todo:
        directory, prefix, above = todo.pop()
        status = directory.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            continue
        with os.scandir(directory) as entries:
            for entry in entries:
                name = prefix + entry.name
                if skip(name, entry):
                    continue
                path = directory / entry.name
                if path.is_dir():
                    todo.append((path, f"{name}/", above | {identity}))
                elif path.is_file():
                    yield name, path


def _row(name: str, path: Path) -> tuple[str, int, bool, str]:
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        return (
            name,
            status.st_size,
            bool(status.st_mode & stat.S_IXUSR),
            hashlib.file_digest(stream, "sha256").hexdigest(),
        )


def _rename(source: Path, destination: Path) -> None:
    try:
        source.rename(destination)
    except OSError:
        if destination.is_dir():
            raise FileExistsError(destination) from None
        raise
