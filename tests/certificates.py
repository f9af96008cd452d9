"""Certificates of this machine, made anew for a test."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Files:
    """A certificate for localhost and 127.0.0.1, its key, and whom a client must trust for it; all in PEM."""

    certificate: Path
    key: Path
    authority: Path

    @property
    def settings(self) -> tuple[str, ...]:
        """What `cortex env configure` is told of them."""
        return ("--set", f"certificate={self.certificate}", "--set", f"certificate_key={self.key}")


def issue(directory: Path, name: str = "tls") -> Files:
    """Write a certificate that nobody else has; files of the same name are replaced."""
    found = Files(*(directory / f"{name}.{suffix}" for suffix in ("crt", "key", "ca")))
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(found.certificate)
    issued.private_key_pem.write_to_path(found.key)
    authority.cert_pem.write_to_path(found.authority)
    return found
