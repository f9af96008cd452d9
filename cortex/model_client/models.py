"""How user code names a model and its version, and where the versions of a model lie on disk."""

from collections.abc import Collection, Sequence
from pathlib import Path

from cortex.errors import UserError
from cortex.spec import SINGLE_MODEL

LATEST = "latest"


def choose_name(names: Sequence[str], wanted: str | None) -> str:
    """Return the model that is meant. An API with a single, unnamed model ignores the name. Raises UserError."""
    if SINGLE_MODEL in names:
        return SINGLE_MODEL
    if wanted is None:
        raise UserError(f"model_name was not specified, choose one of the following: {list(names)}")
    if wanted not in names:
        raise UserError(f"'{wanted}' model wasn't found in the list of available models: {list(names)}")
    return wanted


def choose_version(available: Collection[int], wanted: str, name: str) -> int:
    """Return the version that is meant: ``latest`` is the highest, otherwise a numeric string. Raises UserError."""
    if wanted == LATEST:
        return max(available)
    if not (isinstance(wanted, str) and wanted.isascii() and wanted.isdecimal()):
        raise UserError("model_version must be either a parse-able numeric value or 'latest'")
    if int(wanted) not in available:
        versions = [str(version) for version in sorted(available)]
        raise UserError(f"model '{name}' has no version '{wanted}', choose one of the following: {versions}")
    return int(wanted)


def versions_on_disk(path: Path) -> dict[int, Path]:
    """Return the versions of a model: the directories with a numeric name, or the path itself as version 1."""
    if not path.exists():
        raise UserError(f"{path}: the model does not exist")
    numbered = {int(entry.name): entry for entry in path.glob("*/") if entry.name.isascii() and entry.name.isdecimal()}
    return numbered or {1: path}
