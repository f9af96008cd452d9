"""The first process of an API container: open the socket that the worker listens on, and become the worker.

    python listen.py COMMAND...

``CORTEX_LISTEN`` says where: ``HOST:PORT`` (default ``0.0.0.0:8888``) or ``unix:/path.sock``. The worker inherits the
socket as ``CORTEX_LISTEN_FD``; connections wait in it from the first moment, also while a worker that died comes back.
It inherits a lock of the file ``CORTEX_LOCK``, too, when there is one: whoever waits for that learns when it has ended.
"""

import contextlib
import fcntl
import os
import socket
import sys
from pathlib import Path

DEFAULT = "0.0.0.0:8888"  # every address of the container, which publishes none by itself
BACKLOG = 2048


def open_listener(address: str) -> socket.socket:
    """Return a socket that listens; the file that an earlier one left in its place is replaced."""
    kind, _, path = address.partition(":")
    if kind != "unix":
        host, _, port = address.rpartition(":")
        return socket.create_server((host, int(port)), backlog=BACKLOG)
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    Path(path).chmod(0o666)  # the front is another user
    listener.listen(BACKLOG)
    return listener


if __name__ == "__main__":
    listener = open_listener(os.environ.get("CORTEX_LISTEN", DEFAULT))
    os.set_inheritable(listener.fileno(), True)
    if lock := os.environ.get("CORTEX_LOCK"):
        descriptor = os.open(lock, os.O_RDONLY | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.set_inheritable(descriptor, True)
    if metrics := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        Path(metrics).mkdir(parents=True, exist_ok=True)
    os.environ["CORTEX_LISTEN_FD"] = str(listener.fileno())
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  # the arguments are the image's and the plan's own
