"""The models of a server, from version directories to servables, and back.

A poll compares the wanted versions with the managed ones. A new version is loaded beside the old one, which is unloaded
only when a wanted version serves; a version that nobody wants or uses any more is closed. So a request always finds a
version, if there ever was one: when the new one fails, and when it is taken away again.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cortex.model_server.base_paths import BasePaths, select
from cortex.model_server.config import ModelConfig
from cortex.model_server.crashes import Crashed
from cortex.model_server.lifecycle import Lifecycle, Load, Retries, State, Version
from cortex.model_server.servable import Servable
from cortex.model_server.status import Code, StatusError, invalid

_PATIENCE = 5.0
"""Seconds for engines to end in order before the process ends anyway; native code may not let itself be broken off."""

_GLANCE = 0.2
"""Seconds between two looks at whether anybody still waits."""


@dataclass(frozen=True)
class RepositoryOptions:
    """How often to poll the base paths (0: once), in seconds, and how to load."""

    poll_interval: float = 1.0
    load_threads: int = 4
    retries: Retries = field(default_factory=Retries)
    labels_for_unavailable: bool = False


class Repository:
    """Keep the wanted versions loaded. Every method may be called from any thread."""

    def __init__(self, load: Load, options: RepositoryOptions) -> None:
        self._options = options
        self._models: dict[str, ModelConfig] = {}
        self._labels: dict[str, Mapping[str, int]] = {}
        self._versions: dict[str, dict[int, Version]] = {}
        self._wanted: dict[str, Mapping[int, Path]] = {}
        self._changed = threading.Condition()  # guards everything above
        self._base_paths = BasePaths()
        self._lifecycle = Lifecycle(load, options.retries, options.load_threads, self._changed, self._settle)
        self._syncing = threading.Lock()
        self._reloading = threading.Lock()
        self._stopping = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="poll", daemon=True)

    def start(self, models: Sequence[ModelConfig], interrupted: Callable[[], bool]) -> None:
        """Load the models and wait, without limit, until each serves or failed for good, or until interrupted.

        Raises StatusError (UNKNOWN) that names every version that failed, with its reason. A version that has crashed
        the process before does not count: the server would only be started, and would end, again and again. Where the
        latest versions are asked for, the one before it takes its place.
        """
        self._set_models(models)
        self._poller.start()
        failed = self._wait_for_replacements({model.name for model in models}, interrupted)
        crashed = {version.name for version in failed if isinstance(version.error, Crashed)}
        failed = [version for version in failed if version.name not in crashed]
        if failed:
            raise StatusError(Code.UNKNOWN, f"{len(failed)} servable(s) did not become available: {_listed(failed)}")
        if not interrupted():
            self._set_labels([self._without_crashed(model) for model in models])

    def reload(
        self,
        models: Sequence[ModelConfig],
        is_given_up: Callable[[], bool] = lambda: False,
        accepted: Callable[[], None] = lambda: None,
    ) -> None:
        """Make this list the whole wanted state, and wait until the models that are new to it serve.

        ``accepted`` is called once nothing can keep the list from being the wanted state, before anybody waits.
        Raises FAILED_PRECONDITION for a label on a version that does not serve (nothing has changed then), UNKNOWN for
        new models that failed, CANCELLED once ``is_given_up`` says that nobody waits any more, and UNAVAILABLE once
        the server stops.
        """
        with self._turn(is_given_up):
            self._set_labels(models)  # first: a version must not go while a label that moves still names it
            accepted()
            new = {model.name for model in models} - set(self._models)
            self._set_models(models)
            failed = self._wait_for_replacements(new, lambda: self._stopping.is_set() or is_given_up())
            self._check_awaited(is_given_up)
            if failed:
                raise StatusError(Code.UNKNOWN, f"{len(failed)} model(s) did not become available: {_listed(failed)}")

    def hurry(self) -> None:
        """Look for no more versions, and let no reload wait for any: the process is about to stop."""
        self._stopping.set()

    def close(self) -> None:
        """Unload everything, once the requests that still run are done; `_PATIENCE` bounds the wait for it."""
        self._stopping.set()
        self._lifecycle.stop()
        with self._changed:
            loaded = [version for known in self._versions.values() for version in known.values()]
            for name in self._versions:
                self._want(name, {})
                self._retire(name)
            self._changed.wait_for(lambda: all(version.state is not State.UNLOADING for version in loaded), _PATIENCE)

    @contextmanager
    def lease(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """Hold a version, the newest by default, so that it is not unloaded meanwhile.

        Raises NOT_FOUND, or INVALID_ARGUMENT for a label that does not exist.
        """
        with self._changed:
            held = self._find(name, self._labeled(name, label) if label is not None else version)
            held.users += 1
        try:
            assert held.servable is not None
            yield held.servable
        finally:
            with self._changed:
                held.users -= 1
                self._close_unused(held)

    def statuses(self, name: str, version: int | None = None) -> list[tuple[int, State, StatusError | None]]:
        """Return number, state and error of every version known, newest first, or of one. Raises NOT_FOUND."""
        with self._changed:
            known = self._versions.get(name, {})
            chosen = [known[number] for number in sorted(known, reverse=True) if version in (None, number)]
            answer = [(each.number, each.state, each.error) for each in chosen]
        if answer:
            return answer
        if version is None:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        raise StatusError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")

    def is_ready(self) -> bool:
        """Say whether every configured model has a version that serves."""
        with self._changed:
            return not self._stopping.is_set() and all(self._serves(name) for name in self._models)

    # Finding

    def _find(self, name: str, number: int | None) -> Version:
        known = self._versions.get(name, {})
        serving = [each for each in known.values() if each.state is State.AVAILABLE and number in (None, each.number)]
        if not serving:
            asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {asked}")
        return max(serving, key=lambda version: version.number)

    def _labeled(self, name: str, label: str) -> int:
        labels = self._labels.get(name, {})
        if label not in labels:
            raise invalid(f"Unrecognized servable version label: {label}")
        return labels[label]

    def _serves(self, name: str) -> bool:
        return any(version.state is State.AVAILABLE for version in self._versions.get(name, {}).values())

    # The wanted state

    @contextmanager
    def _turn(self, is_given_up: Callable[[], bool]) -> Iterator[None]:
        """Reload while nobody else does."""
        while not self._reloading.acquire(timeout=_GLANCE):
            self._check_awaited(is_given_up)
        try:
            yield
        finally:
            self._reloading.release()

    def _check_awaited(self, is_given_up: Callable[[], bool]) -> None:
        if self._stopping.is_set():
            raise StatusError(Code.UNAVAILABLE, "the server stops")
        if is_given_up():
            raise StatusError(Code.CANCELLED, "the reload was given up before its models served")

    def _set_models(self, models: Sequence[ModelConfig]) -> None:
        with self._changed:
            self._models = {model.name: model for model in models}
        self._sync()

    def _check_labels(self, models: Sequence[ModelConfig]) -> None:
        with self._changed:
            for model in models:
                known = self._versions.get(model.name, {}).values()
                serving = [version.number for version in known if version.state is State.AVAILABLE]
                wanted, _ = select(serving, model.policy)
                for label, number in model.labels.items():
                    if number not in wanted:
                        self._check_ahead(model.name, label, number)

    def _check_ahead(self, name: str, label: str, number: int) -> None:
        if self._options.labels_for_unavailable and self._labels.get(name, {}).get(label) in (None, number):
            return
        raise StatusError(
            Code.FAILED_PRECONDITION,
            f"Request to assign label to version {number} of model {name}, "
            "which is not currently available for inference",
        )

    def _set_labels(self, models: Sequence[ModelConfig]) -> None:
        self._check_labels(models)
        with self._changed:
            self._labels = {model.name: model.labels for model in models}

    def _wait_for_replacements(self, names: set[str], interrupted: Callable[[], bool]) -> list[Version]:
        """Wait, and look again for what takes the place of versions that have crashed, until nothing does."""
        known: list[Version] = []
        while (failed := self._wait(names, interrupted)) != known:
            known = failed
            self._sync()
        return failed

    def _without_crashed(self, model: ModelConfig) -> ModelConfig:
        crashed = self._crashed(model.name)
        return replace(model, labels={label: each for label, each in model.labels.items() if each not in crashed})

    def _crashed(self, name: str) -> set[int]:
        with self._changed:
            known = self._versions.get(name, {})
            return {number for number, version in known.items() if isinstance(version.error, Crashed)}

    def _wait(self, names: set[str], interrupted: Callable[[], bool]) -> list[Version]:
        """Wait until each model serves or failed, with no version still on its first attempt; return what failed."""
        with self._changed:
            while not interrupted():
                settled = [self._settled(name) for name in names]
                if None not in settled:
                    return [version for failed in settled for version in failed or ()]
                self._changed.wait(_GLANCE)  # an interrupt comes from a signal handler, which must not take the lock
        return []

    def _settled(self, name: str) -> list[Version] | None:
        known = [version for version in self._versions.get(name, {}).values() if version.wanted]
        if self._serves(name):
            return None if any(version.state < State.AVAILABLE and not version.error for version in known) else []
        return known if known and all(version.state is State.END for version in known) else None

    # The poll

    def _poll(self) -> None:
        while self._options.poll_interval > 0 and not self._stopping.wait(self._options.poll_interval):
            self._sync()

    def _sync(self) -> None:
        """Look at every base path and start what has to be loaded or unloaded."""
        with self._syncing:
            models = self._models
            for model in models.values():
                wanted = self._base_paths.wanted(model, self._crashed(model.name))
                if wanted is not None:
                    self._reconcile(model.name, wanted)
            for name in set(self._versions) - set(models):
                self._reconcile(name, {})

    def _reconcile(self, name: str, wanted: Mapping[int, Path]) -> None:
        with self._changed:
            self._versions.setdefault(name, {})
            self._want(name, wanted)
            self._settle(name)

    def _want(self, name: str, wanted: Mapping[int, Path]) -> None:
        """Note which versions are wanted. One that is on its way out goes it to the end, and is loaded again then."""
        self._wanted[name] = wanted
        for version in self._versions[name].values():
            version.wanted = version.number in wanted and (version.wanted or version.state is State.AVAILABLE)

    def _settle(self, name: str) -> None:
        """Load what is wanted and not there, or gone by now, and unload what is not wanted any more."""
        known = self._versions[name]
        for number, directory in self._wanted[name].items():
            if number not in known or (known[number].state is State.END and not known[number].wanted):
                known[number] = Version(name, number, directory)
                self._lifecycle.load(known[number])
        for version in known.values():
            self._close_unused(version)
        self._retire(name)

    def _retire(self, name: str) -> None:
        """Unload the versions that are not wanted, but for the newest while no wanted one serves in its place."""
        serving = [version for version in self._versions[name].values() if version.state is State.AVAILABLE]
        retired = sorted((each for each in serving if not each.wanted), key=lambda version: version.number)
        if self._wanted[name] and len(retired) == len(serving):
            retired = retired[:-1]
        for version in retired:
            version.state = State.UNLOADING
            self._close_unused(version)

    def _close_unused(self, version: Version) -> None:
        if version.state is State.UNLOADING and not version.users and not version.is_closing:
            self._lifecycle.unload(version)


def _listed(failed: Iterable[Version]) -> str:
    each = "".join(f"{{{version} due to error: {version.error}}}, " for version in failed)
    return f"{{{each}}}"
