"""Base paths: the version directories in them, and which of those a policy serves."""

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from cortex.model_server.config import AllVersions, LatestVersions, ModelConfig, Policy

_log = logging.getLogger(__name__)
_NUMBER = re.compile(r"[0-9]{1,19}")
_LARGEST = 2**63 - 1


class BasePaths:
    """Look at base paths again and again, and warn of what is wrong with one only when that changes."""

    def __init__(self) -> None:
        self._said: dict[str, list[str]] = {}

    def wanted(self, model: ModelConfig, crashed: Collection[int] = ()) -> dict[int, Path] | None:
        """Return the directories of the versions to serve, newest first, or None when the base path cannot be read.

        Of the latest versions, those that have ``crashed`` do not count: the ones before them are served as well.
        A path that cannot be read changes nothing: a file system that goes away for a while must not unload a model.
        """
        try:
            found = _named(model.base_path)
        except OSError as error:
            problem = (
                "FileSystemStoragePathSource encountered a filesystem access error: "
                f"Could not find base path {model.base_path} for servable {model.name} with error {error}"
            )
            self._warn(model.name, [problem])
            return None
        wanted, absent = select(found, model.policy, crashed)
        self._warn(model.name, list(_problems(model, found, wanted, absent)))
        return {number: found[number][0] for number in wanted}

    def _warn(self, name: str, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self._said.get(name, ()):
                _log.warning("%s", problem)
        self._said[name] = problems


def find(base: Path) -> dict[int, Path]:
    """Return the version directories of a base path by number: those whose name is an integer (00000123 is 123).

    Raises OSError when the base path cannot be read.
    """
    return {number: same[0] for number, same in _named(base).items()}


def _named(base: Path) -> dict[int, list[Path]]:
    """Return all directories of each version, of which the first is it."""
    found: dict[int, list[Path]] = {}
    for entry in sorted(base.iterdir()):
        if _NUMBER.fullmatch(entry.name) and int(entry.name) <= _LARGEST and entry.is_dir():
            found.setdefault(int(entry.name), []).append(entry)
    base.stat()  # a path that went away meanwhile has no versions to the loop, and must not count as empty
    return found


def _problems(
    model: ModelConfig, found: Mapping[int, Sequence[Path]], wanted: Sequence[int], absent: Sequence[int]
) -> Iterator[str]:
    for same in found.values():
        if len(same) > 1:
            yield f"Duplicate version directories {', '.join(map(str, same))}: the first is served"
    if not wanted:
        yield (
            f"No versions of servable {model.name} found under base path {model.base_path}. "
            "Did you forget to name your leaf directory as a number (eg. '/1/')?"
        )
    elif absent:
        yield f"Versions {absent} of servable {model.name} were asked for, but are not there"


def select(found: Collection[int], policy: Policy, crashed: Collection[int] = ()) -> tuple[list[int], list[int]]:
    """Return the versions that the policy serves, newest first, and those it asks for that are not there."""
    newest = sorted(found, reverse=True)
    if isinstance(policy, AllVersions):
        return newest, []
    if isinstance(policy, LatestVersions):
        latest = [number for number in newest if number not in crashed][: policy.count]
        return [number for number in newest if number in crashed or number in latest], []
    return [number for number in newest if number in policy.versions], sorted(policy.versions - set(found))
