"""What an environment of this machine keeps under its home, and who may touch it. ``CORTEX_HOME`` is the local one's.

HOME/
  apis/NAME/status.json            written by the API's supervisor
  apis/NAME/port                   assigned when it was first deployed; its time tells the APIs' order
  apis/NAME/neuron_cores           assigned, too, when it was first deployed to Inferentia (`local.neuron_cores`)
  apis/NAME/logs/PROCESS.log
  apis/NAME/revisions/ID/          spec.json, resolved.json, notices.json, and project/: a copy
  front/                           of the nginx in front of all APIs, when there is one (`local.front`)
  model_cache/DIGEST/              models, shared by the APIs that use them
  locks/NAME                       held while a command changes an API
  run/NAME/                        sockets, for as long as the supervisor lives
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import psutil

from cortex.environments import temporary
from cortex.errors import UserError
from cortex.pid import lives, since_boot
from cortex.spec import APISpec
from cortex.status import Status

_SOCKET_PATH_LIMIT = 107  # sun_path of Linux, less the closing zero
_LONGEST_SOCKET = "/000000/model-server-000.sock.line"
_GONE = "its supervisor is not running (killed, or the machine was restarted); run `cortex deploy` again"


class Home:
    """Find everything under one ``CORTEX_HOME``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model_cache = root / "model_cache"

    def names(self) -> list[str]:
        """Return the names of all deployed APIs, sorted."""
        return sorted(path.parent.name for path in self.root.glob("apis/*/status.json"))

    def unfinished(self) -> list[str]:
        """Return the names of what is being deployed for the first time or deleted, or was when that was killed."""
        return sorted({path.name for path in self.root.glob("apis/*/")} - {*self.names()})

    def by_age(self) -> list[str]:
        """Return the names of all deployed APIs in the order in which they got their ports."""
        return sorted(self.names(), key=lambda name: (self.api(name).age_mark(), name))

    def ports(self) -> dict[str, int]:
        """Return the port of every API that has one, by name; also of those that are only being deployed.

        What a command that was killed left of an API that never ran has none.
        """
        named = {path.parent.name for path in self.root.glob("apis/*/port")}
        deployed = set(self.names())
        return {name: self.api(name).port() for name in named if name in deployed or self.busy(name)}

    def models_in_use(self) -> set[str]:
        """Return the digests of the models of all revisions on disk, also of those that are only being deployed.

        OSError or ValueError when one of them cannot be read.
        """
        files = self.root.glob("apis/*/revisions/[!.]*/resolved.json")
        specs = [APISpec.model_validate_json(path.read_text()) for path in files]
        return {Path(model.path).name for spec in specs for model in spec.predictor.models}

    def find(self, name: str) -> "APIDirectory":
        """Return the directory of one deployed API; UserError when there is none."""
        if name not in self.names():
            raise UserError(f"{name} is not deployed")
        return self.api(name)

    def api(self, name: str) -> "APIDirectory":
        """Return where an API is, or would be."""
        return APIDirectory(self.root, name)

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[None]:
        """Hold ``name`` against other commands; the lock goes with this process. UserError when it is taken."""
        path = self.root / "locks" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while (descriptor := _locked(path, wait=wait)) is None:
                pass  # its last holder removed the file between our open and our lock
        except OSError as error:
            raise UserError(f"CORTEX_HOME={self.root} cannot be written to: {error.strerror}") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def busy(self, name: str) -> bool:
        """Tell whether some command holds ``name`` now."""
        with contextlib.suppress(FileNotFoundError), (self.root / "locks" / name).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def _locked(path: Path, *, wait: bool) -> int | None:
    """Return the descriptor of a lock file that is locked and still the one at ``path``, None when it is not."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except FileNotFoundError:
        pass
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"another cortex command is changing {path.name}; try again when it is done") from None
    os.close(descriptor)
    return None


class APIDirectory:
    """Find everything of one API. Nothing is made before it is needed."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.path = root / "apis" / name
        self.logs = self.path / "logs"
        self._root = root

    @cached_property
    def run_dir(self) -> Path:
        """Where the sockets are: near the rest, or below TMPDIR or /tmp when that is too long for them.

        Where a supervisor has its own is told by its status: TMPDIR may differ from shell to shell.
        """
        near = self._root / "run" / self.name
        if _has_room_for_sockets(near):
            return near
        with contextlib.suppress(OSError, ValueError):
            there = Path(Status.load(self.path / "status.json").run_dir).parent
            if there.is_absolute() and there.is_dir():
                return there
        name = temporary.digest(self.name)
        far = temporary.directory("run", self._root) / name
        return far if _has_room_for_sockets(far) else temporary.directory("run", self._root, "/tmp") / name  # noqa: S108

    def clear_run_dir(self) -> None:
        """Remove what a supervisor left there. UserError when somebody else may have put something there."""
        shutil.rmtree(self.run_dir, ignore_errors=True)
        if self._root not in self.run_dir.parents:
            temporary.make(self.run_dir.parent, mode=0o700)

    @property
    def control(self) -> Path:
        return self.run_dir / "control.sock"

    @property
    def notifications(self) -> Path:
        return self.run_dir / "notify.sock"

    @property
    def deployed(self) -> bool:
        """Whether its supervisor ever said anything of it."""
        return (self.path / "status.json").exists()

    def port(self) -> int:
        """Return the port that is assigned to the API, 0 before it has one."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.path / "port").read_text())
        return 0

    def assign_port(self, port: int) -> None:
        """Record the API's port, so that it keeps it and no other API takes it."""
        if port == self.port():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "port").write_text(str(port))

    def neuron_cores(self) -> range:
        """Return the NeuronCores that are assigned to the API, empty before it has some."""
        with contextlib.suppress(OSError, ValueError):
            first, _, last = (self.path / "neuron_cores").read_text().partition("-")
            return range(int(first), int(last) + 1)
        return range(0)

    def assign_neuron_cores(self, cores: range) -> None:
        """Record the API's NeuronCores, so that it keeps them and no other API takes them."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "neuron_cores").write_text(f"{cores[0]}-{cores[-1]}")

    def age_mark(self) -> int:
        """Return when the API got the port that it has: nanoseconds, to compare with those of others."""
        with contextlib.suppress(OSError):
            return (self.path / "port").stat().st_mtime_ns
        return 0

    def revision(self, revision: str) -> Path:
        """Return the directory of one revision."""
        return self.path / "revisions" / revision

    def spec(self, revision: str) -> APISpec:
        """Read the spec of a revision as the user wrote it. UserError when the revision is damaged."""
        with self._reading(revision) as directory:
            return APISpec.model_validate_json((directory / "spec.json").read_text())

    def resolved(self, revision: str) -> APISpec:
        """Read the spec of a revision with its models where the cache has them. UserError as for `spec`."""
        with self._reading(revision) as directory:
            return APISpec.model_validate_json((directory / "resolved.json").read_text())

    def notices(self, revision: str) -> tuple[str, ...]:
        """Read what the owner of a revision is to know. UserError as for `spec`."""
        with self._reading(revision) as directory:
            return tuple(json.loads((directory / "notices.json").read_text()))

    @contextlib.contextmanager
    def _reading(self, revision: str) -> Iterator[Path]:
        directory = self.revision(revision)
        try:
            yield directory
        except (OSError, ValueError) as error:
            raise UserError(f"{directory} is damaged; `cortex deploy` writes it anew") from error

    def status(self) -> Status | None:
        """Return what the supervisor last said, corrected when it is no longer there to say it; None before it did."""
        try:
            status = Status.load(self.path / "status.json")
        except (OSError, ValueError):
            return None
        if status.status.startswith("error") and not status.processes:
            return status
        if supervisor(status) is None:
            return dataclasses.replace(status, status="error", reason=_GONE, processes=())
        return status

    def forget_revisions_but(self, newest: str) -> None:
        """Remove the revisions that neither run nor are about to; ``newest`` stays."""
        status = self.status()
        keep = {newest, *((status.revision, *status.in_use) if status else ())}
        for path in self.path.glob("revisions/*"):
            if path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove the API's files and sockets; its supervisor has ended before."""
        for path in (self.path, self.run_dir):
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def _has_room_for_sockets(directory: Path) -> bool:
    return len(os.fsencode(directory)) + len(_LONGEST_SOCKET) <= _SOCKET_PATH_LIMIT


def supervisor(status: Status) -> psutil.Process | None:
    """Return the supervisor that wrote a status, unless it is gone; a stranger with its old pid is not it."""
    try:
        process = psutil.Process(status.supervisor)
        same = abs(since_boot(process) - status.supervisor_started) < 0.01
    except psutil.NoSuchProcess:
        return None
    return process if same and lives(process) else None
