"""What runs one revision of one API, as values that survive a trip through JSON.

An environment makes a plan without side effects. `cortex.supervisor` carries it out on this machine; another
environment writes it out for its own scheduler. This module imports nothing of the project: the supervisor stays small.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class ProcessPlan:
    """One process to keep alive.

    ``ready`` says how it tells that it is ready: ``notify`` (it sends ``READY=1``, see `cortex.notify`), or the path of
    a Unix socket that it opens once it is. ``env`` is added to the environment of the shell that deployed, which also
    has ``NOTIFY_SOCKET`` and ``CORTEX_LISTEN_FD`` for it.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str
    ready: str
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Everything that runs one revision: ``front`` accepts requests, and so is the first to be drained; ``back`` is
    asked by it.

    ``run_dir`` belongs to this run alone: it is made, with ``files`` (name to text) in it, before the first process
    starts, and removed after the last one ended. ``stop_first`` stops the old revision before this one starts, for
    devices that only one process can hold. ``notices`` are shown to the API's owner for as long as it is live.
    """

    revision: str
    host: str
    port: int
    run_dir: str
    front: tuple[ProcessPlan, ...]
    back: tuple[ProcessPlan, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    stop_first: bool = False
    notices: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the plan as JSON text that `from_json` reads back."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Return the plan that `to_json` wrote."""
        fields = json.loads(text)
        for side in ("front", "back"):
            fields[side] = tuple(ProcessPlan(**{**row, "argv": tuple(row["argv"])}) for row in fields[side])
        fields["notices"] = tuple(fields["notices"])
        return cls(**fields)
