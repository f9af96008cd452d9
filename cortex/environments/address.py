"""Where something listens on this machine: how it is reached, and why nobody else can listen there."""

import contextlib
import socket
from dataclasses import dataclass

from cortex.errors import UserError

_REACHED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
_REFUSALS = (
    ("permission denied", "only root may listen below port 1024: choose another port"),
    ("address already in use", "something else listens there: choose another port, or stop it"),
)


@dataclass(frozen=True, order=True)
class Address:
    """A host, by number or name and without brackets, and a TCP port."""

    host: str
    port: int

    @classmethod
    def of(cls, listen: str) -> "Address":
        """Read ``HOST:PORT`` as nginx has it."""
        host, _, port = listen.rpartition(":")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        """``HOST:PORT``, with an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def reached(self) -> "Address":
        """The address by which this machine reaches what listens there."""
        return Address(_REACHED.get(self.host, self.host), self.port)

    @property
    def shown(self) -> "Address":
        """The address by which a person at this machine does; localhost may be none of IPv6."""
        return Address("localhost", self.port) if self.reached.host == "127.0.0.1" else self.reached

    @property
    def resolved(self) -> "Address":
        """The address by number; as it is when there is no number for it, which `check` then says."""
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(self.host, self.port, self._family, socket.SOCK_STREAM)
            return Address(str(found[0][4][0]), self.port)
        return self

    @property
    def _family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def bind(self) -> None:
        """Raise OSError when nobody could listen there now."""
        with socket.socket(self._family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((self.host, self.port))

    def check(self) -> None:
        """Raise UserError when nginx could not listen there."""
        try:
            self.bind()
        except OSError as error:
            told = meaning(error.strerror or str(error))
            raise UserError(f"nginx cannot listen on port {self.port}: {told}") from error


def meaning(said: str) -> str:
    """Return what a refusal means to a person, with its own words behind it."""
    return next((f"{words} ({said})" for phrase, words in _REFUSALS if phrase in said.lower()), said)
