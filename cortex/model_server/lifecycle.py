"""The life of a version: what it goes through, and the threads that take it there."""

import ctypes
import gc
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from cortex.model_server.crashes import fingerprint
from cortex.model_server.servable import Servable
from cortex.model_server.status import Code, StatusError, internal

_log = logging.getLogger(__name__)

Load = Callable[[str, int, Path], Servable]

_FINAL = frozenset({Code.FAILED_PRECONDITION, Code.UNIMPLEMENTED})
"""Failures that a retry cannot mend, unless the files were still being written: they say what does not work here."""


class State(IntEnum):
    """The states of a version, numbered as in ``ModelVersionStatus.State``."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(eq=False)
class Version:
    """One version under management; it is changed only under the lock of the repository that holds it."""

    name: str
    number: int
    directory: Path
    state: State = State.START
    error: StatusError | None = None
    servable: Servable | None = None
    users: int = 0
    wanted: bool = True
    is_closing: bool = False

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.number}}}"


@dataclass(frozen=True)
class Retries:
    """How often a failed load is tried again, and how long to wait in between, in seconds."""

    count: int = 5
    interval: float = 60.0


class Lifecycle:
    """Load and unload versions, each on a thread of its own.

    ``changed`` guards the versions and is notified of every change; ``settle`` is called under it with the name of a
    model of which a version has just been loaded, has failed for good, or has been closed.
    """

    def __init__(
        self, load: Load, retries: Retries, at_once: int, changed: threading.Condition, settle: Callable[[str], None]
    ) -> None:
        self._load_version = load
        self._retries = retries
        self._slots = threading.Semaphore(at_once)
        self._changed = changed
        self._settle = settle
        self._stopping = threading.Event()

    def load(self, version: Version) -> None:
        """Start to load a version: it becomes AVAILABLE, or END with an error; call under the lock.

        Where the system has no thread to spare it is END, and as if it were not wanted: the next poll tries again.
        """
        try:
            _in_background(f"load {version}", self._load, version)
        except RuntimeError as error:
            _log.error("Loading servable: %s failed: %s", version, error)
            version.state, version.error = State.END, StatusError(Code.RESOURCE_EXHAUSTED, str(error))
            version.wanted = False

    def unload(self, version: Version) -> None:
        """Start to close an UNLOADING version that nobody uses: it becomes END; call under the lock.

        Where the system has no thread to spare the version stays as it is.
        """
        try:
            _in_background(f"unload {version}", self._unload, version)
            version.is_closing = True
        except RuntimeError as error:
            _log.error("Unloading servable version %s waits: %s", version, error)

    def stop(self) -> None:
        """Retry no more loads."""
        self._stopping.set()

    def _load(self, version: Version) -> None:
        for attempt in range(self._retries.count + 1):
            if attempt and self._stopping.wait(self._retries.interval):
                break
            if not version.wanted or self._load_once(version):
                break
        with self._changed:
            if version.state < State.AVAILABLE:  # one that has been loaded may be on its way out by now
                version.state = State.END
                version.error = version.error or StatusError(Code.CANCELLED, "the version is no longer wanted")
            self._settle(version.name)
            self._changed.notify_all()
        _return_memory()

    def _load_once(self, version: Version) -> bool:
        """Try to load; return whether there is nothing left to try."""
        with self._slots:
            _log.info("Loading servable version %s", version)
            self._set(version, State.LOADING, version.error)
            files = _files(version.directory)
            try:
                servable = self._load_version(version.name, version.number, version.directory)
            except Exception as error:  # noqa: BLE001 - an engine was called; the version keeps the reason
                failure = error if isinstance(error, StatusError) else internal(error)
                is_ours = not isinstance(error, StatusError | OSError)  # and no file that is closed, or too large
                _log.error("Loading servable: %s failed: %s", version, failure, exc_info=is_ours)
                self._set(version, State.LOADING, failure)
                return failure.code in _FINAL and _files(version.directory) == files
        with self._changed:
            version.servable = servable
        self._set(version, State.AVAILABLE, None)
        _log.info("Successfully loaded servable version %s", version)
        return True

    def _unload(self, version: Version) -> None:
        with self._changed:
            servable, version.servable = version.servable, None
        assert servable is not None
        servable.close()
        del servable
        _return_memory()
        _log.info("Done unloading servable version %s", version)
        with self._changed:
            self._set(version, State.END, None)
            self._settle(version.name)

    def _set(self, version: Version, state: State, error: StatusError | None) -> None:
        with self._changed:
            version.state, version.error = state, error
            self._changed.notify_all()


def _in_background(name: str, act: Callable[[Version], None], version: Version) -> None:
    """Run this on a thread of its own. Raises RuntimeError when there is none to spare."""
    threading.Thread(target=act, args=(version,), name=name, daemon=True).start()


def _files(directory: Path) -> str:
    """Return what tells whether the files of a version have changed; nothing where they cannot be looked at."""
    with suppress(OSError):
        return fingerprint(directory)
    return ""


def _return_memory() -> None:
    """Hand freed memory back to the system: a load leaves behind as much as it keeps."""
    gc.collect()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
