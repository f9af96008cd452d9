"""How a worker ends: with its reason in one line when it could not start, and in time once it has drained."""

import atexit
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cortex.errors import Error, NotStarted
from cortex.notify import notify

_OTHERS_S = 5.0
"""How long threads that the predictor started, and then processes, may go on when nothing else is left to do."""
_log = logging.getLogger("cortex")


@contextmanager
def giving_up() -> Iterator[None]:
    """End this process with exit code 3 when what is inside fails; the log has the traceback, the supervisor a line."""
    try:
        yield
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a process ends here, and says why
        _log.exception("failed to start api")
        notify(status=f"error: {told(error)}")
        end_in_time(NotStarted.exit_code)
        sys.exit(NotStarted.exit_code)


def told(error: BaseException) -> str:
    """Return an exception in one phrase: its message when a person is meant to read it, else with its type."""
    return str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"


def end_in_time(code: int = 0) -> None:
    """Have this process, which is about to end, do so although others go on: Python by itself would wait for them.

    Where its threads end in `_OTHERS_S`, everything has its usual end, ``atexit`` included; else the exit code is
    ``code``. Processes of `multiprocessing` that do not end in that time are killed.
    """
    timer = threading.Timer(_OTHERS_S, _end, (code,))
    timer.daemon = True
    timer.start()
    atexit.register(_end_processes)
    atexit.register(timer.cancel)  # what is registered last is called first, when the last thread has ended


def _end(code: int) -> None:
    main = threading.main_thread()  # which waits for the others
    names = [thread.name for thread in threading.enumerate() if not thread.daemon and thread is not main]
    _log.warning("ended without threads that went on for %g s: %s", _OTHERS_S, ", ".join(names))
    os._exit(code)


def _end_processes() -> None:
    deadline = time.monotonic() + _OTHERS_S
    for process in multiprocessing.active_children():
        if process.daemon:
            continue  # Python ends it itself
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            _log.warning("killed a process that went on for %g s: %s", _OTHERS_S, process.name)
            process.kill()
