"""Whether the APIs of a home share a front, and where that listens: what `cortex deploy --front` chose.

``CORTEX_HOME/front/listen`` is there from that choice until it is taken back, or the last API is deleted. Beside it
``url`` is where the front that runs is reached, whatever its settings have become since.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cortex.environments import nginx
from cortex.environments.address import Address
from cortex.environments.fields import FieldError
from cortex.environments.local.front import LocalFront
from cortex.environments.nginx import Route
from cortex.environments.protection import Protection
from cortex.environments.state import Home
from cortex.errors import UserError
from cortex.spec import APISpec
from cortex.status import Status

PORT = 8080
TLS_PORT = 8443
_CHOICE = re.compile(r"nginx(?::(?P<port>[0-9]{1,5}))?")
_LOCK = ".front"


class Entrance:
    """Keep the front of one home in step with the APIs behind it, and with what its owner asks of it.

    It listens on ``host``, as they do.
    """

    def __init__(self, home: Home, host: str, protection: Protection) -> None:
        self._home = home
        self._host = host
        self._protection = protection
        self._file = home.root / "front/listen"
        self._url = home.root / "front/url"

    def problem(self, status: Status) -> str:
        """Say why the front, where there is to be one, does not lead to an API; empty when it does, or need not yet."""
        front = self._front(self._listen())
        if not front.running:
            return "the nginx in front of it is not running; run `cortex deploy` again"
        if status.status == "live" and not front.leads_to(_upstream(status.host, status.port)):
            return "the nginx in front of it does not lead to it; run `cortex deploy` again"
        return ""

    def choose(self, choice: str) -> None:
        """Have a front from now on (``nginx`` or ``nginx:PORT``), or no more (``none``).

        UserError for any other choice, and where nginx, a port or the certificate cannot be had; the front that was
        then stays.
        """
        with self._home.lock(_LOCK, wait=True):
            if choice == "none":
                self._front(self._listen()).stop()
                return
            listen = self._chosen(choice)
            self._check(listen)
            specs = [spec for spec, _ in self._apis()]
            for index, spec in enumerate(specs):
                nginx.check(spec, specs[:index])
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(str(listen))

    def check(self, spec: APISpec) -> None:
        """Refuse an API that cannot be behind the front beside the others. FieldError names the field.

        UserError when the front itself cannot be as it is to be now.
        """
        if not (listen := self._listen()):
            return
        if spec.networking.local_port in self.ports():
            raise FieldError("networking.local_port", "is the port of the front; give one of the two another")
        nginx.check(spec, [other for other, _ in self._apis() if other.name != spec.name])
        with self._home.lock(_LOCK, wait=True):  # nobody starts it while its ports are tried
            self._check(listen)

    def follow(self, leaving: str = "") -> None:
        """Have the front, if there is to be one, lead to every API but one that is ``leaving``; stop it with the last.

        UserError when nginx cannot do that.
        """
        with self._home.lock(_LOCK, wait=True):
            if listen := self._listen():
                routes = [
                    Route.of(spec, [_upstream(status.host, status.port)])
                    for spec, status in self._apis()
                    if spec.name != leaving
                ]
                self._front(listen).follow(routes)
                if routes:
                    self._url.write_text(self._reached(listen))

    def preview(self, choice: str | None, coming: Sequence[tuple[APISpec, int]]) -> Mapping[str, Any]:
        """Return the nginx that would lead to what is deployed and what is ``coming``, each with its port.

        Empty when there would be none. ``choice`` as for `choose`, None for what was chosen before. UserError as there,
        but neither nginx nor a port is tried.
        """
        if not (listen := self._after(choice)):
            return {}
        self._protection.check(listen.port)
        rows = {spec.name: (spec, _upstream(status.host, status.port)) for spec, status in self._apis()}
        rows |= {spec.name: (spec, _upstream(self._host, port)) for spec, port in coming}
        for spec, _ in coming:
            nginx.check(spec, [other for other, _ in rows.values() if other.name != spec.name])
        return self._front(listen).preview([Route.of(spec, [upstream]) for spec, upstream in rows.values()])

    def ports(self, choice: str | None = None) -> set[int]:
        """Return the ports of the front, as it is or would be after a ``choice``; none without a front."""
        if not (listen := self._after(choice)):
            return set()
        return {listen.port, *([self._protection.tls_port] if self._protection.certificate else [])}

    def url(self, spec: APISpec) -> str:
        """Return where the front leads to an API, empty when there is none."""
        if not (listen := self._listen()):
            return ""
        return f"{_text(self._url) or self._reached(listen)}{spec.endpoint}"

    def _reached(self, listen: Address) -> str:
        secure = self._protection.certificate
        scheme, port = ("https", self._protection.tls_port) if secure else ("http", listen.port)
        return f"{scheme}://{Address(listen.host, port).shown}"

    def _check(self, listen: Address) -> None:
        self._protection.check(listen.port)
        self._front(listen).check()

    def _after(self, choice: str | None) -> Address | None:
        return self._listen() if choice is None else None if choice == "none" else self._chosen(choice)

    def _listen(self) -> Address | None:
        with contextlib.suppress(ValueError):
            return Address.of(_text(self._file))
        return None

    def _chosen(self, choice: str) -> Address:
        """Return the address of a choice: without a port the one that there is, or else `PORT`."""
        found, there = _CHOICE.fullmatch(choice), self._listen()
        port = found and int(found["port"] or (there.port if there else PORT))
        if not port or port > 65535:
            raise UserError(f"--front {choice}: must be nginx, nginx:PORT or none")
        return Address(self._host, port)

    def _front(self, listen: Address | None) -> LocalFront:
        asked, listen = self._protection, listen or Address(self._host, PORT)
        front = nginx.Front(
            directory="",
            listen=str(listen),
            listen_tls=str(Address(listen.host, asked.tls_port)),
            public_tls_port=asked.tls_port,
            certificate=asked.certificate,
            certificate_key=asked.certificate_key,
            rate=asked.rate,
        )
        return LocalFront(self._home.root, front)

    def _apis(self) -> list[tuple[APISpec, Status]]:
        """Return what is deployed, in the order in which it first was."""
        found = []
        for name in self._home.by_age():
            directory = self._home.api(name)
            with contextlib.suppress(UserError):  # an API that is damaged does not take the others along
                if status := directory.status():
                    found.append((directory.spec(status.revision), status))
        return found


def _text(file: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text(encoding="ascii").strip()
    return ""


def _upstream(host: str, port: int) -> str:
    return str(Address(host, port).reached)
