"""Keep a port that a native library has opened on every interface to this machine.

A listening socket that is bound to the loopback device hears only what comes through it, whatever address it listens on
(``SO_BINDTODEVICE``; Linux lets a process without privileges do that to its own sockets since 5.7).
"""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_DEVICE = b"lo\0"


def is_possible() -> bool:
    """Say whether this machine lets this process bind a socket to the loopback device."""
    with suppress(OSError, AttributeError), socket.socket() as probe:
        _bind(probe)
        return True
    return False


def restrict(port: int) -> None:
    """Make every socket of this process that listens on a TCP port deaf to other machines. Raises OSError."""
    found = 0
    for listener in _sockets():
        with listener:
            if _listens(listener, port):
                _bind(listener)
                found += 1
    if not found:
        raise OSError(f"nothing in this process listens on port {port}")


def _bind(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _DEVICE)


def _sockets() -> Iterator[socket.socket]:
    """Yield the process' sockets, each by a descriptor of its own; they are shared with whoever opened them."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it has been closed meanwhile
            if entry.is_socket():
                yield socket.socket(fileno=os.dup(int(entry.name)))


def _listens(sock: socket.socket, port: int) -> bool:
    with suppress(OSError):
        is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(is_listening) and sock.family != socket.AF_UNIX and sock.getsockname()[1] == port
    return False
