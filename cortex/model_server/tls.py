"""TLS of the gRPC door, from the SSLConfig text proto of ``--ssl_config_file``."""

from pathlib import Path
from typing import Any

import grpc

from cortex.model_server import text_proto
from cortex.model_server.status import invalid

_FIELDS = {"server_key": "string", "server_cert": "string", "custom_ca": "string", "client_verify": "bool"}


def credentials(path: Path) -> Any:
    """Return gRPC's server credentials; ``client_verify`` asks every client for a certificate (mTLS).

    Raises StatusError (INVALID_ARGUMENT) for a file that is not an SSLConfig or lacks what it must hold.
    """
    config = text_proto.read(path, "SSLConfig", _FIELDS)
    for field in ("server_key", "server_cert", *(["custom_ca"] if config.client_verify else [])):
        if not getattr(config, field):
            raise invalid(f"{path}: {field} must not be empty")
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        config.custom_ca.encode() or None,
        config.client_verify,
    )
