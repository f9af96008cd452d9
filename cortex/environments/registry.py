"""Which environments there are: a table of providers, imported when chosen, and the user's choice among them.

The choice is kept in ``CORTEX_HOME/cli.yaml``, in the layout that Cortex gave this file, so one that Cortex wrote is
read too. What it holds beyond names, providers and our settings is left as it is.
"""

import contextlib
import fcntl
import importlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cortex.environments import protection
from cortex.errors import CortexError, UserError

if TYPE_CHECKING:
    from cortex.environments.base import Environment

LOCAL = "local"
PROVIDERS: Mapping[str, str] = {
    LOCAL: "cortex.environments.local.environment:LocalEnvironment",
    "docker": "cortex.environments.docker.environment:DockerEnvironment",
    "kubernetes": "cortex.environments.kubernetes.environment:KubernetesEnvironment",
}
"""Provider to ``module:Class``, which is called with home directory, name and settings, and refuses wrong settings."""
_OURS = ("name", "provider")
"""The keys of an environment that are no settings."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_RULE = "a letter or digit, and at most 62 letters, digits, points, dashes and underscores after it"


def cortex_home() -> Path:
    """Return the one path of the state directory, however it is written: ``CORTEX_HOME``, or ``~/.cortex``."""
    try:
        return Path(os.environ.get("CORTEX_HOME") or "~/.cortex").expanduser().resolve()
    except RuntimeError as error:
        raise UserError("there is no home directory; set CORTEX_HOME to a directory for cortex's state") from error


@dataclass(frozen=True)
class Configured:
    """Name one environment, what provides it, and what that was told."""

    name: str
    provider: str
    default: bool
    settings: Mapping[str, str] = field(default_factory=dict)


class Registry:
    """Read and change the environments under ``home``; ``local`` is always one of them, and the first default."""

    def __init__(self, home: Path, providers: Mapping[str, str] = PROVIDERS) -> None:
        self._home = home
        self._providers = providers
        self._file = home / "cli.yaml"

    def configured(self) -> tuple[Configured, ...]:
        """Return every configured environment, sorted by name."""
        return _environments(self._read(), self._providers)

    def runnable(self) -> tuple[Configured, ...]:
        """Return the environments whose provider is part of this project."""
        return tuple(entry for entry in self.configured() if entry.provider in self._providers)

    def named(self, name: str | None) -> Configured:
        """Return an environment by name, or the default one. UserError when there is none of that name."""
        for entry in self.configured():
            if (entry.name == name) if name else entry.default:
                return entry
        raise UserError(f'unable to find environment named "{name}"; `cortex env list` shows those that are configured')

    def open(self, entry: Configured) -> "Environment":
        """Import the environment's class and return an instance. UserError for an unknown provider or setting."""
        self._check_runnable(entry)
        module, _, name = self._providers[entry.provider].partition(":")
        try:
            create: Callable[..., Environment] = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise CortexError(f"the {entry.provider} environment needs the package {error.name}: install it") from error
        return create(self._home, entry.settings, name=entry.name)

    def provided(self, name: str) -> Configured:
        """Return the environment of that name, or else the provider of that name as it is without any setting."""
        if name in self._providers and name not in {entry.name for entry in self.configured()}:
            return Configured(name, name, default=False)
        return self.named(name)

    def configure(self, name: str, provider: str | None, settings: Mapping[str, str] | None = None) -> str:
        """Add an environment, or replace it, and say what it had and has no more.

        ``provider`` None is the provider of the same name, or that which it had. UserError for a provider that there is
        not, and for settings that it does not take.
        """
        settings = dict(settings or {})
        hint = "" if provider else f"; say which runs {name} with --provider"
        if provider is None and name not in self._providers:
            provider = next((each.provider for each in self.configured() if each.name == name), None)
        provider = provider or name
        if provider not in self._providers:
            raise UserError(self._unknown(provider) + hint)
        if (name == LOCAL) != (provider == LOCAL):
            raise UserError(f'"{name}": the environment that the {LOCAL} provider runs must be named {LOCAL}, no other')
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot be the name of an environment: it must be {_NAME_RULE}")
        reserved = [key for key in settings if key in _OURS]
        if reserved:
            raise UserError(f"{reserved[0]} is not a setting: it is given as an argument of its own")
        self.open(Configured(name, provider, default=False, settings=settings))  # refuses what it does not take
        with self._change() as document:
            others = [raw for raw in document["environments"] if raw["name"] != name]
            before: Mapping[str, Any] = next((raw for raw in document["environments"] if raw["name"] == name), {})
            kept = _foreign(before) if name == LOCAL else {}
            document["environments"] = [*others, {"name": name, "provider": provider, **settings, **kept}]
        gone = [key for key in before if key not in (*_OURS, *settings, *kept)]
        return f"configured {name} environment" + (f"\nnot set any more: {', '.join(gone)}" if gone else "")

    def set_default(self, name: str) -> str:
        """Make an environment the one that commands use when they name none. UserError when it cannot run anything."""
        with self._change() as document:
            _check_name(document, name)
            self._check_runnable(self.named(name))
            if document["default_environment"] == name:
                return f"{name} is already the default environment"
            document["default_environment"] = name
        return f"set {name} as the default environment"

    def delete(self, name: str) -> str:
        """Forget an environment's configuration; what it runs is left alone. ``local`` is cleared, never removed."""
        with self._change() as document:
            _check_name(document, name)
            document["environments"] = [raw for raw in document["environments"] if raw["name"] != name]
            was_default = name != LOCAL and document["default_environment"] == name
            if was_default:
                document["default_environment"] = LOCAL
        if name == LOCAL:
            return f"cleared the {LOCAL} environment configuration"
        message = f"deleted the {name} environment configuration"
        return f"{message}\nset {LOCAL} as the default environment" if was_default else message

    def _check_runnable(self, entry: Configured) -> None:
        if entry.provider not in self._providers:
            raise UserError(
                f"{entry.name} environment: {self._unknown(entry.provider)}; choose another environment with --env, "
                f"or for good with `cortex env default {LOCAL}`"
            )

    def _unknown(self, provider: str) -> str:
        return f'the provider "{provider}" is not part of this project (there is: {", ".join(sorted(self._providers))})'

    def _read(self) -> dict[str, Any]:
        """Return the file's document with both of our keys present and checked."""
        import yaml  # 20 ms that `cortex version` and `--help` need not pay

        try:
            document = yaml.safe_load(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            document = None
        except OSError as error:
            raise UserError(f"{self._file}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{self._file}: cannot be read: {error}") from error
        except yaml.YAMLError as error:
            raise UserError(f"{self._file}: invalid yaml: {' '.join(str(error).split())}") from error
        return _checked({} if document is None else document, self._file)

    @contextlib.contextmanager
    def _change(self) -> Iterator[dict[str, Any]]:
        """Lend the document for changing under a lock, and replace the file in one step if it did change."""
        import yaml

        try:
            self._home.mkdir(parents=True, exist_ok=True)
            with (self._home / "cli.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                document = self._read()
                before = yaml.safe_dump(document, sort_keys=False)
                yield document
                after = yaml.safe_dump(document, sort_keys=False)
                if after != before:
                    _replace(self._file, after)
        except OSError as error:
            raise UserError(f"{self._file}: cannot be written: {error.strerror}") from error


def _checked(document: object, file: Path) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise UserError(f"{file}: must be a map with the keys default_environment and environments")
    entries = document.get("environments") or []
    if not isinstance(entries, list):
        raise UserError(f"{file}: environments: must be a list")
    names: list[str] = []
    for index, entry in enumerate(entries):
        for key in _OURS:
            if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
                raise UserError(f"{file}: environments[{index}]: {key}: must be a string")
        _check_settings(entry, file, index)
        if entry["name"] in names:
            raise UserError(f'{file}: environments[{index}]: name: "{entry["name"]}" is there twice')
        names.append(entry["name"])
    default = document.get("default_environment") or LOCAL
    if default != LOCAL and default not in names:
        raise UserError(f'{file}: default_environment: there is no environment named "{default}"')
    return {**document, "default_environment": default, "environments": entries}


def _check_settings(entry: Mapping[str, Any], file: Path, index: int) -> None:
    """Check what is ours of an entry; what Cortex kept of a cloud is not."""
    if entry["provider"] not in PROVIDERS:
        return
    if entry["provider"] != LOCAL and not _NAME.fullmatch(entry["name"]):
        raise UserError(f"{file}: environments[{index}]: name: {entry['name']!r} must be {_NAME_RULE}")
    for key, value in _settings(entry, PROVIDERS).items():
        if not isinstance(value, str):
            raise UserError(f"{file}: environments[{index}]: {key}: must be a string")


def _environments(document: Mapping[str, Any], providers: Iterable[str]) -> tuple[Configured, ...]:
    entries = {LOCAL: {"provider": LOCAL}} | {raw["name"]: raw for raw in document["environments"]}
    default = document["default_environment"]
    return tuple(
        Configured(name, entry["provider"], name == default, _settings(entry, providers))
        for name, entry in sorted(entries.items())
    )


def _settings(entry: Mapping[str, Any], providers: Iterable[str]) -> dict[str, Any]:
    """Return the further keys of an entry that we wrote; what Cortex kept there (keys of an account) is not ours."""
    if entry["provider"] not in providers:
        return {}
    foreign = _foreign(entry) if entry["provider"] == LOCAL else {}
    return {key: value for key, value in entry.items() if key not in _OURS and key not in foreign}


def _foreign(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Cortex, or whoever else, keeps in the entry of the local environment: what is no setting of ours."""
    return {key: value for key, value in entry.items() if key not in (*_OURS, *protection.SETTINGS)}


def _check_name(document: Mapping[str, Any], name: str) -> None:
    if name not in {LOCAL, *(entry["name"] for entry in document["environments"])}:
        raise UserError(f"{name} environment is not configured; `cortex env list` shows those that are")


def _replace(file: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
