"""How an API's containers are, in the words of `cortex get`."""

import re
from collections.abc import Collection, Iterator, Sequence

from cortex.environments.docker import compose
from cortex.environments.docker.engine import Container, Engine

_PREFIX = re.compile(r"^(\S+ \S+:cortex:pid-\d+:[A-Z]+:|cortex\.errors\.\w+: )")
"""What our own logs begin their lines with, and Python our own errors."""
_NOT_OURS = re.compile(r"exec python failed|can't open file '/opt/cortex/listen\.py'")
_TO_MAKE = "; predictor.image must be made from cortex-api: docs/environments.md, Coming from Cortex, says how"


def process(container: Container) -> str:
    return container.labels.get("cortex.process", container.service)


def is_worker(container: Container) -> bool:
    return "api-" in container.labels.get("cortex.process", "")


def state(container: Container) -> str:
    if not container.running:
        return "waiting to restart"
    starting = container.health == "unhealthy" or (container.health == "starting" and container.restarts)
    return "starting" if starting else "ready"


def judge(containers: Sequence[Container], services: Collection[str], engine: Engine) -> tuple[str, str]:
    """Return status and reason of an API; ``services`` are those that it has containers of, the front among them."""
    if {row.service for row in containers} != {*services}:
        return "error", "containers of it are gone; run `cortex deploy` again"
    for row in containers:
        if row.service == compose.FRONT and (row.paused or not row.connected):
            return "error", "the front is paused, or in no network any more; run `cortex deploy` again"
        if not row.running:
            status = "error (out of memory)" if row.out_of_memory else "error"
            return status, f"{process(row)}: {end(row, engine)}"
    waiting = [process(row) for row in containers if state(row) != "ready"]
    return ("updating", f"{', '.join(waiting)}: starting") if waiting else ("live", "")


def killed(containers: Sequence[Container]) -> Iterator[str]:
    """Yield what has happened to containers that run again, and may happen again."""
    for row in containers:
        if row.out_of_memory and row.running and row.restarts:
            yield f"{process(row)}: was out of memory, and was started again"


def end(container: Container, engine: Engine) -> str:
    """Say why a container ended."""
    if container.out_of_memory:
        return "out of memory"
    how = "crashed" if container.running else f"exited with {container.exit_code}"
    words = last_words(container, engine)
    return f"{how}: {words}{_TO_MAKE if _NOT_OURS.search(words) else ''}"


def last_words(container: Container, engine: Engine) -> str:
    """Return what a container logged last, an error before anything else."""
    return _PREFIX.sub("", engine.last_words(container.id))
