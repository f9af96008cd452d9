"""Sockets that listen: an API's, which its supervisor owns and its workers share; and whether somebody has one."""

import errno
import socket
from pathlib import Path

from cortex.errors import AddressTaken, UserError

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address. AddressTaken when somebody else does, UserError when it cannot be."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        kind = AddressTaken if error.errno == errno.EADDRINUSE else UserError
        raise kind(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listener


def accepts(path: Path | str) -> bool:
    """Tell whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
