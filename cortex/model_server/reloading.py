"""Read the configuration again while the server runs: at intervals, and when somebody asks."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from cortex.model_server import config
from cortex.model_server.api_key import ApiKeys
from cortex.model_server.batching import Batcher
from cortex.model_server.config import ModelConfig
from cortex.model_server.status import StatusError

_log = logging.getLogger(__name__)


class Reloading:
    """Own the thread that reads ``--model_config_file``, the batching parameters and the API keys again.

    What cannot be read or used is told in the log, and what was there before stays. A reload that waits for a model
    without versions is given up for the next one: when somebody asks, or when the file that is polled has changed.
    """

    def __init__(
        self,
        config_file: str,
        interval: float,
        reload: Callable[[Sequence[ModelConfig], Callable[[], bool]], None],
        batcher: Batcher | None,
        keys: ApiKeys,
    ) -> None:
        self._path = Path(config_file) if config_file else None
        self._interval = interval
        self._reload = reload
        self._batcher = batcher
        self._keys = keys
        self._last: Sequence[ModelConfig] | None = None
        self._asked = threading.Event()
        self._stopping = False

    def start(self) -> None:
        """Start the thread; with an interval of 0 it reads only when asked."""
        threading.Thread(target=self._run, name="reloading", daemon=True).start()

    def ask(self) -> None:
        """Read everything now, and apply it even where it says nothing new."""
        self._asked.set()

    def stop(self) -> None:
        """Read nothing any more."""
        self._stopping = True
        self._asked.set()

    def _run(self) -> None:
        while True:
            asked = self._asked.wait(self._interval if self._interval > 0 else None)
            if self._stopping:
                return
            self._asked.clear()
            if asked:
                _log.info("Reading the configuration again")
                self._last = None
            self._try(self._keys.reload, "The API keys stay as they were")
            self._try(self._read_models, "PollFilesystemAndReloadConfig failed to ReloadConfig")
            self._try(self._read_batching, "The batching parameters stay as they were")

    def _read_models(self) -> None:
        path = self._path
        if path is None:
            return
        read = _stamp(path)
        models = config.read(path)
        if models is None:
            _log.info("Taking no action for empty config.")
        elif models != self._last:
            self._reload(models, lambda: self._asked.is_set() or (self._interval > 0 and _stamp(path) != read))
            self._last = models

    def _read_batching(self) -> None:
        if self._batcher is not None:
            self._batcher.reload()

    @staticmethod
    def _try(read: Callable[[], None], failure: str) -> None:
        try:
            read()
        except StatusError as error:
            _log.error("%s: %s", failure, error)
        except Exception:  # noqa: BLE001  the thread goes on: what was wrong may be mended when it reads again
            _log.exception("%s", failure)


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what tells one state of a file from the next; nothing where it cannot be looked at."""
    with suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return ()
