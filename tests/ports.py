"""Ports for servers that are told where to listen."""

import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress

_CHOICES = range(20_000, 32_000)
"""Below the ports that Linux gives to whoever asks for any, and to every connection: nobody else comes to have one."""
_SHARES = 8
"""Each process that runs tests has a share of the ports: a worker by its number, whatever is none the last."""


def free_port() -> int:
    """Return a port at which nobody listens on any address, and which no test of this run is given again.

    A server takes seconds to come to its port. Were it given twice, one test would talk to the other's server.
    """
    for port in _ports:
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port
    raise AssertionError("the ports of this process are used up")


def _shuffled() -> Iterator[int]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", f"gw{_SHARES - 1}")
    share = list(_CHOICES[int(worker.removeprefix("gw")) % _SHARES :: _SHARES])
    random.SystemRandom().shuffle(share)  # another checkout's tests may run beside
    return iter(share)


_ports = _shuffled()
