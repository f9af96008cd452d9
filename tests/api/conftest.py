"""Real workers, each a process on a listening socket that the test owns, and the model server that they may need."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from cortex.notify import parse
from cortex.spec import APISpec
from tests.waiting import DEADLINE, until

FAKE_MODEL_SERVER = Path(__file__).parents[1] / "model_client" / "fake_model_server.py"
COMMAND = (sys.executable, "-P", "-m", "cortex.api.server")


@dataclass
class Started:
    """One worker process: what it said to its supervisor, what it logged, and how to reach it."""

    process: subprocess.Popen
    url: str
    log_path: Path
    notifications: socket.socket
    said: list = field(default_factory=list)

    @property
    def log(self):
        return self.log_path.read_text()

    def await_ready(self):
        """Return once the worker said that it is ready."""
        self.await_said(lambda lines: lines.get("READY") == "1")
        return self

    def await_said(self, wanted):
        """Return the first notification that is wanted; fail when the worker ends or the deadline passes before."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                lines = parse(self.notifications.recv(4096))
                self.said.append(lines)
                if wanted(lines):
                    return lines
                continue
            if self.process.poll() is not None:
                break
        raise AssertionError(f"the worker did not get there; it said {self.said} and logged:\n{self.log}")

    def await_log(self, text):
        """Return the log once it has the text."""
        until(lambda: text in self.log, lambda: f"no {text!r} in the log:\n{self.log}")
        return self.log

    def post(self, data=None, **options):
        return requests.post(self.url + "/", data=data, timeout=DEADLINE, **options)


class Workers:
    """Start workers, and end whatever is left of them."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.sockets = []

    def listen(self):
        """Return a listening socket of this test's own, which several workers may share."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.sockets.append(listener)
        return listener

    def start(self, predictor, spec=None, files=None, *, listener=None, model_server=None, env=None, number=0):
        """Start one worker of a project that has this predictor.py; ``spec`` is merged into a minimal one."""
        project = self.folder / f"project-{len(self.processes)}"
        project.mkdir()
        for name, text in {"predictor.py": predictor, **(files or {})}.items():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(text)
        listener = listener or self.listen()
        notifications = self._notifications(project)
        arguments = [*COMMAND, "--spec", str(_spec(project, spec)), "--worker", str(number)]
        if model_server:
            arguments += ["--model-server", model_server]
        log_path = project / "log"
        with log_path.open("w") as log:
            process = subprocess.Popen(
                arguments,
                cwd=project,
                env={
                    **os.environ,
                    "CORTEX_LISTEN_FD": str(listener.fileno()),
                    "NOTIFY_SOCKET": notifications.getsockname(),
                    **(env or {}),
                },
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        host, port = listener.getsockname()
        return Started(process, f"http://{host}:{port}", log_path, notifications)

    def start_model_server(self, config, address=None):
        """Start a model server that echoes; return its process and its address."""
        path = Path(address.removeprefix("unix:")) if address else self.folder / f"grpc-{len(self.processes)}.sock"
        config_path = path.with_suffix(".json")
        config_path.write_text(json.dumps(config))
        process = subprocess.Popen([sys.executable, FAKE_MODEL_SERVER, path, config_path])
        self.processes.append(process)
        return process, f"unix:{path}"

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        for sock in self.sockets:
            sock.close()

    def _notifications(self, project):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(project / "notify"))
        sock.settimeout(0.1)
        self.sockets.append(sock)
        return sock


def _spec(project, given):
    given = dict(given or {})
    predictor = {"type": "python", "path": "predictor.py", **given.pop("predictor", {})}
    path = project.with_suffix(".json")
    spec = APISpec.model_validate_json(json.dumps({"name": "api", "predictor": predictor, **given}))
    path.write_text(spec.model_dump_json())
    return path


@pytest.fixture
def workers(tmp_path):
    """Workers of one test."""
    workers = Workers(tmp_path)
    yield workers
    workers.close()


@pytest.fixture(scope="module")
def module_workers(tmp_path_factory):
    """Workers that a whole module shares."""
    workers = Workers(tmp_path_factory.mktemp("workers"))
    yield workers
    workers.close()
