"""The log of an API, from the containers of one run to those of the next."""

import time
from collections.abc import Iterator

from cortex.environments.docker.compose_file import ComposeFile
from cortex.environments.docker.engine import Engine

_POLL_SECONDS = 0.5


def lines(engine: Engine, file: ComposeFile, name: str, run: str, *, follow: bool) -> Iterator[str]:
    """Yield the lines of an API that ``run`` is of; with ``follow`` those of the runs after it, until it is deleted."""
    last = ""
    while run:
        told = engine.logs(file.services(run), follow=follow, past=run != last)
        yield from (line for line in told if "|" in line)
        last, run = run, _next_run(engine, file, name) if follow else ""


def _next_run(engine: Engine, file: ComposeFile, name: str) -> str:
    """Wait until containers of an API run, and return their run; nothing once it is deleted."""
    while row := file.deployments().get(name):
        time.sleep(_POLL_SECONDS)
        if row.run in {each.labels.get("cortex.run") for each in engine.containers() if each.running}:
            return row.run
    return ""
