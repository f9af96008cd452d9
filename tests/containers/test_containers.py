"""The three environments for real: images built, compose up, nginx in front, and the same answers everywhere.

Run by ``scripts/test-containers``: it takes minutes, a Docker engine, and the base images that deploy/ names.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml

import cortex
from tests.containers.deployment import Load, Place, docker, throughput_test
from tests.e2e.deployment import NAME, ROOT, sample
from tests.waiting import until

pytestmark = [
    pytest.mark.skipif(not os.environ.get("CORTEX_TEST_CONTAINERS"), reason="run by scripts/test-containers"),
    pytest.mark.timeout(1800),
]
LARGEST = {"cortex-api": 350_000_000, "cortex-model-server": 650_000_000}
"""Bytes over the base image."""


def test_images_are_small(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """What an image adds to its base is under its limit."""
    base = int(docker("image", "inspect", "--format", "{{.Size}}", "python:3.11-slim"))
    for name, limit in LARGEST.items():
        size = int(docker("image", "inspect", "--format", "{{.Size}}", f"{name}:{cortex.__version__}")) - base
        with capsys.disabled():
            print(f"\n{name}: {size / 1e6:.0f} MB over its base of {base / 1e6:.0f} MB (limit {limit / 1e6:.0f} MB)")
        assert size < limit


def test_images_have_what_they_need_and_no_more(place: Place) -> None:
    """No TensorFlow in the API's image, no compiler in any, an ordinary user, a health check, labels."""
    for name in LARGEST:
        image = f"{name}:{cortex.__version__}"
        config = json.loads(docker("image", "inspect", image))[0]["Config"]
        assert config["User"] == "10001:10001"
        assert config["Healthcheck"]["Test"]
        assert config["Labels"]["org.opencontainers.image.title"] == name
        script = "! command -v gcc && ! python -c 'import tensorflow' 2>/dev/null && ! test -w /opt/cortex"
        docker("run", "--rm", "--read-only", "--entrypoint", "sh", image, "-c", script)


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


@pytest.mark.parametrize("killed", ["-api-0", "-model-server-0", "front"])
def test_a_container_that_is_killed_comes_back(killed: str, place: Place) -> None:
    """Docker starts it again, and the API answers as before."""
    ((_, row),) = place.containers(killed).items()
    subprocess.run(["docker", "exec", row["Id"], "sh", "-c", "kill -9 -1"])
    until(lambda: next(iter(place.containers(killed).values()))["RestartCount"] > row["RestartCount"])
    until(lambda: _answers(place.url))


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):  # while there is no front
        return requests.post(url, json=sample(), timeout=60).status_code == 200
    return False


def _keeps_idle() -> bool:
    """Tell whether the front's nginx can reload without closing idle connections."""
    argv = ["docker", "run", "--rm", "--entrypoint", "nginx", "nginx:stable", "-v"]
    version = subprocess.run(argv, check=True, capture_output=True, text=True).stderr.strip().rpartition("/")[2]
    return tuple(map(int, version.split("."))) >= (1, 27, 4)


def test_an_update_loses_no_request(place: Place, project: Path) -> None:
    """The new run takes over while clients post; also when the number of workers changes, which nginx has to learn."""
    config = project / "cortex_cpu.yaml"
    text = config.read_text()
    try:
        for old, new in (("threads_per_process: 8", "threads_per_process: 4"), ("replica: 1", "replica: 2")):
            config.write_text(text.replace(old, new))
            with Load(place.url) as load:
                until(lambda load=load: load.counts[200] > 20)
                assert "updating" in place.cortex("deploy", config, "--env", "docker")
                seen = load.counts[200]
                until(lambda load=load, seen=seen: load.counts[200] > seen + 20)
            assert set(load.counts) == {200}, load.counts
            assert load.idle_closed <= (0 if _keeps_idle() else load.clients), "nginx reloads once"
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


@pytest.fixture
def two_replicas(place: Place, project: Path) -> Iterator[Path]:
    """The yaml of the example with two replicas, deployed to a front that may repeat posts."""
    config, settings = project / "cortex_cpu.yaml", place.home / "cli.yaml"
    text, before = config.read_text(), settings.read_text()
    document = yaml.safe_load(before)
    document["environments"][0]["retry_posts"] = "true"
    settings.write_text(yaml.safe_dump(document))
    try:
        config.write_text(f"{text}\n  autoscaling:\n    min_replicas: 2\n")
        place.cortex("deploy", config, "--env", "docker")
        yield config
    finally:
        config.write_text(text)
        settings.write_text(before)


def _under_way(place: Place) -> None:
    """Wait until a load test is answered."""
    before = place.answered()
    until(lambda: place.answered() > before + 20)


def test_throughput_while_a_replica_dies_and_an_update_rolls(place: Place, two_replicas: Path, tmp_path: Path) -> None:
    """Not one request of a load test fails while a replica is killed, nor while all are replaced."""
    assert len(place.containers("-api-0")) == 2
    with throughput_test(place.url, tmp_path / "killed.json") as test:
        _under_way(place)
        row = next(row for service, row in place.containers("-1-api-0").items())
        subprocess.run(["docker", "exec", row["Id"], "sh", "-c", "kill -9 -1"])
        until(lambda: next(iter(place.containers("-1-api-0").values()))["RestartCount"] == 1)
        assert test.poll() is None, "the load had ended before the replica was back"
        assert test.wait() == 0, test.stdout and test.stdout.read()
    with throughput_test(place.url, tmp_path / "updated.json") as test:
        _under_way(place)
        assert "updating" in place.cortex("refresh", NAME, "--env", "docker")
        assert test.wait() == 0, test.stdout and test.stdout.read()
    for name in ("killed", "updated"):
        assert json.loads((tmp_path / f"{name}.json").read_text())
