"""The Python packages that a project asks for, checked against those that its processes will find.

Nothing is installed behind the user's back. A package that is missing and one of another version are both errors: the
API would fail at its first request, or worse, answer differently from where it was tried.
"""

import importlib.metadata
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from cortex.environments.tree import plainly
from cortex.errors import UserError

IN_AN_IMAGE = "name an image that has what the API needs of it in predictor.image"
_NOT_RUN = ("dependencies.sh", "conda-packages.txt")
_INCLUDE = re.compile(r"(?:-r|--requirement)(?:\s+|=)?(?P<file>.+)")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s+|=)?(?P<url>.+)")
_TRAILING_OPTIONS = re.compile(r"\s--?[a-z].*$")
_COMMENT = re.compile(r"(^|\s)#.*$")
_LOCATION = re.compile(r"[a-z+]+://|\.{0,2}/|\.$|.*\.(whl|zip|tar\.gz)$", re.IGNORECASE)
_NAMED = re.compile(r"[A-Za-z0-9._-]+\s*(\[[^\]]*\])?\s*@")
_EGG = re.compile(r"[#&]egg=(?P<name>[A-Za-z0-9._-]+)")


@dataclass(frozen=True)
class Unmet:
    """One requirement that this Python does not meet. ``installed`` is the version it has instead, or None."""

    requirement: str
    installed: str | None

    def __str__(self) -> str:
        return f"{self.requirement}: {f'{self.installed} is installed' if self.installed else 'not installed'}"


def check(project: Path) -> tuple[str, ...]:
    """Check the ``requirements.txt`` of a project, and return notices about what else it has and is not done here.

    UserError with every unmet requirement, and the command that installs them.
    """
    file = project / "requirements.txt"
    unmet = missing(file) if file.is_file() else ()
    if unmet:
        rows = "\n".join(f"  {row}" for row in unmet)
        command = f"{shlex.quote(sys.executable)} -m pip install -r {shlex.quote(str(file))}"
        raise UserError(f"{file} asks for packages that are not installed:\n{rows}\ninstall them with: {command}")
    return tuple(not_run(project, "install by hand what the API needs of it"))


def not_run(project: Path, instead: str = IN_AN_IMAGE) -> Iterator[str]:
    """Yield a notice of the files by which Cortex installed more than pip does, when a project has some."""
    found = [name for name in _NOT_RUN if (project / name).is_file()]
    if found:
        yield f"{' and '.join(found)}: not run here; {instead}"


def missing(file: Path) -> tuple[Unmet, ...]:
    """Return the requirements of a file, and of the files it includes, that this Python does not meet.

    Environment markers are honoured; options and constraint files are passed over; a URL or a path is checked by name
    when it tells one. UserError with file and line for what is not a requirement.
    """
    found = {row: None for requirement in _requirements(file, ()) for row in _unmet(requirement, frozenset())}
    return tuple(found)


def _requirements(file: Path, including: tuple[Path, ...]) -> Iterator[Requirement]:
    for number, line in lines(file):
        if match := _INCLUDE.fullmatch(line):
            included = file.parent / match["file"].strip("\"'")
            if not included.is_file():
                raise UserError(f"{file}:{number}: {included} does not exist")
            if included.resolve() not in (*including, file.resolve()):
                yield from _requirements(included, (*including, file.resolve()))
            continue
        try:
            requirement = _parsed(line)
            wanted = requirement is not None and (requirement.marker is None or requirement.marker.evaluate())
        except ValueError as error:
            text = str(error).splitlines()[0]
            raise UserError(f"{file}:{number}: {line!r} is not a requirement: {text}") from error
        if requirement is not None and wanted:
            yield requirement


def lines(file: Path, shown: str = "") -> Iterator[tuple[int, str]]:
    """Yield the logical lines that say something, each with the number of its first physical line.

    UserError, which calls the file ``shown`` if that is given, when it cannot be read.
    """
    with plainly("cannot read"):
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{shown or file}: must be text in UTF-8: {error}") from error
    start, logical = 1, ""
    for number, physical in enumerate(text.splitlines(), start=1):
        start = start if logical else number
        logical += physical
        if logical.endswith("\\"):
            logical = logical[:-1] + " "
            continue
        if line := _COMMENT.sub("", logical).strip():
            yield start, line
        logical = ""
    if line := _COMMENT.sub("", logical).strip():
        yield start, line


def _parsed(line: str) -> Requirement | None:
    """Return what a line asks for; None for an option, and for a place that does not tell the name of its package."""
    if match := _EDITABLE.fullmatch(line):
        line = match["url"]
    elif line.startswith("-"):
        return None
    line = _TRAILING_OPTIONS.sub("", line)
    if _NAMED.match(line) or not _LOCATION.match(line):
        return Requirement(line)
    if match := _EGG.search(line):
        return Requirement(match["name"])
    try:
        name, version, _, _ = parse_wheel_filename(line.partition("#")[0].rpartition("/")[2])
    except InvalidWheelFilename:
        return None
    return Requirement(f"{name}=={version}")


def _unmet(requirement: Requirement, within: frozenset[str]) -> Iterator[Unmet]:
    """Yield a requirement that is not met, or what its extras need and is not; ``within``: extras being looked at."""
    shown = f"{requirement.name}{requirement.specifier}"
    try:
        distribution = importlib.metadata.distribution(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        yield Unmet(shown, None)
        return
    if not _satisfies(distribution.version, requirement):
        yield Unmet(shown, distribution.version)
        return
    for extra in sorted(requirement.extras):
        if (key := f"{requirement.name}[{extra}]") not in within:
            for needed in _needed_by_extra(distribution, extra):
                yield from _unmet(needed, within | {key})


def _satisfies(version: str, requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except (InvalidVersion, TypeError):
        return not requirement.specifier


def _needed_by_extra(distribution: importlib.metadata.Distribution, extra: str) -> Iterator[Requirement]:
    for text in distribution.requires or ():
        marker = (needed := Requirement(text)).marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            yield needed
