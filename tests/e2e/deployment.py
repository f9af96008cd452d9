"""A real `cortex` in a home of its own, driven as a user drives it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

ROOT = Path(__file__).parents[2]
CORTEX = str(Path(sys.executable).with_name("cortex"))
NAME = "image-classifier-resnet50"


@dataclass
class Cortex:
    """The command line of one CORTEX_HOME."""

    home: Path

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "CORTEX_HOME": str(self.home), "CORTEX_HOST": "127.0.0.1", "NO_COLOR": "1"}

    def __call__(self, *arguments: object, code: int = 0, cwd: Path | None = None) -> str:
        """Run one command; return what it printed, both streams, after checking its exit code."""
        done = subprocess.run(
            [CORTEX, *map(str, arguments)],
            env=self.env,
            cwd=cwd,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        assert done.returncode == code, done.stdout
        return done.stdout.strip()

    def shell(self, command: str, cwd: Path) -> str:
        """Run one line of a README in a shell whose path has the project's environment; return what it printed."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = self.env | {"PATH": path, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, shell=True, env=env, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        """Start a command and return without waiting for it."""
        argv = [CORTEX, *map(str, arguments)]
        return subprocess.Popen(argv, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def get(self, name: str = NAME) -> dict[str, Any]:
        """Return what `cortex get NAME -o json` says of an API."""
        done = subprocess.run(
            [CORTEX, "get", name, "-o", "json"],
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)[0]
        return found

    def pids(self, name: str = NAME) -> dict[str, int]:
        """Return the pid of every process of an API by its name."""
        return {row["name"]: row["pid"] for row in self.status(name)["processes"]}

    def status(self, name: str = NAME) -> dict[str, Any]:
        """Return what the supervisor of an API says of it; reading that takes no time, as a command line does."""
        found: dict[str, Any] = json.loads((self.home / "apis" / name / "status.json").read_text())
        return found

    def family(self) -> set[int]:
        """Return the pids of every process that belongs to this home: its command names it, or its environment."""
        marked = f"{self.home}/"
        return {
            process.pid
            for process in psutil.process_iter()
            if any(marked in word for word in _cmdline(process)) or _home(process) == str(self.home)
        }

    def clean(self) -> None:
        """Delete every API, and hold that nothing is left of any."""
        for path in sorted((self.home / "apis").glob("*")):
            self("delete", path.name)
        assert not self.family(), "processes are left"
        assert not list(self.home.rglob("*.sock")), "sockets are left"


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.NoSuchProcess:
        return []


def _home(process: psutil.Process) -> str:
    try:
        return str(process.environ().get("CORTEX_HOME", ""))
    except psutil.Error:
        return ""


def copy_project(project: Path, model: Path | None = None) -> Path:
    """Copy what a user would have of this repository's example into an empty directory, with or without a model."""
    for name in ("cortex_cpu.yaml", "cortex_gpu.yaml", "cortex_accelerator.yaml", "predictor.py", "download.py"):
        shutil.copy(ROOT / name, project / name)
    (project / "export").mkdir()
    shutil.copy(ROOT / "export/imagenet_class_index.json", project / "export")
    if model is not None:
        shutil.copytree(model, project / "models/resnet50")
    return project


def sample() -> dict[str, Any]:
    """Return the request of sample.json."""
    found: dict[str, Any] = json.loads((ROOT / "sample.json").read_text())
    return found


def post(endpoint: str, body: Any, **options: Any) -> requests.Response:
    """Send one request on a connection of its own."""
    return requests.post(endpoint, json=body, timeout=60, **options)
