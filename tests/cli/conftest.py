"""The `cortex` command in this process and in one of its own, over environments that say what a test wants."""

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cortex.cli import main
from cortex.environments.registry import Registry

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Ran:
    """What a command came to. ``out`` is without the blank line that it must begin with."""

    code: int
    out: str
    err: str


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module of fake environments, each with a fresh world."""
    monkeypatch.syspath_prepend(_HERE)
    import fake_environment

    monkeypatch.setattr(fake_environment.FakeLocal, "world", fake_environment.World())
    monkeypatch.setattr(fake_environment.FakeDocker, "world", fake_environment.World(apis=[]))
    return fake_environment


@pytest.fixture
def world(fakes: Any) -> Any:
    """Return what the local environment says and was asked."""
    return fakes.FakeLocal.world


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".cortex"


@pytest.fixture
def registry(home: Path, fakes: Any) -> Registry:
    return Registry(home, fakes.PROVIDERS)


@pytest.fixture
def cortex(registry: Registry, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Return a function that runs one command line in this process."""

    def run(*arguments: object) -> Ran:
        code = main([str(argument) for argument in arguments], registry)
        out, err = capsys.readouterr()
        assert out.startswith("\n")
        return Ran(code, out[1:], err)

    return run


@pytest.fixture
def start(home: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts one command line as a process; the caller ends it."""

    def popen(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        env = {**os.environ, "CORTEX_HOME": str(home), "PYTHONPATH": str(_HERE), **options.pop("env", {})}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen([sys.executable, _HERE / "fake_cortex.py", *arguments], env=env, text=True, **pipes)

    return popen


class _Server:
    """Answer every request on a free port with one body, and remember what was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None, bytes]] = []
        self._servers: list[ThreadingHTTPServer] = []

    def __call__(
        self, body: str, *, status: int = 200, content_type: str = "text/plain", tls: ssl.SSLContext | None = None
    ) -> str:
        """Start answering, and return the URL."""
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                requests.append((self.command, self.headers.get("Content-Type"), self.rfile.read(length)))
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.socket = tls.wrap_socket(server.socket, server_side=True) if tls else server.socket
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    """Return a function that starts an HTTP server; a proxy that leads nowhere stands in the environment."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server = _Server()
    try:
        yield server
    finally:
        server.close()
