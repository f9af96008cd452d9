"""The server of these tests, and what is sent to it."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from cortex.loadtest import doors
from tests.loadtest.servers import Seen, picture_bytes, serve


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def endpoint(seen: Seen) -> Iterator[str]:
    with serve(seen) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def secure_endpoint(seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An https server whose authority this process and its children trust."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    doors._context.cache_clear()  # it read the authorities of this machine
    with serve(seen, tls) as port:
        yield f"https://localhost:{port}"
    doors._context.cache_clear()


@pytest.fixture
def closed_endpoint() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{closed.getsockname()[1]}"


@pytest.fixture
def picture_file(tmp_path: Path) -> Path:
    path = tmp_path / "picture.jpg"
    path.write_bytes(picture_bytes())
    return path
