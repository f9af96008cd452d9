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
from cortex.tensors import type_name
from export import model_card
from export.signature import IMAGE, INPUT, OUTPUT, SIGNATURE

_TAGS = frozenset({"serve"})


@dataclass(frozen=True)
class Source:
    """One version of a SavedModel, reduced to its signature ``serving_default``.

    ``base`` is the directory that holds the versions, or the model's own where its name is no number; ``left_out``
    names the model's other signatures, and ``card`` is its model card, empty when it has none.
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

    def beside(self, suffix: str, output: Path | None) -> Path:
        """Return the directory for an artifact: ``output``, or BASE_suffix.

        Raises UserError for the source's own, one in it, and one that would be another version of the source, and where
        the source is an artifact of a target itself, since its card speaks of that.
        """
        if (target := self.card.get("target")) in ("gpu", "accelerator"):
            message = f"is an artifact for the {target}; name the SavedModel that it was made from"
            raise UserError(f"{self.directory}: {message}")
        chosen = output or self.base.with_name(f"{self.base.name}_{suffix}")
        place, base = chosen.resolve(), self.base.resolve()
        if place in (base, self.directory.resolve()):
            raise UserError(f"--output {chosen}: holds the SavedModel itself; name another directory")
        inside = place.relative_to(base).parts[0] if place.is_relative_to(base) else ""
        if inside and (_is_number(inside) or base == self.directory.resolve()):
            raise UserError(f"--output {chosen}: lies in the SavedModel; name another directory")
        return chosen

    def made_from(self) -> dict[str, Any]:
        """Return what the card of an artifact says about the source that it was made from."""
        return {"version": self.version, "sha256": digest(self.directory)}


def find_images(path: Path, version: int | None) -> Source:
    """Return the source as ``find`` does. Raises UserError too for another signature than that of ResNet-50.

    It takes ``input`` uint8 [-1, 224, 224, 3] alone, and gives ``output`` float32 [-1, classes] alone.
    """
    source = find(path, version)
    inputs = {alias: _kind(info) for alias, info in source.signature.inputs.items()}
    outputs = {alias: _kind(info) for alias, info in source.signature.outputs.items()}
    wanted = {INPUT: ("uint8", [-1, *IMAGE])}
    dtype, sizes = outputs.get(OUTPUT, ("", []))
    if inputs != wanted or len(outputs) != 1 or dtype != "float32" or len(sizes) != 2 or sizes[0] != -1:
        told = "; ".join(f"{alias} {dtype} {sizes}" for alias, (dtype, sizes) in sorted((inputs | outputs).items()))
        raise UserError(
            f"{source.directory}: this target is for models that take {INPUT} uint8 {[-1, *IMAGE]} and give {OUTPUT} "
            f"float32 [-1, classes], nothing else; this one has {told} (python -m export cpu takes others)"
        )
    return source


def _kind(info: meta_graph_pb2.TensorInfo) -> tuple[str, list[int]]:
    return type_name(info.dtype), [dim.size for dim in info.tensor_shape.dim]


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
    named = _named(directory)
    return _named(named.parent) if _is_number(named.name) else named


def _named(directory: Path) -> Path:
    """Return a directory by a path that ends in its name."""
    return directory if directory.name not in ("", "..") else directory.resolve()


def _number(path: Path, version: int | None) -> int:
    """Return the number of a directory that is a version itself: its name or, if that is none, what is asked for, or 1.

    Raises UserError when another one is asked for than its name is.
    """
    name = _named(path).name
    if not _is_number(name):
        return 1 if version is None else version
    if version not in (None, int(name)):
        raise UserError(f"{path}: is version {int(name)}, not {version}")
    return int(name)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


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
