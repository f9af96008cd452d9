"""SIGTERM, SIGINT and SIGHUP, told to the main thread through a pipe.

The interpreter's C handler writes each signal's number into the pipe. A Python handler would run only between two
bytecodes, and a signal that came just before a blocking read would wait for the next one.
"""

import os
import signal
from types import FrameType

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Know whether the process was asked to stop, and wait for what it is asked."""

    def __init__(self) -> None:
        self.stopped = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def listen(self) -> None:
        """Handle the signals from here on; only the main thread may call this."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, self._note)

    def is_reload(self) -> bool:
        """Wait for a signal; say whether it asks to read the configuration again, and not to stop."""
        self._note(os.read(self._read, 1)[0], None)
        return not self.stopped

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stopped = self.stopped or number != signal.SIGHUP
