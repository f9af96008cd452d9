"""The nginx container in front of all APIs of a docker environment: its settings, its service, its configuration."""

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cortex.environments import nginx, protection
from cortex.environments import settings as setting
from cortex.environments.address import Address
from cortex.environments.certificate import Certificate
from cortex.environments.docker import compose
from cortex.environments.docker.engine import TAKEN, Container, Engine
from cortex.environments.protection import Protection
from cortex.errors import NotStarted, UserError

SETTINGS = ("host", "port", *protection.SETTINGS, "retry_posts", "front_image")
HOST = "0.0.0.0"  # noqa: S104 - as the local environment; the setting `host`, or CORTEX_HOST, narrows it
START_SECONDS = 20.0
_BOOLEAN = re.compile(r"true|false")
_ADDRESS = f"{compose.FRONT}:{compose.FRONT_PORT}"


@dataclass(frozen=True)
class FrontSettings:
    """Where the front is reached, and what its owner asks of it. See `cortex.environments.nginx.Front`."""

    host: str
    port: int
    protection: Protection
    retry_posts: bool
    image: str

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> "FrontSettings":
        """Read the settings of an environment. UserError for one that is not as it must be."""
        port, asked = setting.port(settings, "port", 80), Protection.of(settings, tls_port=443)
        asked.check(port)
        return cls(
            host=(settings.get("host") or os.environ.get("CORTEX_HOST") or HOST).strip("[]"),
            port=port,
            protection=asked,
            retry_posts=setting.matching(settings, "retry_posts", "false", _BOOLEAN, "true or false") == "true",
            image=settings.get("front_image", "nginx:stable"),
        )

    @property
    def url(self) -> str:
        """Where this machine reaches the front, without a slash at the end."""
        secure = bool(self.protection.certificate)
        return _url(Address(self.host, self.protection.tls_port if secure else self.port), secure=secure)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where the front listens on this machine, by number: for plain HTTP and, with a certificate, for TLS."""
        ports = [self.port, *([self.protection.tls_port] if self.protection.certificate else [])]
        return tuple(Address(self.host, port).resolved for port in ports)

    @property
    def published(self) -> list[str]:
        """The ports of the front's service, that of TLS last."""
        inside = (compose.FRONT_PORT, compose.FRONT_TLS_PORT)
        return [f"{address}:{port}" for address, port in zip(self.addresses, inside, strict=False)]

    def service(self, directory: Path) -> compose.Service:
        """Return the front's service; ``directory`` has its configuration."""
        return compose.front(self.image, str(directory), self.published)

    def nginx(self) -> nginx.Front:
        """Return what the configuration says of the front itself."""
        return nginx.Front(
            directory="/tmp",  # noqa: S108  # the container's own
            listen=f"0.0.0.0:{compose.FRONT_PORT}",
            listen_tls=f"0.0.0.0:{compose.FRONT_TLS_PORT}",
            public_tls_port=self.protection.tls_port,
            certificate="/etc/nginx/cortex/tls.crt" if self.protection.certificate else "",
            certificate_key="/etc/nginx/cortex/tls.key" if self.protection.certificate else "",
            rate=self.protection.rate,
            retry_posts=self.retry_posts,
        )


def _url(address: Address, *, secure: bool) -> str:
    scheme, usual = ("https", 443) if secure else ("http", 80)
    return f"{scheme}://{address.shown}".removesuffix(f":{usual}")


class DockerFront:
    """Keep the front's configuration in ``directory``, and have its container follow it."""

    def __init__(self, settings: FrontSettings, engine: Engine, directory: Path) -> None:
        self.settings = settings
        self._engine = engine
        self._directory = directory

    def url(self, published: Sequence[str]) -> str:
        """Return where this machine reaches a front with these ports: also before it follows other settings."""
        if published == self.settings.published:
            return self.settings.url
        address, _, port = published[-1].rpartition(":")
        return _url(Address.of(address), secure=int(port) == compose.FRONT_TLS_PORT)

    def check(self, held: Collection[int]) -> None:
        """Raise UserError for a certificate that cannot be, and for an address where the front could not listen.

        ``held`` are the ports that the front has when it runs. Whoever may not try a port does not.
        """
        self._certificate()
        for each in self.settings.addresses:
            try:
                each.bind()
            except PermissionError:
                continue
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise UserError(f"host: {each.host} is no address of this machine ({error.strerror})") from error
                if not (each.port in held and self._listening()):
                    raise UserError(TAKEN.format(port=each.port)) from error

    def follow(self, routes: Sequence[nginx.Route], worker: str) -> None:
        """Have the front lead to these routes; it is started when it does not run, and asked to reload otherwise.

        ``worker`` is a container that can ask it. NotStarted when nginx does not take the configuration.
        """
        front = self.settings.nginx()
        files = self._files(routes)
        self._told.unlink(missing_ok=True)
        self._write(files)
        before = self._running()
        anew = [] if before else ["--force-recreate"]  # one that has ended may want a network that is gone
        self._engine.compose("up", "--detach", "--no-deps", *anew, compose.FRONT)
        if (now := self._container().id) in before:  # `docker kill` counts as a stop by hand: no restart from then on
            self._engine.ask(now, "sh", "-c", "kill -HUP 1")
        self._await(nginx.digest(routes, front), worker)
        self._told.write_text(self._digest(files))

    def matches(self, routes: Sequence[nginx.Route]) -> bool:
        """Tell whether the front runs, as its settings have it, and was last told to lead to these routes."""
        try:
            told = self._told.read_text()
        except OSError:
            return False
        return told == self._digest(self._files(routes)) and bool(self._running())

    def sweep(self, *patterns: str) -> None:
        """Remove sockets that nobody listens on any more, and links that lead nowhere."""
        files = " ".join(f"{compose.FRONT_SOCKETS}/{pattern}" for pattern in patterns)
        script = f'rm -rf {files}; for each in {compose.FRONT_SOCKETS}/*/*; do [ -e "$each" ] || rm -f "$each"; done'
        self._engine.ask(self._container().id, "sh", "-c", script)

    @property
    def _told(self) -> Path:
        """What `_digest` was when the front last came to follow; not there after a command that was interrupted."""
        return self._directory / "told"

    def _digest(self, files: Mapping[str, bytes]) -> str:
        service = json.dumps(self.settings.service(self._directory))
        return hashlib.sha256(b"\0".join([service.encode(), *files.values()])).hexdigest()

    def _write(self, files: Mapping[str, bytes]) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o755)  # read by the container's user; the directory above is closed to others
        for name, content in files.items():
            unfinished = self._directory / f".{name}"
            unfinished.write_bytes(content)
            unfinished.chmod(0o644)
            unfinished.replace(self._directory / name)

    def _files(self, routes: Sequence[nginx.Route]) -> dict[str, bytes]:
        """Return what the front reads, by name."""
        certificate = self._certificate()
        tls = {"tls.crt": certificate.chain, "tls.key": certificate.key} if certificate else {}
        return {**tls, "nginx.conf": nginx.configuration(routes, self.settings.nginx()).encode()}

    def _certificate(self) -> Certificate | None:
        asked = self.settings.protection
        return Certificate.read(asked.certificate, asked.certificate_key) if asked.certificate else None

    def _running(self) -> list[str]:
        """Return the id of the front's container where it runs and can be reached."""
        return [row.id for row in self._listening() if not row.paused]

    def _listening(self) -> list[Container]:
        """Return the front's container where it has its ports."""
        rows = (row for row in self._engine.containers() if row.service == compose.FRONT)
        return [row for row in rows if row.running and row.connected]

    def _container(self) -> Container:
        for row in self._engine.containers():
            if row.service == compose.FRONT:
                return row
        raise NotStarted("the front has no container")

    def _await(self, digest: str, worker: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        same = 0
        while same < 2:  # an old process of nginx may answer once more
            _, said = self._engine.ask(worker, "python", "/opt/cortex/probe.py", nginx.CONFIGURATION, _ADDRESS)
            same = same + 1 if said == digest else 0
            front = self._container()
            if not front.running or time.monotonic() > deadline:
                words = self._engine.last_words(front.id)
                raise NotStarted(f"nginx did not take its configuration: {words}")
