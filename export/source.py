"""The SavedModel that an artifact is made from: where it is, what its signature is, and what its card says."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex.errors import UserError
from cortex.model_server import base_paths, saved_model
from cortex.model_server.saved_model import SavedModel
from cortex.model_server.status import StatusError
from cortex.protos import meta_graph_pb2
from export import model_card
from export.signature import SIGNATURE

_TAGS = frozenset({"serve"})


@dataclass(frozen=True)
class Source:
    """One version of a SavedModel, reduced to its signature ``serving_default``.

    ``base`` is the directory that holds the versions, ``left_out`` names the model's other signatures, and ``card`` is
    its model card, empty when it has none.
    """

    base: Path
    version: int
    model: SavedModel
    left_out: tuple[str, ...]
    card: Mapping[str, Any]

    @property
    def directory(self) -> Path:
        return self.model.directory

    @property
    def signature(self) -> meta_graph_pb2.SignatureDef:
        return self.model.signatures[SIGNATURE]


def find(path: Path, version: int | None) -> Source:
    """Return a version of the SavedModel at ``path``: the directory of all versions, or that of one.

    Without ``version`` it is the newest. Raises UserError when there is none, or none that can be read.
    """
    directory, number = _directory(path, version)
    try:
        whole = saved_model.read(directory, _TAGS)
    except StatusError as error:
        raise UserError(f"{directory}: {error.message}") from error
    names = tuple(sorted(saved_model.runnable(whole.signatures)))
    if SIGNATURE not in names:
        raise UserError(f"{directory}: has no signature {SIGNATURE} (it has: {', '.join(names) or 'none'})")
    alone = SavedModel(directory, _TAGS, {SIGNATURE: whole.signatures[SIGNATURE]})
    left_out = tuple(name for name in names if name != SIGNATURE)
    return Source(_base(directory), number, alone, left_out, _card(directory / model_card.FILE))


def digest(directory: Path) -> str:
    """Return the SHA-256 over the name, a zero byte and the content's SHA-256 of each file, in the order of the names.

    What lies in ``assets.extra`` is no part of the model.
    """
    total = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = path.relative_to(directory)
        if name.parts[0] != "assets.extra":
            with path.open("rb") as file:
                total.update(name.as_posix().encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _directory(path: Path, version: int | None) -> tuple[Path, int]:
    if not path.is_dir():
        raise UserError(f"{path}: there is no such directory; python -m export savedmodel makes models/resnet50")
    if saved_model.is_in(path):
        return path, _number(path, version)
    found = base_paths.find(path)
    if not found:
        raise UserError(f"{path}: holds neither a SavedModel nor numbered versions of one")
    number = max(found) if version is None else version
    if number not in found:
        raise UserError(f"{path}: has no version {number} (it has: {', '.join(map(str, sorted(found)))})")
    if not saved_model.is_in(found[number]):
        raise UserError(f"{found[number]}: holds no saved_model.pb")
    return found[number], number


def _base(directory: Path) -> Path:
    base = directory.parent
    return base if base.name not in ("", "..") else directory.resolve().parent


def _number(path: Path, version: int | None) -> int:
    """Return the number of a directory that is a version itself: what was asked for, its name, or 1."""
    if version is not None:
        return version
    name = path.absolute().name
    return int(name) if name.isascii() and name.isdigit() else 1


def _card(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return content
