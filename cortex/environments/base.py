"""What every environment can do with an API, and the values that it answers with.

An environment is where a plan runs: ``local`` (processes on this machine), ``docker``, ``kubernetes``. The CLI knows
only this module.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cortex.environments.fields import FieldError
from cortex.errors import Error, UserError
from cortex.spec import APISpec
from cortex.spec.config import Config

Progress = Callable[[str], None]
"""Called with one line for a person each time what is awaited changes ("waiting for the model server ...")."""


@dataclass(frozen=True)
class NetworkStats:
    """Count what an API answered since its revision started: by status class, with the mean latency in milliseconds."""

    code_2xx: int = 0
    code_4xx: int = 0
    code_5xx: int = 0
    latency_ms: float | None = None

    @classmethod
    def of(cls, samples: Mapping[tuple[str, str], float]) -> "NetworkStats":
        """Read what workers count (`cortex.api.metrics`), by the names of samples and their ``status``, if any."""
        count = samples.get(("cortex_request_duration_seconds_count", ""), 0.0)
        seconds = samples.get(("cortex_request_duration_seconds_sum", ""), 0.0)
        return cls(
            code_2xx=int(samples.get(("cortex_requests_total", "2XX"), 0)),
            code_4xx=int(samples.get(("cortex_requests_total", "4XX"), 0)),
            code_5xx=int(samples.get(("cortex_requests_total", "5XX"), 0)),
            latency_ms=1000 * seconds / count if count else None,
        )

    @property
    def total(self) -> int:
        return self.code_2xx + self.code_4xx + self.code_5xx


@dataclass(frozen=True)
class ProcessStatus:
    """Describe one process of a live revision: a worker or a model server."""

    name: str
    pid: int | None
    state: str
    """``starting``, ``ready``, ``waiting to restart`` or ``stopped``."""
    restarts: int = 0


@dataclass(frozen=True)
class API:
    """Describe one deployed API as `cortex get` shows it."""

    spec: APISpec
    api_id: str
    """The live revision, or the one being started when none is live yet."""
    status: str
    """``live``, ``updating``, ``error`` or ``error (out of memory)``."""
    endpoint: str
    last_updated: float
    """Seconds since the epoch."""
    front: str = ""
    """Where the front leads to it, when it has one besides ``endpoint``."""
    reason: str = ""
    """Why the status is not ``live``: what is awaited, or what went wrong."""
    notices: tuple[str, ...] = ()
    """What its owner must know although it is live: random weights, a GPU that is missing, a failed update."""
    processes: tuple[ProcessStatus, ...] = ()
    stats: NetworkStats = field(default_factory=NetworkStats)


@dataclass(frozen=True)
class Deployed:
    """Say what one API's deployment came to: ``message`` always, ``error`` when it failed, ``api`` when it is known."""

    name: str
    message: str
    error: str = ""
    api: API | None = None


class Environment(Protocol):
    """Run APIs somewhere. Every method raises `UserError` for what the user can mend.

    Its class is called with the home directory, the environment's settings and its ``name=``, which keeps it apart
    from others of its provider (`cortex.environments.registry`): that stores, touches nothing, and raises `UserError`
    for a setting that it does not know.
    """

    name: str
    provider: str

    def choose_front(self, choice: str) -> None:
        """Have nginx in front of all APIs, now and for later deployments: ``nginx``, ``nginx:PORT`` or ``none``.

        UserError, with nothing changed, where the environment has no such choice or cannot carry it out.
        """

    def deploy(self, config: Config, *, force: bool, progress: Progress) -> Iterator[Deployed]:
        """Bring every API of a yaml to its new revision; yield what came of each once it is live or has failed."""

    def render(self, config: Config, front: str | None = None) -> tuple[Mapping[str, Any], ...]:
        """Return the documents that `deploy` would carry out: local: one plan for each API, and one for the front
        where there is to be one; docker: the compose project; kubernetes: the manifests.

        ``front`` is what `choose_front` would be told, None for nothing; UserError for what it would refuse. Nothing is
        done, and nothing has to be there: no device, no daemon, no model, no nginx;
        but kubernetes looks into a directory of models, each of which its manifests name.
        """

    def apis(self) -> tuple[API, ...]:
        """Return every deployed API, sorted by name."""

    def api(self, name: str) -> API:
        """Return one API; UserError ``NAME is not deployed`` when there is none."""

    def logs(self, name: str, *, follow: bool) -> Iterator[str]:
        """Yield the log lines of all processes of an API, oldest first, without line ends; forever when ``follow``."""

    def refresh(self, name: str, *, force: bool, progress: Progress) -> Deployed:
        """Restart an API on the revision it has, without losing a request."""

    def delete(self, name: str, *, keep_cache: bool) -> str:
        """Stop an API, remove everything it left, and return ``deleting NAME``."""


def deploy_each(
    config: Config, deploy: Callable[[APISpec], Deployed], find: Callable[[str], API | None]
) -> Iterator[Deployed]:
    """Deploy the APIs of a yaml one by one; one that fails, with file and line, does not keep the others from it.

    ``find`` returns what an API that failed still is.
    """
    for spec in config.apis:
        try:
            with located(config, spec):
                deployed = deploy(spec)
            yield deployed
        except Error as error:
            yield Deployed(spec.name, "", error=str(error), api=find(spec.name))


@contextlib.contextmanager
def located(config: Config, spec: APISpec) -> Iterator[None]:
    """Have an error about a field of an API say file, line and key."""
    try:
        yield
    except FieldError as error:
        raise UserError(f"{config.where(spec.name, error.field)}: {error.message}") from error
