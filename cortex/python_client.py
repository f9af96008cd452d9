"""The Python client of Cortex 0.21 to 0.25: what the commands about APIs do, from a script or a notebook."""

import importlib
import inspect
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cortex.console import document, text
from cortex.console.steps import Steps
from cortex.environments.base import Environment
from cortex.environments.registry import Registry, cortex_home
from cortex.errors import UserError
from cortex.spec import config

_FILE_NAME = re.compile(r"[^A-Za-z0-9-]")


class Client:
    """Deploy and manage the APIs of one environment; `cortex.client` returns one.

    Every method raises `cortex.errors.UserError` for what its caller can mend. APIs are described as by
    ``cortex get -o json``: ``spec``, ``status``, ``metrics``, ``endpoint`` and more.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    @classmethod
    def of(cls, env: str) -> "Client":
        """Return the client of the environment with this name."""
        registry = Registry(cortex_home())
        return cls(registry.open(registry.named(env)))

    def deploy(
        self, config_file: str | os.PathLike[str], force: bool = False, wait: bool = False
    ) -> list[dict[str, Any]]:
        """Create or update the APIs of a yaml, wait until they are live, and return each with a ``message``.

        ``force`` replaces an update that is in progress. ``wait`` changes nothing: a deployment is always awaited, and
        what it waits for is printed to stderr.
        """
        if isinstance(config_file, Mapping):
            raise UserError("deploy takes the path of a yaml; create_api takes an API that is a dictionary")
        return self._deploy(Path(config_file), force)

    def create_api(
        self,
        api_spec: Mapping[str, Any],
        predictor: type[Any] | None = None,
        requirements: Sequence[str] = (),
        conda_packages: Sequence[str] = (),
        project_dir: str | os.PathLike[str] | None = None,
        force: bool = True,
        wait: bool = False,
    ) -> dict[str, Any]:
        """Create or update one API, wait until it is live, and return what `deploy` does of one.

        ``api_spec`` is one entry of a yaml. Its predictor is a file of ``project_dir``, or else the class ``predictor``
        by itself, where ``requirements`` are lines of a requirements.txt: with the globals that it uses if it is one of
        the script or notebook that calls this (dill pickles it), else with the file that defines it.

        With ``wait`` the API itself is returned, as Cortex did then. It is awaited in any case.
        """
        if (predictor is None) == (project_dir is None):
            raise UserError("either predictor or project_dir must be given: a class, or the directory with its file")
        if project_dir is not None:
            with _beside(Path(project_dir), api_spec) as file:
                (deployed,) = self._deploy(file, force)
        else:
            project = _project(api_spec, predictor, requirements, conda_packages)
            (deployed,) = self._deploy(project, force)
            shutil.rmtree(project.parent)  # of one that failed the message names files
        return deployed["api"] if wait else deployed

    def get_api(self, api_name: str) -> dict[str, Any]:
        """Return one API."""
        return document.api(self._environment.api(api_name))

    def list_apis(self) -> list[dict[str, Any]]:
        """Return all APIs."""
        return [document.api(api) for api in self._environment.apis()]

    def refresh(self, api_name: str, force: bool = False) -> None:
        """Restart an API without losing a request. ``force`` replaces an update that is in progress."""
        with Steps() as steps:
            result = self._environment.refresh(api_name, force=force, progress=steps)
        if failures := text.failures([result]):
            raise UserError(failures)

    def delete_api(self, api_name: str, keep_cache: bool = False) -> None:
        """Stop an API and remove all that it left, but for its cached models where they are to be kept."""
        self._environment.delete(api_name, keep_cache=keep_cache)

    def stream_api_logs(self, api_name: str) -> None:
        """Print what the processes of an API log, until it is interrupted."""
        for line in self._environment.logs(api_name, follow=True):
            print(line, flush=True)

    def _deploy(self, file: Path, force: bool) -> list[dict[str, Any]]:
        with Steps() as steps:
            results = tuple(self._environment.deploy(config.read(file), force=force, progress=steps))
        if failures := text.failures(results):
            raise UserError(failures)
        return [document.deployed(result) for result in results]


@contextmanager
def _beside(project: Path, api_spec: Mapping[str, Any]) -> Iterator[Path]:
    """Write an API into a yaml of its own among the files of its project, of which a hidden file is no part."""
    try:
        descriptor, name = tempfile.mkstemp(".yaml", ".cortex-", project)
    except OSError as error:
        raise UserError(f"project_dir: {project}: {error.strerror}") from error
    file = Path(name)
    try:
        os.close(descriptor)
        file.write_text(_yaml(api_spec), encoding="utf-8")
        yield file
    finally:
        file.unlink()


def _project(
    api_spec: Mapping[str, Any], predictor: Any, requirements: Sequence[str], conda_packages: Sequence[str]
) -> Path:
    """Make the project of a class, and return its yaml."""
    if not inspect.isclass(predictor):
        raise UserError(f"predictor: must be a class, not {predictor!r}")
    name, content, needed = _written(predictor)
    kind = predictor.__name__.removesuffix("Predictor").lower()  # TensorFlowPredictor: tensorflow
    spec = {**api_spec, "predictor": {"type": kind, **(api_spec.get("predictor") or {}), "path": name}}
    files = {
        name: content,
        "cortex.yaml": _yaml(spec).encode(),
        "requirements.txt": "\n".join([*needed, *requirements]).encode(),
        "conda-packages.txt": "\n".join(conda_packages).encode(),
    }
    directory = cortex_home() / "deployments" / _FILE_NAME.sub("-", str(spec.get("name")))
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for file, each in files.items():
        if each:
            (directory / file).write_bytes(each)
    return directory / "cortex.yaml"


def _written(predictor: type[Any]) -> tuple[str, bytes, tuple[str, ...]]:
    """Return a file that defines a class: its name, its content, and the requirements of reading it."""
    if predictor.__module__ != "__main__":
        return "predictor.py", _source(predictor), ()
    try:
        dill: Any = importlib.import_module("dill")
    except ImportError as error:
        raise UserError("a predictor that is a class of a script or notebook needs dill: pip install dill") from error
    try:
        return "predictor.pickle", dill.dumps(predictor, recurse=True), ("dill",)
    except Exception as error:  # whatever the user's objects raise
        raise UserError(f"predictor: cannot be pickled: {type(error).__name__}: {error}") from error


def _source(predictor: type[Any]) -> bytes:
    try:
        return Path(inspect.getfile(predictor)).read_bytes()
    except (OSError, TypeError) as error:
        raise UserError(f"predictor: the file that defines it cannot be read: {error}") from error


def _yaml(api_spec: Mapping[str, Any]) -> str:
    try:
        return yaml.safe_dump([dict(api_spec)], sort_keys=False)
    except yaml.YAMLError as error:
        raise UserError(f"api_spec: must be plain data, as in a yaml: {error}") from error
