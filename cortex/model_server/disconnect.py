"""Hear that the client of an HTTP request has gone away, as gRPC's context tells it of a call."""

import threading
from collections.abc import Callable

from cortex.model_server.http_body import Receive


class Disconnect:
    """Tell whoever works for a client that it is gone. May be used from any thread."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self._happened = False
        self._lock = threading.Lock()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have a function called when the client goes away; False, and no call, when it is gone already."""
        with self._lock:
            if not self._happened:
                self._callbacks.append(callback)
            return not self._happened

    async def wait(self, receive: Receive) -> None:
        """Wait for the end of a connection whose request was read, and tell of it."""
        while (await receive())["type"] != "http.disconnect":
            pass
        with self._lock:
            self._happened = True
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback()
