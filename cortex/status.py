"""What the supervisor of an API says of it, in a file that anyone may read without asking."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


def not_updated(revision: str, live: str, why: str) -> str:
    """Say that ``live`` goes on, since ``revision`` did not come live; the same one, when it was only restarted."""
    what = "the restart" if revision == live else f"the update to revision {revision}"
    return f"{what} failed, so {live} goes on: {why}"


@dataclass(frozen=True)
class Status:
    """The state of one API. ``supervisor`` and ``supervisor_started`` (see `cortex.pid.since_boot`) name the very
    process that wrote it, so that a recycled pid is not taken for it.

    ``status`` is ``live``, ``updating``, ``error`` or ``error (out of memory)``; ``reason`` says why it is not live.
    Each of ``processes`` has ``name``, ``pid``, ``state`` and ``restarts``.
    """

    status: str
    revision: str
    """The live one, or the one that was to be the first."""
    host: str
    port: int
    reason: str = ""
    in_use: tuple[str, ...] = ()
    """Every revision whose processes run: the live one, one that is being started, those that are being drained."""
    live_since: float = 0.0
    """Seconds since the epoch; 0 when it never was."""
    run_dir: str = ""
    notices: tuple[str, ...] = ()
    processes: tuple[dict[str, Any], ...] = ()
    supervisor: int = 0
    supervisor_started: float = 0.0

    def save(self, path: Path) -> None:
        """Replace the file with this status in one step."""
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self), indent=2))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Status":
        """Read what `save` wrote. Raises OSError when there is none, ValueError when it is not a status."""
        fields = json.loads(path.read_text())
        try:
            return cls(**{**fields, **{name: tuple(fields[name]) for name in ("in_use", "notices", "processes")}})
        except (TypeError, KeyError) as error:
            raise ValueError(f"{path} is not a status: {error!r}") from None
