"""Tell the supervisor that this process is ready, or about to end, in systemd's words.

The protocol is sd_notify(3): a datagram of ``KEY=VALUE`` lines to the Unix socket named by ``NOTIFY_SOCKET``. Three
keys are used: ``READY=1``, ``STATUS=one line for a person``, and ``STOPPING=1`` once no new connection is taken. A
process that nobody supervises sends nothing.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

_LARGEST = 65536


def notify(*, ready: bool = False, stopping: bool = False, status: str | None = None) -> None:
    """Send readiness, its end, or a one-line status to whoever supervises this process; do nothing without one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    lines = [f"MAINPID={os.getpid()}"]
    if ready:
        lines.append("READY=1")
    if stopping:
        lines.append("STOPPING=1")
    if status is not None:
        lines.append("STATUS=" + " ".join(status.split()))
    # A supervisor that is gone hears nothing, and this process will be told to stop another way.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto("\n".join(lines).encode(errors="backslashreplace"), address)


def parse(datagram: bytes) -> dict[str, str]:
    """Return the ``KEY=VALUE`` lines of one sd_notify datagram; lines without ``=`` are dropped."""
    lines = datagram.decode(errors="replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@contextlib.contextmanager
def heard(path: Path, hear: Callable[[dict[str, str]], None]) -> Iterator[None]:
    """Call ``hear`` in the running event loop with every notification that is sent to ``path``."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver:
        receiver.bind(str(path))
        loop = asyncio.get_running_loop()
        loop.add_reader(receiver, lambda: hear(parse(receiver.recv(_LARGEST))))
        try:
            yield
        finally:
            loop.remove_reader(receiver)
