"""The systems that are compared. Each starts when its context is entered, and leaves no process when it is left."""

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from benchmark import gunicorn_conf, processes
from cortex.errors import UserError

_ROOT = Path(__file__).parents[1]
_CORTEX = Path(sys.executable).with_name("cortex")
_SECONDS_TO_START = 300
_SOCKET_FLAG = "--grpc_socket_path="
_UVICORN_READY = "Uvicorn running on"


class Reference:
    """A server that is no deployment: one command of Python, ready once its log says so for the last time."""

    def __init__(self, name: str, module: Sequence[str], url: str, ready: str, times: int = 1) -> None:
        self.name = name
        self.url = url
        self._command = [sys.executable, "-m", *module]
        self._ready = ready
        self._times = times

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        # A group of its own keeps Ctrl-C from it: leaving this context ends it.
        self._process = subprocess.Popen(self._command, cwd=_ROOT, stdout=self._log, stderr=self._log, process_group=0)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        processes.end_child(self._process)
        self._log.close()

    def processes(self) -> list[psutil.Process]:
        return processes.family(self._process.pid)

    def _wait(self) -> None:
        deadline = time.monotonic() + _SECONDS_TO_START
        while self._said().count(self._ready) < self._times:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"{self.name} did not start; the last it said:\n{self._said()[-8000:]}")
            time.sleep(0.1)

    def _said(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")  # the offset is the writers' too


class FlaskAPI(Reference):
    """Flask, Gunicorn with three workers, Keras predict."""

    def __init__(self, app: str = "benchmark.flask_api:app") -> None:
        host = f"127.0.0.1:{processes.free_port()}"
        module = ("gunicorn", "--config", "python:benchmark.gunicorn_conf", "--bind", host, app)
        # every worker has to load its model
        super().__init__(
            "the Flask reference", module, f"http://{host}/predict", gunicorn_conf.READY, gunicorn_conf.workers
        )


class OneProcess(Reference):
    """uvicorn and OpenVINO in one process, with the model of one directory, compiled for so many clients."""

    def __init__(self, directory: Path, precision: str, clients: int) -> None:
        port = processes.free_port()
        module = ("benchmark.one_process", str(directory.resolve()), precision, str(clients), str(port))
        super().__init__("the one process of uvicorn and OpenVINO", module, f"http://127.0.0.1:{port}/", _UVICORN_READY)


class OneProcessGrpc(Reference):
    """grpcio and OpenVINO in one process, with the model of one directory, on a socket without a file."""

    def __init__(self, directory: Path, precision: str) -> None:
        address = f"unix-abstract:cortex-benchmark-{uuid.uuid4()}"
        module = ("benchmark.one_process_grpc", str(directory.resolve()), precision, address)
        super().__init__("the one process of gRPC and OpenVINO", module, address, "ready")


class Deployment:
    """One API of this project, deployed by its own command line into a home of its own.

    ``config`` is a yaml whose first API is meant. Entering deploys it; `deploy` and `delete` may be called again.
    """

    def __init__(self, config: Path, cortex: Path = _CORTEX) -> None:
        self._config = config
        self._cortex = cortex
        try:
            self._api = str(yaml.safe_load(config.read_text())[0]["name"])
        except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
            raise UserError(f"{config}: cannot read the name of its first API ({error})") from error

    def __enter__(self) -> "Deployment":
        self._home = tempfile.TemporaryDirectory(prefix="cortex-benchmark-")
        try:
            self.deploy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run("delete", self._api)
        except UserError:
            pass  # it was not there, or it is broken: what is left is ended below
        finally:
            processes.end(self.processes())
            self._home.cleanup()

    def deploy(self) -> float:
        """Deploy, and return the seconds until the API was live."""
        started = time.monotonic()
        self._run("deploy", str(self._config))
        seconds = time.monotonic() - started
        self.url = str(self._described()["endpoint"])
        return seconds

    def delete(self) -> None:
        """Delete the API and keep the cache of its model: the disk stays warm."""
        self._run("delete", self._api, "--keep-cache")

    def processes(self) -> list[psutil.Process]:
        """Return everything that runs for this deployment: the supervisor, the workers and the model server."""
        return processes.with_environment("CORTEX_HOME", self._home.name)

    def workers(self) -> list[psutil.Process]:
        """Return the processes that run the predictor."""
        return [process for process in self.processes() if "cortex.api.server" in process.cmdline()]

    def model_server_socket(self) -> str:
        """Return the path of the socket on which the workers ask the model server. Raises UserError without one."""
        words = [word for process in self.processes() for word in process.cmdline()]
        found = [word.partition("=")[2] for word in words if word.startswith(_SOCKET_FLAG)]
        if not found:
            raise UserError("the deployment has no model server with a socket")
        return found[0]

    def _described(self) -> dict[str, Any]:
        described = json.loads(self._run("get", self._api, "-o", "json"))
        return dict(described[0])

    def _run(self, *arguments: str) -> str:
        command = [str(self._cortex), *arguments]
        env = os.environ | {"CORTEX_HOME": self._home.name}
        try:
            done = subprocess.run(
                command, env=env, capture_output=True, text=True, timeout=_SECONDS_TO_START, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"cortex {' '.join(arguments)} took longer than {error.timeout:g} seconds") from error
        if done.returncode:
            raise UserError(f"cortex {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout
