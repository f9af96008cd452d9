"""The models of an API: from what the yaml says to directories in the cache that a model server can serve."""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cortex.environments.base import Progress
from cortex.environments.fields import FieldError
from cortex.environments.model_archive import unpack
from cortex.environments.model_cache import ModelCache
from cortex.environments.model_layout import Kind, arrange, version_of
from cortex.environments.model_remote import Remote, is_remote
from cortex.environments.model_transfer import digest_of
from cortex.environments.tree import plainly
from cortex.errors import UserError
from cortex.spec import SINGLE_MODEL, APISpec, Model

_NAME = re.compile(r"[a-zA-Z0-9_\-]+")
_LARGEST_CARD = 10_000_000


@dataclass(frozen=True)
class ResolvedModel:
    """A model in the cache. ``path`` (absolute) has one directory per version; the highest one answers by default."""

    name: str
    signature_key: str | None
    path: Path
    digest: str
    source: str
    """The path as written in the yaml."""
    versions: tuple[int, ...]
    notices: tuple[str, ...] = ()


def resolve(spec: APISpec, project: Path, cache: ModelCache, progress: Progress) -> tuple[ResolvedModel, ...]:
    """Cache every model of an API, in the order of the yaml; ``project`` is the directory of the yaml.

    FieldError for the first model that is missing, damaged, not laid out as its kind must be, or cannot be cached.
    Hold the cache (`ModelCache.hold`) around this and around recording the digests as being in use.
    """
    kind, resolved = _kind(spec), []
    for field, model in wanted(spec, project):
        with _of_field(field, model.path):
            resolved.append(_resolved(model, kind, project, cache, progress))
    return tuple(resolved)


def local_path(source: str, project: Path) -> Path:
    """Return where a path of the yaml leads: from home (``~/``), absolute, or from the yaml's directory."""
    try:
        return project.absolute() / (Path(source).expanduser() if source.startswith("~/") else source)
    except RuntimeError as error:
        raise UserError("there is no home directory for ~/; write the whole path") from error


def wanted(spec: APISpec, project: Path) -> Iterator[tuple[str, Model]]:
    """Yield every model with the field that names its path; ``models_dir`` has one in each of its directories."""
    for index, model in enumerate(spec.predictor.models):
        yield f"predictor.models[{index}].path", model
    if spec.predictor.models_dir is not None:
        field, top = "predictor.models_dir", spec.predictor.models_dir.rstrip("/") or "/"
        with _of_field(field, top):
            names = _directories(top, project)
        for name in names:
            yield field, Model(name=name, path=f"{top}/{name}", signature_key=spec.predictor.models_dir_signature_key)


def foreseen(spec: APISpec, project: Path) -> Iterator[Model]:
    """Yield what `wanted` would, of what is on this machine; one model stands for all of a directory that is not."""
    yield from spec.predictor.models
    top = spec.predictor.models_dir
    if top is None:
        return
    path = Path() if is_remote(top) else local_path(top, project)
    names = sorted(entry.name for entry in path.glob("[!.]*/") if entry.is_dir()) if not is_remote(top) else []
    for name in names or ["*"]:
        yield Model(name=name, path=f"{top.rstrip('/')}/{name}", signature_key=spec.predictor.models_dir_signature_key)


def _kind(spec: APISpec) -> Kind:
    if spec.predictor.type == "tensorflow":
        return "neuron" if spec.compute.inf else "tensorflow"
    return spec.predictor.type


def _directories(top: str, project: Path) -> list[str]:
    if is_remote(top):
        names = Remote.open(top).directories()
    else:
        path = local_path(top, project)
        _check_exists(path)
        with plainly("cannot read the directory"):
            names = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    names = [name for name in names if not name.startswith(".")]
    for name in names:
        if not _NAME.fullmatch(name) or name == SINGLE_MODEL:
            raise UserError(f"{name!r} cannot be a model's name: use letters, digits, dashes and underscores")
    if not names:
        raise UserError("must have a directory for each model, and has none")
    return names


def _resolved(model: Model, kind: Kind, project: Path, cache: ModelCache, progress: Progress) -> ResolvedModel:
    if is_remote(model.path):
        digest = _fetch(Remote.open(model.path), kind, cache, progress)
    else:
        path = local_path(model.path, project)
        _check_exists(path)
        digest = _keep(path, kind, cache, progress, copying=f"caching model {path} ...")
    entry = cache.entry(digest)
    versions = tuple(sorted(filter(None, (version_of(path.name) for path in entry.iterdir()))))
    notices = tuple(_notices(_title(model), entry / str(versions[-1])))
    return ResolvedModel(model.name, model.signature_key, entry, digest, model.path, versions, notices)


def _fetch(remote: Remote, kind: Kind, cache: ModelCache, progress: Progress) -> str:
    """Download a model, unless it is cached and the store says that it has not changed since."""
    fingerprint = remote.fingerprint()
    key = fingerprint and f"{kind} {remote.sha256} {fingerprint}"
    digest = cache.recall(key) if key else None
    if digest:
        return digest
    progress(f"downloading model {remote.shown} ...")
    with cache.partial(key) if key else cache.temporary() as directory:
        top = remote.download(directory, progress)
        found = digest_of(top) if top.is_file() else ""
        if found:
            _check_pinned(remote, found)
        digest = _keep(top, kind, cache, progress)
        if not found:
            _check_pinned(remote, digest)
        shutil.rmtree(directory, ignore_errors=True)
    if not remote.sha256:
        progress(f"downloaded model {remote.shown}#sha256={found or digest}")
    if key:
        cache.remember(key, digest)
    return digest


def _check_pinned(remote: Remote, found: str) -> None:
    """Refuse a model that is not the one whose digest the user wrote."""
    if remote.sha256 and remote.sha256 != found:
        raise UserError(
            f"is not the model that it should be: its SHA-256 is {found}; correct the digest when it is meant to change"
        )


def _keep(path: Path, kind: Kind, cache: ModelCache, progress: Progress, copying: str = "") -> str:
    """Check and cache what is at a path, unpacked first when it is a zip; return its digest."""

    def announce() -> None:
        if copying:
            progress(copying)

    if path.suffix != ".zip" or path.is_dir():
        return cache.keep(arrange(path, kind), announce)
    progress(f"unzipping model {path} ..." if copying else f"unzipping model {path.name} ...")
    with cache.temporary() as directory:
        unpacked = directory / "model"
        unpack(path, unpacked)
        return cache.keep(arrange(unpacked, kind), lambda: None)


def _check_exists(path: Path) -> None:
    with plainly("cannot read"):
        exists = path.exists()
    if not exists:
        raise UserError(f"does not exist (looked for {path}); export the model there first, or correct the path")


def _title(model: Model) -> str:
    """Return what to call a model when its owner gave it no name: the last part of its path that is not a version."""
    if model.name != SINGLE_MODEL:
        return model.name
    parts = [part for part in model.path.split("/") if part and version_of(part) is None]
    return Path(parts[-1]).stem if parts else model.path


def _notices(title: str, version: Path) -> Iterator[str]:
    """Yield what the model card of the version that answers tells its owner to know."""
    file = version / "assets.extra" / "model_card.json"
    if not file.is_file():
        return
    try:
        if file.stat().st_size > _LARGEST_CARD:
            raise ValueError("too large")
        card = json.loads(file.read_bytes())
        random = card.get("weights", {}).get("kind") == "random"
    except (ValueError, AttributeError, RecursionError):
        yield f"model {title}: its assets.extra/model_card.json is not a model card, and was not read"
        return
    if random:
        yield f"model {title} has random weights: its labels mean nothing"


@contextlib.contextmanager
def _of_field(field: str, source: str) -> Iterator[None]:
    """Say which field, and what it says, an error is about."""
    try:
        yield
    except UserError as error:
        raise FieldError(field, f"{source}: {error}") from error
