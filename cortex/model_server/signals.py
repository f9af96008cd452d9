"""SIGTERM and SIGINT, told to the main thread without taking a lock inside a signal handler."""

import os
import signal
from types import FrameType


class Interrupt:
    """Know whether the process was asked to stop, and wait for that."""

    def __init__(self) -> None:
        self.received = False
        self._read, self._write = os.pipe()

    def listen(self) -> None:
        """Handle SIGTERM and SIGINT from here on; only the main thread may call this."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def wait(self) -> None:
        """Return once a signal has come."""
        os.read(self._read, 1)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        os.write(self._write, b"\n")
