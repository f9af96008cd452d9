"""How a model must lie on disk, by kind; whatever was given is arranged as ``VERSION/...``, as TF Serving wants it.

All versions are kept, not only the highest: TF Serving's rule makes the highest the one that answers, as Cortex 0.18
did by dropping the others, and Cortex 0.22's ``client.predict(model_version=)`` finds the rest.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from cortex.environments import model_format
from cortex.environments.model_format import SAVED_MODEL
from cortex.environments.saved_model import GRAPH, check, missing_variables, refuse_pointer
from cortex.environments.tree import Tree, plainly
from cortex.errors import UserError

Kind = Literal["tensorflow", "neuron", "onnx", "python"]

_LAST_VERSION = 2**63 - 1  # int64 in TF Serving's protocol
_MOST_LINES = 50
_UNFINISHED = ".exporting-"
"""How `export.staging` calls a version that it has not written yet."""
_TENSORFLOW = """\
  1/                      (a whole number above 0: the version)
    saved_model.pb
    variables/
      variables.index
      variables.data-00000-of-00001
      ...
  or, in place of saved_model.pb and variables/: model.xml and model.bin (OpenVINO IR), model.onnx, or model.tflite"""
_EXPECTED: Mapping[Kind, tuple[str, str]] = {
    "tensorflow": ("TensorFlow", _TENSORFLOW),
    "neuron": (
        "Neuron TensorFlow",
        "  1/                      (a whole number above 0: the version)\n    saved_model.pb",
    ),
    "onnx": ("ONNX", "  1/                      (optional; a whole number above 0: the version)\n    model.onnx"),
    "python": ("Python", "  any files, or directories named by whole numbers above 0: the versions"),
}


def arrange(path: Path, kind: Kind) -> Tree:
    """Return the files of the model at ``path`` under ``VERSION/``.

    A directory that is itself a model becomes the version of its own name, or 1. UserError when the model is not whole:
    its first line says what is wrong, and lines with the expected and the found files follow where they help.
    """
    return _ARRANGE[kind](path)


def version_of(name: str) -> int | None:
    """Return the version that a directory's name stands for, or None."""
    if not re.fullmatch(r"[0-9]{1,30}", name):
        return None
    version = int(name)
    return version if 0 < version <= _LAST_VERSION else None


def _saved_model_only(directory: Path) -> tuple[str, ...]:
    return (SAVED_MODEL,) if (directory / GRAPH).is_file() else ()


def _checked(path: Path, kind: Kind, formats: Callable[[Path], tuple[str, ...]]) -> Tree:
    """Take what a model server reads, in ``formats``: versions of a SavedModel, or of a graph in one file."""
    _need_directory(path, "a directory, or a zip file ending in .zip")
    versions = _exports(path, kind, formats)
    for directory in versions.values():
        within = "" if directory == path else f"{directory.relative_to(path).as_posix()}/"
        found = formats(directory)
        if not found:
            raise _invalid(path, kind, f"there is no {within}{GRAPH}")
        for each in found:
            if each == SAVED_MODEL:
                _check_saved_model(path, directory, kind, within)
            else:
                model_format.check(directory, each, within)
    return _merged(versions)


def _check_saved_model(path: Path, directory: Path, kind: Kind, within: str) -> None:
    if check(directory, within + GRAPH) and kind == "tensorflow":
        missing = missing_variables(directory / "variables")
        if missing:
            raise _invalid(path, kind, f"there is no {within}{missing}, and the graph has variables")


def _exports(path: Path, kind: Kind, formats: Callable[[Path], tuple[str, ...]]) -> dict[int, Path]:
    """Find the versions: the path itself, directories in it, or those in the one directory below that has some."""
    whole = {version_of(path.name) or 1: path}
    if (path / GRAPH).is_file():
        return whole
    versions = _versions(path)
    if versions:
        return versions
    if formats(path):
        return whole
    exports = [path / name for name in Tree.of(path).files if name.endswith(f"/{GRAPH}")]
    bases = sorted({export.parent.parent for export in exports})
    if not bases:
        raise _invalid(path, kind, f"there is no {GRAPH}")
    if len(bases) > 1:
        names = ", ".join(f"{base.relative_to(path).as_posix()}/" for base in bases)
        raise _invalid(path, kind, f"more than one directory has models in it ({names}); name one of them")
    versions = _versions(bases[0])
    if not versions:
        name = exports[0].parent.relative_to(path).as_posix()
        raise _invalid(path, kind, f"{name}/ has a {GRAPH}, but its name is not a version")
    return versions


def _onnx(path: Path) -> Tree:
    if path.is_file() and path.suffix == ".onnx":
        refuse_pointer(path, path.name)
        beside = [path, *(path.with_name(path.name + end) for end in (".data", "_data"))]
        return Tree({file.name: file for file in beside if file.is_file()}).under("1")
    _need_directory(path, "a file ending in .onnx, or a directory with one")
    versions = {version_of(path.name) or 1: path} if _graphs(path) else _versions(path)
    for version, directory in versions.items():
        graphs = _graphs(directory)
        if len(graphs) != 1:
            where = "it" if directory == path else f"version {version}"
            raise _invalid(path, "onnx", f"{where} must have exactly one .onnx file, and has {len(graphs)}")
        refuse_pointer(graphs[0], graphs[0].relative_to(path).as_posix())
    if not versions:
        raise _invalid(path, "onnx", "there is no .onnx file")
    return _merged(versions)


def _graphs(directory: Path) -> list[Path]:
    return sorted(file for file in directory.glob("*.onnx") if file.is_file())


def _python(path: Path) -> Tree:
    _need_directory(path, "a directory")
    with plainly("cannot read the directory"):
        shown = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    versions = _versions(path)
    tree = _merged(versions if versions and len(versions) == len(shown) else {version_of(path.name) or 1: path})
    if not tree.files:
        raise _invalid(path, "python", "there is no file in it")
    return tree


def _versions(path: Path) -> dict[int, Path]:
    """Return the directories directly in ``path`` that versions name; UserError when two name the same."""
    found: dict[int, Path] = {}
    with plainly("cannot read the directory"):
        for entry in sorted(path.iterdir()):
            version = version_of(entry.name)
            if version is None or not entry.is_dir():
                continue
            if version in found:
                raise UserError(f"{found[version].name}/ and {entry.name}/ are the same version; keep one of them")
            found[version] = entry
    return found


def _merged(versions: Mapping[int, Path]) -> Tree:
    merged = Tree({})
    for version, directory in versions.items():
        merged |= Tree.of(directory).under(str(version))
    return merged


def _need_directory(path: Path, wanted: str) -> None:
    if not path.is_dir():
        raise UserError(f"must be {wanted}")
    with plainly("cannot read the directory"):
        names = [entry.name for entry in path.iterdir()]
    if not names:
        raise UserError("directory is empty")
    if all(name.startswith(_UNFINISHED) for name in names):
        raise UserError("its first export has not ended; wait for it, or export again if it was killed")


def _invalid(path: Path, kind: Kind, what: str) -> UserError:
    name, expected = _EXPECTED[kind]
    return UserError(f"invalid {name} export directory: {what}\nexpected:\n{expected}\nfound:\n{_drawn(path)}")


def _drawn(path: Path) -> str:
    """Draw the files below a directory, one line each, 50 at most."""
    lines: list[str] = []
    drawn: set[str] = set()
    for name in sorted(Tree.of(path).files):
        *directories, file = name.split("/")
        for depth in range(len(directories)):
            if (parent := "/".join(directories[: depth + 1])) not in drawn:
                drawn.add(parent)
                lines.append(f"{'  ' * (depth + 1)}{_shown(directories[depth])}/")
        lines.append(f"{'  ' * (len(directories) + 1)}{_shown(file)}")
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"  ... and {len(lines) - _MOST_LINES} more"]
    return "\n".join(lines) or "  no file at all"


def _shown(name: str) -> str:
    """Write a name so that it cannot break a line or command a terminal."""
    return name if name.isprintable() else ascii(name)


_ARRANGE: Mapping[Kind, Callable[[Path], Tree]] = {
    "tensorflow": partial(_checked, kind="tensorflow", formats=model_format.formats),
    "neuron": partial(_checked, kind="neuron", formats=_saved_model_only),
    "onnx": _onnx,
    "python": _python,
}
