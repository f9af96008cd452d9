"""TLS and a rate limit of a front, as the settings of an environment ask for them: names and rules of all providers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cortex.environments import settings as setting
from cortex.errors import UserError

SETTINGS = ("tls_port", "certificate", "certificate_key", "rate_limit")
_RATE = re.compile(r"[1-9][0-9]{0,8}r/[sm]")


@dataclass(frozen=True)
class Protection:
    """What a front does beside leading to APIs. See `cortex.environments.nginx.Front`.

    ``certificate`` and ``certificate_key`` are absolute paths, both there or both empty; nobody has looked at the files
    (`cortex.environments.certificate`).
    """

    tls_port: int
    certificate: str = ""
    certificate_key: str = ""
    rate: str = ""

    @classmethod
    def of(cls, settings: Mapping[str, str], tls_port: int) -> "Protection":
        """Read an environment's settings; ``tls_port`` is its default. UserError for one that cannot be."""
        certificate, key = _path(settings, "certificate"), _path(settings, "certificate_key")
        if bool(certificate) != bool(key):
            raise UserError("certificate and certificate_key are given together, or not at all")
        return cls(
            tls_port=setting.port(settings, "tls_port", tls_port),
            certificate=certificate,
            certificate_key=key,
            rate=setting.matching(settings, "rate_limit", "", _RATE, "a rate like 10r/s or 300r/m"),
        )

    def check(self, port: int) -> None:
        """Refuse a front whose ``port`` for plain HTTP is the one for TLS, too."""
        if self.certificate and port == self.tls_port:
            raise UserError(f"tls_port: {port} is the front's port for plain HTTP, too: choose another for one of them")


def _path(settings: Mapping[str, str], name: str) -> str:
    text = settings.get(name, "")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{name}: {text!r} names a home directory that there is not; give the whole path") from error
    if text and not path.is_absolute():
        raise UserError(f"{name}: {text!r} depends on where a command is run; give the whole path: {path.absolute()}")
    return str(path) if text else ""
