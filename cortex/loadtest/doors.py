"""Where requests go in: a door knows one protocol. Each thread of a load opens its own connection at it."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from ssl import CERT_NONE, SSLContext, SSLError, create_default_context
from typing import Protocol

from cortex.errors import UserError
from cortex.loadtest.payloads import Payload


class Failed(Exception):
    """Say that a request was not answered with success.

    ``kind`` is what errors are counted by, so it names no request and no time. ``unreachable`` tells that there was
    nobody to send it to.
    """

    def __init__(self, kind: str, *, unreachable: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.unreachable = unreachable


class Connection(Protocol):
    """One client of the server. Used by one thread, and kept alive between requests where the protocol allows."""

    def call(self, payload: Payload) -> bytes:
        """Send one request and return the body of its answer. Raises `Failed`; the connection is usable afterwards."""

    def close(self) -> None: ...


class Door(Protocol):
    """A protocol and an address. A value that can be pickled: it travels to the processes of the load."""

    @property
    def address(self) -> tuple[str, int] | None:
        """The host and the port to connect to; None for a socket in the file system."""

    def connect(self) -> Connection: ...


@dataclass(frozen=True)
class TLS:
    """How to trust a server, and who to be. The default trusts the authorities of this machine."""

    verify: bool = True
    authorities: Path | None = None
    """A PEM file of authorities to trust instead."""
    certificate: Path | None = None
    """A PEM file with a client's certificate, and its key unless ``key`` holds that."""
    key: Path | None = None

    def context(self) -> SSLContext:
        """Return a context for connections. Raises UserError for files that cannot be used."""
        return _context(self)


DEFAULT_TLS = TLS()


@lru_cache(maxsize=8)
def _context(tls: TLS) -> SSLContext:
    try:
        context = create_default_context(cafile=tls.authorities)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key)
    except (SSLError, OSError) as error:
        files = ", ".join(str(each) for each in (tls.authorities, tls.certificate, tls.key) if each)
        raise UserError(f"{files}: not usable for TLS ({error.strerror or error}); give PEM files") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = CERT_NONE
    return context
