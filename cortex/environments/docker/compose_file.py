"""The compose file of a docker environment. It is all that the environment remembers: readable, and read back.

``x-cortex`` says what is live; ``services`` and ``volumes`` have the runs of all APIs, also of one that is on its way
to replace another, and the front.
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cortex.environments.docker import compose
from cortex.environments.dump import Dumper
from cortex.errors import UserError

_KEY = "x-cortex"
_DAMAGED = "is not as cortex left it; restore it, or remove it together with its containers, and deploy again"


@dataclass(frozen=True)
class Deployment:
    """What is live of one API. Times are seconds since the epoch."""

    name: str
    revision: str
    run: str
    created: float
    updated: float
    notices: tuple[str, ...] = ()
    failure: str = ""
    """Why the last update did not go live."""


class ComposeFile:
    """Read and change one compose file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, Any]:
        """Return the document, of which every section is there. UserError when the file is damaged."""
        try:
            document = yaml.safe_load(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            document = {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{self._file}: cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(document, dict):
            raise UserError(f"{self._file}: {_DAMAGED}")
        sections: dict[str, Any] = {_KEY: {}, "services": {}, "volumes": {}}
        return sections | {name: row for name, row in document.items() if row}

    def deployments(self) -> dict[str, Deployment]:
        """Return what is live, by name, in the order in which it was first deployed."""
        rows = self.read()[_KEY]
        try:
            found = [Deployment(name, **{**row, "notices": tuple(row["notices"])}) for name, row in rows.items()]
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{self._file}: {_KEY}: {_DAMAGED}") from error
        return {row.name: row for row in sorted(found, key=lambda row: (row.created, row.name))}

    def add(self, run: compose.Run) -> None:
        """Add the services and volumes of a run."""
        document = self.read()
        document["services"] |= compose.services(run)
        document["volumes"] |= compose.volumes(run) | {compose.FRONT: {}}
        self._write(document)

    def add_front(self, service: compose.Service) -> None:
        """Add the front, or change it."""
        document = self.read()
        document["services"][compose.FRONT] = compose.literal(service)
        self._write(document)

    def front_ports(self) -> set[int]:
        """Return the ports of this machine that the front has when it runs."""
        return {int(port.split(":")[-2]) for port in self.published()}

    def published(self) -> list[str]:
        """Return the ports that the front publishes, as its service has them."""
        return list(self.read()["services"].get(compose.FRONT, {}).get("ports", ()))

    def remove(self, run: str) -> None:
        """Remove the services and volumes of a run."""
        services, document = self.services(run), self.read()
        document["services"] = {name: row for name, row in document["services"].items() if name not in services}
        document["volumes"] = {name: row for name, row in document["volumes"].items() if not _of(name, run)}
        self._write(document)

    def remember(self, deployment: Deployment) -> None:
        """Note what is live of an API."""
        document = self.read()
        row = {**dataclasses.asdict(deployment), "notices": list(deployment.notices)}
        del row["name"]
        document[_KEY][deployment.name] = row
        self._write(document)

    def forget(self, name: str) -> None:
        """Note that nothing is live of an API."""
        document = self.read()
        document[_KEY].pop(name, None)
        self._write(document)

    def services(self, run: str) -> list[str]:
        """Return the services of a run, workers first: those are the first to stop."""
        rows = self.read()["services"].items()
        return [name for name, row in rows if row.get("labels", {}).get("cortex.run") == run][::-1]

    def volumes(self, run: str) -> list[str]:
        """Return the volumes of a run."""
        return [name for name in self.read()["volumes"] if _of(name, run)]

    def runs(self) -> set[str]:
        """Return every run that has services, live or not."""
        rows: Mapping[str, Any] = self.read()["services"]
        return {row["labels"]["cortex.run"] for name, row in rows.items() if name != compose.FRONT}

    def images(self) -> set[str]:
        """Return the images of all services."""
        return {str(row.get("image", "")) for row in self.read()["services"].values()}

    def neuron_devices(self, but: str) -> set[int]:
        """Return the numbers of the Inferentia devices that other APIs than ``but`` have."""
        rows = [row for row in self.read()["services"].values() if row.get("labels", {}).get("cortex.api") != but]
        named = [str(device).partition(":")[0] for row in rows for device in row.get("devices", ())]
        return {int(name.removeprefix(compose.NEURON_DEVICE)) for name in named}

    def _write(self, document: Mapping[str, Any]) -> None:
        """Replace the file in one step."""
        unfinished = self._file.with_name(f".{self._file.name}")
        try:
            unfinished.write_text(text(document), encoding="utf-8")
            unfinished.replace(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise UserError(f"{self._file}: cannot be written: {error.strerror}") from error


def rendered(
    runs: Sequence[compose.Run], front: compose.Service, files: Mapping[str, str], build: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the document of some runs and the front, with the files that they mount and how images are built."""
    services: dict[str, Any] = {}
    for run in runs:
        services |= compose.services(run)
    for row in services.values():
        if row["image"] in build:
            row["build"] = build[row["image"]]
    volumes = {name: row for run in runs for name, row in compose.volumes(run).items()}
    return {
        "services": {**services, compose.FRONT: compose.literal(front)},
        "volumes": {**volumes, compose.FRONT: {}},
        "x-files": dict(files),
    }


def text(document: Mapping[str, Any]) -> str:
    """Return a compose file as text."""
    return yaml.dump(dict(document), Dumper=Dumper, sort_keys=False, width=120)


def _of(volume: str, run: str) -> bool:
    name, _, replica = volume.rpartition("-")
    return name == run and replica.isdecimal()
