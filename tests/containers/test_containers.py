"""The three environments for real: images built, compose up, nginx in front, and the same answers everywhere.

Run by ``scripts/test-containers``: it takes minutes, a Docker engine, and the base images that deploy/ names.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

import cortex
from cortex.environments.docker import DockerEnvironment
from tests.e2e.deployment import CORTEX, NAME, ROOT, copy_project, sample

pytestmark = [
    pytest.mark.skipif(not os.environ.get("CORTEX_TEST_CONTAINERS"), reason="run by scripts/test-containers"),
    pytest.mark.timeout(1800),
]
LARGEST = {"cortex-api": 350_000_000, "cortex-model-server": 650_000_000}
"""Bytes over the base image."""


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

    def containers(self, name: str = "") -> dict[str, dict[str, Any]]:
        """Return what Docker says of this home's containers whose service ends so, by service."""
        ids = _docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}").split()
        rows = json.loads(_docker("inspect", *ids)) if ids else []
        found = {row["Config"]["Labels"]["com.docker.compose.service"]: row for row in rows}
        return {service: row for service, row in found.items() if service.endswith(name)}


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def _until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's own project, with a small model where ResNet-50 would be."""
    models = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, ROOT / "tests/e2e/make_models.py", models], check=True, capture_output=True)
    return copy_project(tmp_path_factory.mktemp("project"), models / "colours")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Iterator[Place]:
    """The example, deployed with `cortex deploy --env docker`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = Place(tmp_path_factory.mktemp("home"), port)
    row = {"name": "docker", "provider": "docker", "host": "127.0.0.1", "port": str(port)}
    (found.home / "cli.yaml").write_text(yaml.safe_dump({"default_environment": "local", "environments": [row]}))
    try:
        found.cortex("deploy", project / "cortex_cpu.yaml", "--env", "docker")
        yield found
        found.cortex("delete", NAME, "--env", "docker")
        assert not found.containers()
        assert found.project not in _docker("volume", "ls", "--format", "{{.Name}}")
        assert not (found.home / "environments/docker/compose.yaml").exists()
    finally:
        ids = _docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={found.project}").split()
        if ids:
            _docker("rm", "--force", "--volumes", *ids)


@dataclass
class Load:
    """Clients that post the sample over kept connections, again and again, until they are told to stop."""

    url: str
    clients: int = 4
    counts: Counter[object] = field(default_factory=Counter)

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
                try:
                    self.counts[session.post(self.url, json=sample(), timeout=60).status_code] += 1
                except requests.RequestException as error:
                    self.counts[repr(error)] += 1


def test_images_are_small(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """What an image adds to its base is under its limit."""
    base = int(_docker("image", "inspect", "--format", "{{.Size}}", "python:3.11-slim"))
    for name, limit in LARGEST.items():
        size = int(_docker("image", "inspect", "--format", "{{.Size}}", f"{name}:{cortex.__version__}")) - base
        with capsys.disabled():
            print(f"\n{name}: {size / 1e6:.0f} MB over its base of {base / 1e6:.0f} MB (limit {limit / 1e6:.0f} MB)")
        assert size < limit


def test_images_have_what_they_need_and_no_more(place: Place) -> None:
    """No TensorFlow in the API's image, no compiler in any, an ordinary user, a health check, labels."""
    for name in LARGEST:
        image = f"{name}:{cortex.__version__}"
        config = json.loads(_docker("image", "inspect", image))[0]["Config"]
        assert config["User"] == "10001:10001"
        assert config["Healthcheck"]["Test"]
        assert config["Labels"]["org.opencontainers.image.title"] == name
        script = "! command -v gcc && ! python -c 'import tensorflow' 2>/dev/null && ! test -w /opt/cortex"
        _docker("run", "--rm", "--read-only", "--entrypoint", "sh", image, "-c", script)


def test_the_same_answer_as_without_containers(place: Place, project: Path) -> None:
    """The sample's answer through nginx and containers is that of processes on this machine, to the last digit."""
    place.cortex("deploy", project / "cortex_cpu.yaml", "--env", "local")
    try:
        local = json.loads(place.cortex("get", NAME, "--env", "local", "-o", "json"))[0]["endpoint"]
        picture = (ROOT / "export/cat.jpg").read_bytes()
        for send in (
            lambda url: requests.post(url, json=sample(), timeout=60),
            lambda url: requests.post(url, files={"image": picture}, timeout=60),
        ):
            expected, found = send(local), send(f"{place.url}/predict")
            assert expected.status_code == found.status_code == 200
            assert found.json() == expected.json()
    finally:
        place.cortex("delete", NAME, "--env", "local")


def test_the_tutorials_own_request(place: Place) -> None:
    """`curl -F image=@husky.jpg http://localhost/predict` has the answer that it always had."""
    image = f"image=@{ROOT / 'export/cat.jpg'}"
    curl = subprocess.run(["curl", "-sSf", "-F", image, f"{place.url}/predict"], capture_output=True, text=True)
    answer = json.loads(curl.stdout)
    assert answer["success"] is True
    assert len(answer["predictions"]) == 5
    assert set(answer["predictions"][0]) == {"label", "probability"}


def test_the_endpoint_and_what_is_told_of_it(place: Place) -> None:
    """`cortex get` tells the endpoint, the containers and the counts."""
    (told,) = json.loads(place.cortex("get", NAME, "--env", "docker", "-o", "json"))
    assert told["endpoint"] == f"http://localhost:{place.port}/{NAME}"
    assert requests.post(told["endpoint"], json=sample(), timeout=60).status_code == 200
    assert told["status"]["status_code"] == "status_live"
    assert "POST" in place.cortex("logs", NAME, "--env", "docker", "--no-follow")


@pytest.mark.parametrize("killed", ["-api-0", "-model-server-0"])
def test_a_container_that_is_killed_comes_back(killed: str, place: Place) -> None:
    """Docker starts it again, and the API answers as before."""
    ((_, row),) = place.containers(killed).items()
    subprocess.run(["docker", "exec", row["Id"], "sh", "-c", "kill -9 -1"])
    _until(lambda: next(iter(place.containers(killed).values()))["RestartCount"] > row["RestartCount"])
    _until(lambda: requests.post(place.url, json=sample(), timeout=60).status_code == 200)


def test_an_update_loses_no_request(place: Place, project: Path) -> None:
    """The new run takes over while clients post; also when the number of workers changes, which nginx has to learn."""
    config = project / "cortex_cpu.yaml"
    text = config.read_text()
    try:
        for old, new in (("threads_per_process: 8", "threads_per_process: 4"), ("replica: 1", "replica: 2")):
            config.write_text(text.replace(old, new))
            with Load(place.url) as load:
                _until(lambda load=load: load.counts[200] > 20)
                assert "updating" in place.cortex("deploy", config, "--env", "docker")
                seen = load.counts[200]
                _until(lambda load=load, seen=seen: load.counts[200] > seen + 20)
            assert set(load.counts) == {200}, load.counts
    finally:
        config.write_text(text)


def test_an_update_that_fails_changes_nothing(place: Place, project: Path) -> None:
    """The API goes on as it was, and its owner is told why."""
    broken = project / "broken.py"
    broken.write_text(
        "class TensorFlowPredictor:\n"
        "    def __init__(self, tensorflow_client, config): 1 / 0\n"
        "    def predict(self, payload): pass\n"
    )
    config = project / "cortex_cpu.yaml"
    text = config.read_text()
    before = set(place.containers())
    try:
        config.write_text(text.replace("path: predictor.py", "path: broken.py"))
        with Load(place.url) as load:
            assert "division by zero" in place.cortex("deploy", config, "--env", "docker", code=1)
        assert set(load.counts) == {200}, load.counts
    finally:
        config.write_text(text)
        broken.unlink()
    assert set(place.containers()) == before
    (told,) = json.loads(place.cortex("get", NAME, "--env", "docker", "-o", "json"))
    assert told["status"]["status_code"] == "status_live"
    assert any("division by zero" in notice for notice in told["notices"])


def test_two_replicas_one_of_which_dies(place: Place, project: Path) -> None:
    """With posts that may be repeated no request fails when a replica is killed; the counts go on."""
    config = project / "cortex_cpu.yaml"
    text = config.read_text()
    settings = place.home / "cli.yaml"
    document = yaml.safe_load(settings.read_text())
    document["environments"][0]["retry_posts"] = "true"
    settings.write_text(yaml.safe_dump(document))
    try:
        config.write_text(f"{text}\n  autoscaling:\n    min_replicas: 2\n")
        place.cortex("deploy", config, "--env", "docker")
        assert len(place.containers("-api-0")) == 2
        with Load(place.url) as load:
            _until(lambda: load.counts[200] > 20)
            row = next(row for service, row in place.containers("-1-api-0").items())
            subprocess.run(["docker", "exec", row["Id"], "sh", "-c", "kill -9 -1"])
            _until(lambda: next(iter(place.containers("-1-api-0").values()))["RestartCount"] == 1)
            seen = load.counts[200]
            _until(lambda: load.counts[200] > seen + 50)
        assert set(load.counts) == {200}, load.counts
    finally:
        config.write_text(text)
