"""A certificate and its key: files in PEM, read, checked, and copied to where nginx reads them.

nginx has copies, so that what its owner changes or removes takes effect with a command, and with nothing else. They are
named for their content: a configuration with another certificate is another configuration.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cortex.errors import UserError

_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")
_NEITHER = "are no certificate in PEM with its key in PEM, without a password"


@dataclass(frozen=True)
class Certificate:
    """The content of a certificate, with its chain, and of its key. They belong together."""

    chain: bytes
    key: bytes

    @classmethod
    def read(cls, path: str, key_path: str) -> "Certificate":
        """Read both files. UserError when one cannot be read, or they are no certificate and its key."""
        found = cls(_content("certificate", path), _content("certificate_key", key_path))
        _check_pair(path, key_path)
        return found

    def paths(self, directory: Path) -> tuple[Path, Path]:
        """Return where `place` has certificate and key."""
        digest = hashlib.sha256(self.chain + b"\0" + self.key).hexdigest()[:16]
        return directory / f"tls-{digest}.crt", directory / f"tls-{digest}.key"

    def place(self, directory: Path) -> None:
        """Copy both into a directory, the key for its owner alone."""
        for path, content in zip(self.paths(directory), (self.chain, self.key), strict=True):
            unfinished = path.with_suffix(f"{path.suffix}.new")
            unfinished.unlink(missing_ok=True)
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(content)
            unfinished.replace(path)


def forget_others(directory: Path, certificate: Certificate | None) -> None:
    """Remove the copies of every other certificate from a directory."""
    kept = certificate.paths(directory) if certificate else ()
    for path in directory.glob("tls-*"):
        if path not in kept:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _content(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{name}: cannot read {path}: {error.strerror}") from error


def _check_pair(path: str, key_path: str) -> None:
    import ssl  # 15 ms that a front without TLS need not pay

    try:  # an empty password: it would be asked for at the terminal otherwise, and nginx has nobody to ask
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key_path, password="")
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise UserError(f"certificate_key: {key_path} is not the key of the certificate {path}") from error
        raise UserError(f"certificate, certificate_key: {path} and {key_path} {_NEITHER}") from error
