"""A CORTEX_HOME whose docker environment is real, and load on it."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from cortex.environments.docker.environment import DockerEnvironment
from tests.e2e.deployment import CORTEX, NAME, ROOT, sample


@dataclass
class Place:
    """One CORTEX_HOME with a docker environment behind a port of its own."""

    home: Path
    port: int

    def cortex(self, *arguments: object, code: int = 0) -> str:
        env = {**os.environ, "CORTEX_HOME": str(self.home), "CORTEX_HOST": "127.0.0.1", "NO_COLOR": "1"}
        argv = [CORTEX, *map(str, arguments)]
        done = subprocess.run(argv, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == code, done.stdout
        return done.stdout

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def project(self) -> str:
        return DockerEnvironment(self.home, {})._engine.project

    def answered(self) -> int:
        """Return how many requests the live run of the example has answered."""
        (told,) = json.loads(self.cortex("get", NAME, "--env", "docker", "-o", "json"))
        return int(told["metrics"]["network_stats"]["total"])

    def containers(self, name: str = "") -> dict[str, dict[str, Any]]:
        """Return what Docker says of this home's containers whose service ends so, by service."""
        ids = docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}").split()
        rows = json.loads(docker("inspect", *ids)) if ids else []
        found = {row["Config"]["Labels"]["com.docker.compose.service"]: row for row in rows}
        return {service: row for service, row in found.items() if service.endswith(name)}


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


@dataclass
class Load:
    """Clients that post the sample over kept connections, again and again, until they are told to stop.

    An nginx before 1.27.4 that reloads closes the connections that are idle. What a client sends on one at that moment
    nobody reads, and the client, which sees it end without a byte, sends it once more: ``idle_closed`` counts these.
    """

    url: str
    clients: int = 4
    counts: Counter[object] = field(default_factory=Counter)
    idle_closed: int = 0

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                was_kept = bool(self.counts[200])
                outcome = self._post(session)
                if was_kept and "RemoteDisconnected" in str(outcome):
                    self.idle_closed += 1
                    outcome = self._post(session)
                self.counts[outcome] += 1

    def _post(self, session: requests.Session) -> object:
        try:
            return session.post(self.url, json=sample(), timeout=60).status_code
        except requests.RequestException as error:
            return repr(error)


def throughput_test(url: str, report: Path, seconds: int = 20) -> "subprocess.Popen[str]":
    """Start the load tester; it ends with exit code 1 when a single request failed."""
    argv = [sys.executable, ROOT / "throughput_test.py", ROOT / "export/cat.jpg", url, "-i", str(seconds), "-t", "4"]
    argv += ["--assert", "errors<0.000001%", "--json", report]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
