"""The project of an API: the files next to its yaml that its processes see, by content.

One project for all APIs of a yaml, since any file of it may be imported or read by any of them: which ones an API needs
cannot be known without running it. What never is needed by code is left out, so that it changes no revision: the
deployed yaml, other ``cortex*.yaml`` beside it, models that the yaml names (they are cached apart), virtual
environments; the rest is for ``.cortexignore``. An update that was not needed costs no request.
"""

import contextlib
import fnmatch
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pathspec

from cortex.environments.fields import FieldError
from cortex.environments.model_remote import is_remote
from cortex.environments.models import local_path
from cortex.environments.tree import Tree, human_size, plainly
from cortex.errors import UserError
from cortex.spec import APISpec
from cortex.spec.config import Config

IGNORE_FILE = ".cortexignore"
_LARGEST = 512_000_000
_DIRECTORIES = ("__pycache__", "node_modules")
_FILES = ("*.py[cod]",)
_EITHER = ("cortex-debug-*",)
_DEPLOYMENTS = ("cortex*.yaml", "cortex*.yml")


@dataclass(frozen=True)
class Project:
    """The files of a project. ``notices`` say what was left out that its owner may miss."""

    tree: Tree
    notices: tuple[str, ...]

    @classmethod
    def of(cls, config: Config, spec: APISpec, home: Path) -> "Project":
        """Find the project that an API of a yaml runs in.

        Left out are the models of all APIs of the yaml, and ``home``, where environments keep their state. UserError
        when the yaml lies in the home directory or in ``/``, when the project is larger than 512 MB or cannot be read;
        FieldError when the API's predictor is not part of it.
        """
        path = _plain(config.path)
        root = path.parent
        _refuse_home(path, root)
        filtered = _Filter(root, {path, _plain(home), *_models(config.apis, root)}, _ignored(root))
        tree = Tree.of(root, filtered.leaves_out)
        _check_predictor(spec, root, tree)
        _check_size(root, tree)
        return cls(tree, tuple(filtered.notices))


@dataclass
class _Filter:
    root: Path
    excluded: set[Path]
    ignored: pathspec.GitIgnoreSpec
    notices: list[str] = field(default_factory=list)

    def leaves_out(self, name: str, entry: "os.DirEntry[str]") -> bool:
        """Tell whether a file or directory is no part of the project."""
        path = self.root / name
        is_directory = path.is_dir()
        return (
            (entry.name.startswith(".") and (entry.name != ".env" or is_directory))
            or _matches(entry.name, (*_EITHER, *(_DIRECTORIES if is_directory else _FILES)))
            or ("/" not in name and not is_directory and _matches(name, _DEPLOYMENTS))
            or path in self.excluded
            or self.ignored.match_file(f"{name}/" if is_directory else name)
            or (is_directory and os.path.exists(path / "pyvenv.cfg"))  # noqa: PTH110 - exists() raises where it is closed
            or (entry.is_symlink() and self._leads_out(name, path))
        )

    def _leads_out(self, name: str, path: Path) -> bool:
        """Tell whether a link leaves the project: files of the machine that nobody chose are no part of a revision."""
        target = Path(os.path.realpath(path))
        inside = target.exists() and target.is_relative_to(os.path.realpath(self.root))
        if not inside:
            told = f"{name} is a link to {target}, which is not in the project: it is left out"
            self.notices.append(told.encode(errors="backslashreplace").decode())  # a name may be no UTF-8
        return not inside


def _plain(path: Path) -> Path:
    """Return a path from the root, without ``..``; links stay."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - absolute() keeps `..`, and resolve() follows links


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _refuse_home(config: Path, root: Path) -> None:
    places = {Path("/"): "the root directory"}
    with contextlib.suppress(RuntimeError):  # a user without a home directory
        places.setdefault(Path.home(), "your home directory")
    for place, called in places.items():
        if root.resolve() == place.resolve():
            raise UserError(
                f"{config.name} is in {called}, and every file next to it would be part of the project; "
                f"move it and what belongs to it into a directory of their own"
            )


def _models(specs: Sequence[APISpec], root: Path) -> set[Path]:
    """Return where the local models are, less directories that have a predictor in them too."""
    predictors = [_plain(root / spec.predictor.path) for spec in specs]
    sources = [model.path for spec in specs for model in spec.predictor.models]
    sources += [spec.predictor.models_dir for spec in specs if spec.predictor.models_dir is not None]
    paths = {_plain(local_path(source, root)) for source in sources if not is_remote(source)}
    return {path for path in paths if not any(predictor.is_relative_to(path) for predictor in predictors)}


def _ignored(root: Path) -> pathspec.GitIgnoreSpec:
    file = root / IGNORE_FILE
    with plainly("cannot read"):
        if not file.exists():
            return pathspec.GitIgnoreSpec.from_lines([])
        try:
            return pathspec.GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8").splitlines())
        except ValueError as error:
            raise UserError(f"{file}: {error}; patterns are written as in .gitignore, in UTF-8") from error


def _check_predictor(spec: APISpec, root: Path, tree: Tree) -> None:
    path = os.path.normpath(spec.predictor.path)
    if path not in tree.files:
        raise FieldError(
            "predictor.path",
            f"{spec.predictor.path}: is not a file of the project: it does not exist in {root}, is hidden, "
            f"is a link that leads out, or is left out by {IGNORE_FILE}",
        )


def _check_size(root: Path, tree: Tree) -> None:
    total = sum(tree.sizes.values())
    if total <= _LARGEST:
        return
    largest = sorted(tree.sizes.items(), key=lambda row: -row[1])[:3]
    names = ", ".join(f"{name} ({human_size(size)})" for name, size in largest)
    raise UserError(
        f"the project {root} has {human_size(total)}, more than {human_size(_LARGEST)}; its largest files are {names}; "
        f"name what the API does not need in {root / IGNORE_FILE}"
    )
