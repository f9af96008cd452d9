"""A worker for the tests of the replica: it answers with its number, and can be told to fare otherwise.

``GET`` is answered with its number, ``POST`` ends the process at once, and ``--unready`` exits with 3 before readiness.
"""

import argparse
import os
import signal
import socket
import sys
from types import FrameType

from cortex.notify import notify


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--unready", type=int, default=-1)
    options = parser.parse_args()
    if options.worker == options.unready:
        sys.exit(3)
    draining = []

    def drain(number: int, frame: FrameType | None) -> None:
        draining.append(number)

    signal.signal(signal.SIGTERM, drain)
    with socket.socket(fileno=int(os.environ["CORTEX_LISTEN_FD"])) as listener:
        listener.listen()
        listener.settimeout(0.05)
        notify(ready=True)
        while not draining:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                if connection.recv(1024).startswith(b"POST"):
                    os._exit(9)
                connection.sendall(f"HTTP/1.0 200 OK\r\n\r\n{options.worker}".encode())


main()
