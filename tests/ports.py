"""Ports for servers that are told where to listen."""

import random
import socket
from contextlib import suppress

_CHOICES = range(20_000, 32_000)
"""Below the ports that Linux gives to whoever asks for any, and to every connection: nobody else comes to have one."""

_random = random.SystemRandom()


def free_port() -> int:
    """Return a port at which nobody listens on any address, and which only another call of this may take."""
    while True:
        port = _random.choice(_CHOICES)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port
