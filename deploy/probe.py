"""Ask a container whether it is ready, or what it counts. Standard library only, so that it costs 20 ms.

    python probe.py /readyz                     ask the worker of this container (at CORTEX_LISTEN)
    python probe.py /metrics ADDRESS...         ask several workers, by ``unix:/path.sock`` or ``HOST:PORT``
    python probe.py unix:/path.sock ...         connect only: a model server listens once its models are loaded

Prints the answers. Exit code 0 when all were good, 1 when not.
"""

import http.client
import os
import socket
import sys

TIMEOUT_S = 4.0


def connect(address: str) -> socket.socket:
    """Return a connection to ``unix:/path.sock`` or ``HOST:PORT``."""
    kind, _, path = address.partition(":")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        connection.connect(path)
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)


def ask(path: str, address: str) -> bool:
    """Print what a worker answers to one GET, and tell whether that was 200."""
    client = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
    client.sock = connect(address)
    client.request("GET", path, headers={"Connection": "close"})
    answer = client.getresponse()
    print(answer.read().decode(errors="replace"))
    return answer.status == http.HTTPStatus.OK


def main(arguments: list[str]) -> bool:
    """Carry out one command line, and tell whether everything answered."""
    if not arguments[0].startswith("/"):
        return all(connect(address) for address in arguments)
    path, *addresses = arguments
    answers = [ask(path, address) for address in addresses or [os.environ.get("CORTEX_LISTEN", "127.0.0.1:8888")]]
    return all(answers)


if __name__ == "__main__":
    try:
        good = main(sys.argv[1:])
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer ({error})")
        good = False
    sys.exit(0 if good else 1)
