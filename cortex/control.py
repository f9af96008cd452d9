"""How the CLI tells a supervisor what to do.

One command per connection to a Unix socket, as one line of JSON. The supervisor answers with lines of JSON:
``{"progress": "..."}`` as often as what it waits for changes, then ``{"done": true}``, or ``{"error": "..."}`` with the
``kind`` of error. Between them it says ``{"alive": true}`` every few seconds: a command may take long, but a supervisor
that hangs is told apart.
"""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex.errors import AddressTaken, CortexError, TakenOver, UserError
from cortex.plan import Plan

MAX_LINE = 2**24
BEAT = 5.0
"""Seconds between two signs of life."""
SILENCE = 30.0
"""Seconds without any after which a supervisor is taken for hung."""
_KINDS = {kind.__name__: kind for kind in (AddressTaken, TakenOver)}
"""Errors that whoever asked tells from another UserError."""
Handler = Callable[[dict[str, Any]], AsyncIterator[str]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deployment:
    """What ``deploy`` brings live: a plan, in the environment of who asks; by ``force`` in place of another."""

    plan: Plan
    environment: Mapping[str, str]
    force: bool

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "Deployment":
        """Read the command that `request` made. UserError for another one."""
        try:
            return cls(Plan.from_json(request["plan"]), dict(request["environment"]), bool(request["force"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"the supervisor did not understand the command: {error!r}") from error

    def request(self) -> dict[str, Any]:
        """Return the command."""
        sent = {"plan": self.plan.to_json(), "environment": dict(self.environment), "force": self.force}
        return {"command": "deploy", **sent}


async def serve(path: Path, handler: Handler, beat: float = BEAT) -> asyncio.Server:
    """Serve commands at ``path``: ``handler`` yields progress lines, and raises UserError when the command fails."""

    async def live(writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(beat)
            writer.write(b'{"alive": true}\n')

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def answer(**fields: Any) -> None:
            writer.write(json.dumps(fields).encode() + b"\n")

        beating = asyncio.create_task(live(writer))
        try:
            if asked := await reader.readline():  # else somebody looked whether there is a supervisor
                async for line in handler(json.loads(asked)):
                    answer(progress=line)
                answer(done=True)
        except UserError as error:
            answer(error=str(error), kind=type(error).__name__)
        except OSError as error:
            answer(error=f"the supervisor failed: {error}")
        except Exception as error:  # noqa: BLE001  a supervisor outlives what goes wrong in one command
            _log.exception("a command failed")
            answer(error=f"the supervisor failed: {error!r}; see its log")
        finally:
            beating.cancel()
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            writer.close()

    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(connected, path, limit=MAX_LINE)


def command(path: Path, request: dict[str, Any], silence: float = SILENCE) -> Iterator[str]:
    """Send one command and yield its progress; UserError has its own words, CortexError says it is silent."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(silence)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            for line in connection.makefile("rb"):
                answer = json.loads(line)
                if "error" in answer:
                    raise _KINDS.get(answer.get("kind"), UserError)(answer["error"])
                if "done" in answer:
                    return
                if "progress" in answer:
                    yield answer["progress"]
        except OSError as error:
            raise CortexError(f"the supervisor does not answer at {path}: {error.strerror or error}") from None
    raise CortexError("the supervisor ended before it answered; see its log")
