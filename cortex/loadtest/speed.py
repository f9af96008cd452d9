"""Print what one process of the tester can do: its closed loop against a server that does nothing.

    python -m cortex.loadtest.speed [PICTURE] [CONNECTIONS]

The server is a process of its own, that reads a request to its end and answers it with five labels.
"""

import asyncio
import importlib
import os
import subprocess
import sys
from contextlib import suppress
from typing import cast

import click

from cortex.errors import Error
from cortex.loadtest.crew import run
from cortex.loadtest.http import HTTP
from cortex.loadtest.loads import ClosedLoop
from cortex.loadtest.payloads import Payload, as_json, picture
from cortex.loadtest.results import Result
from cortex.loadtest.units import duration

_BODY = b'["tench", "goldfish", "great_white_shark", "tiger_shark", "hammerhead"]'
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
_SECONDS, _WARMUP = 5.0, 1.0


class _Nothing(asyncio.Protocol):
    """Answer whatever has arrived when it is whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._missing = 0

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            head, _, _ = data.partition(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            self._missing = len(head) + 4 + int(length[15:])
        self._missing -= len(data)
        if not self._missing:
            self._transport.write(_ANSWER)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Nothing, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _server() -> None:
    with suppress(ImportError):  # without uvloop it is slower, and may be the bottleneck
        importlib.import_module("uvloop").install()
    asyncio.run(_serve())


def _measured(payload: Payload, connections: int) -> Result:
    command = [sys.executable, "-c", "from cortex.loadtest.speed import _server; _server()"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            door = HTTP(f"http://127.0.0.1:{int(server.stdout.readline())}/")
            return run(ClosedLoop(1, connections, seconds=_SECONDS), door, payload, warmup=_WARMUP)
        finally:
            server.terminate()


@click.command()
@click.argument("image", default="export/cat.jpg", metavar="[PICTURE]")
@click.argument("connections", type=click.IntRange(1), default=2)
def main(image: str, connections: int) -> None:
    """Print what one process of the tester can do, sending PICTURE to a server that does nothing."""
    try:
        payload = as_json([picture(image)])
        result = _measured(payload, connections)
    except Error as error:
        raise click.ClickException(str(error)) from error
    if not (result.client and result.latency):
        raise click.ClickException(f"nothing was answered: {dict(result.errors)}")
    click.echo(
        f"{result.requests_per_second:,.0f} requests/s of {len(payload.body):,} bytes from one process over "
        f"{connections} connections ({os.cpu_count()} cores, the server on one of them); {result.failed} errors\n"
        f"the tester's own cost: {result.client.cpu_per_request * 1e6:.0f} µs of processor time per request, "
        f"{result.client.busiest:.0%} of a core; p50 {duration(result.latency.p50)}, p99 {duration(result.latency.p99)}"
    )


if __name__ == "__main__":
    main()
