"""Which pictures there are in a folder, and what each shows.

Either every class has a folder of its own, or a file of labels says it, picture by picture. Classes named like
ImageNet's (n01440764) have ImageNet's numbers, so that a part of the classes is labelled as the whole would be; others
are numbered in the order of their names.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cortex.errors import UserError
from export.pictures import SUFFIXES, files_below
from export.signature import CLASS_INDEX

_LAST = re.compile(r"[\s,]+(?=[^\s,]+$)")  # what parts the last word from all before it


@dataclass(frozen=True)
class LabelledPicture:
    """One picture. ``label`` counts from 1; ``synset`` is the class as the source names it, ``text`` for people."""

    path: Path
    label: int
    synset: str
    text: str


def find(folder: Path, labels: Path | None) -> list[LabelledPicture]:
    """Return the pictures of a folder, in the order of their paths.

    Raises UserError where there are none, and for a picture or a line of the label file that has no counterpart.
    """
    paths = sorted(path for path in files_below(folder) if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"{folder}: no pictures in it ({', '.join(sorted(SUFFIXES))})")
    classes = _by_folder(folder, paths) if labels is None else _by_file(folder, paths, labels)
    numbers = _numbers(set(classes.values()), labels or folder)
    return [LabelledPicture(path, *numbers[classes[path]]) for path in paths]


def _by_folder(folder: Path, paths: Sequence[Path]) -> Mapping[Path, str]:
    if loose := next((path for path in paths if path.parent == folder), None):
        raise UserError(f"{loose}: lies in no folder of a class; put it in one, or give --labels FILE")
    return {path: path.relative_to(folder).parts[0] for path in paths}


def _by_file(folder: Path, paths: Sequence[Path], labels: Path) -> Mapping[Path, str]:
    """Read a class for each picture: ``FILE CLASS`` a line, or only classes, in the order of the pictures' names."""
    lines = _lines(labels)
    if all(len(words) == 1 for _, words in lines):
        if len(lines) != len(paths):
            raise UserError(f"{labels}: {len(lines)} classes, but {folder} holds {len(paths)} pictures")
        return {path: words[0] for path, (_, words) in zip(paths, lines, strict=True)}
    known = {path.relative_to(folder).as_posix(): path for path in paths}
    classes = {}
    for number, words in lines:
        if len(words) != 2 or words[0] not in known:
            raise UserError(f"{labels}, line {number}: expected the name of a picture in {folder} and its class")
        classes[known[words[0]]] = words[1]
    if missing := next((path for path in paths if path not in classes), None):
        raise UserError(f"{missing}: {labels} has no class for it")
    return classes


def _lines(labels: Path) -> list[tuple[int, list[str]]]:
    """Return number and words of every line that has any: the last word is the class, spaces or commas part them.

    Before that, they belong to the name of the picture.
    """
    try:
        text = labels.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--labels {labels}: cannot be read ({error})") from error
    parted = ((number, re.split(_LAST, line.strip(" \t,"))) for number, line in enumerate(text.splitlines(), 1))
    return [(number, words) for number, words in parted if words != [""]]


def _numbers(names: Iterable[str], source: Path) -> Mapping[str, tuple[int, str, str]]:
    """Return label, name and text of every class. A number is the model's class, which counts from 0."""
    names = sorted(names)
    if all(name.isdecimal() for name in names):
        return {name: (int(name) + 1, name, name) for name in names}
    imagenet = {synset: (int(k) + 1, synset, text) for k, (synset, text) in _index().items()}
    known = [name for name in names if name in imagenet]
    if known and len(known) < len(names):
        stranger = next(name for name in names if name not in imagenet)
        raise UserError(
            f"{source}: {known[0]} is a class of ImageNet's, {stranger} is not; they cannot be numbered together"
        )
    return {name: imagenet[name] if known else (label, name, name) for label, name in enumerate(names, 1)}


def _index() -> Mapping[str, tuple[str, str]]:
    index: Mapping[str, tuple[str, str]] = json.loads(CLASS_INDEX.read_text())
    return index
