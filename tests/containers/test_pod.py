"""The pod that the Kubernetes manifests describe, run for real by podman: the same code, images and answer.

Podman is no cluster. What it cannot do is left out here, not in the manifests: probes, published ports, what spreads
pods, and every object but the Deployment and its ConfigMaps. The pod has no network; requests are made inside it.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

import cortex
from tests.containers.deployment import Place
from tests.e2e.deployment import NAME, sample
from tests.waiting import until

pytestmark = [
    pytest.mark.skipif(not os.environ.get("CORTEX_TEST_CONTAINERS"), reason="run by scripts/test-containers"),
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed"),
    pytest.mark.timeout(900),
]
_CONTAINER = f"{NAME}-pod-0-api"
_IMAGES = ("cortex-api", "cortex-model-server")
_ASK = """\
import sys, urllib.request
kind = {"Content-Type": "application/json"}
request = urllib.request.Request("http://127.0.0.1:8888/", sys.stdin.buffer.read(), kind)
sys.stdout.buffer.write(urllib.request.urlopen(request, timeout=60).read())
"""


def _podman(*arguments: object, given: str = "", check: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(["podman", *map(str, arguments)], input=given, capture_output=True, text=True)
    assert done.returncode == 0 or not check, done.stderr
    return done


def _for_podman(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what podman can run of the manifests of an API."""
    kept = [document for document in documents if document["kind"] in ("ConfigMap", "Deployment")]
    (deployment,) = (document for document in kept if document["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    pod.pop("topologySpreadConstraints")
    for container in pod["containers"]:
        container["imagePullPolicy"] = "Never"
        for key in ("ports", "startupProbe", "readinessProbe", "livenessProbe"):
            container.pop(key, None)
    return kept


@pytest.fixture
def pod(place: Place, project: Path, tmp_path: Path) -> Iterator[str]:
    """The pod of `cortex render`, once all of its workers are ready; gone after the test."""
    environment = {"name": "nodes", "provider": "kubernetes", "local_models": "node"}
    settings = place.home / "cli.yaml"
    document = yaml.safe_load(settings.read_text())
    settings.write_text(yaml.safe_dump({**document, "environments": [*document["environments"], environment]}))
    for name in _IMAGES:
        archive = tmp_path / f"{name}.tar"
        subprocess.run(["docker", "save", "--output", archive, f"{name}:{cortex.__version__}"], check=True)
        _podman("load", "--input", archive)
        archive.unlink()
    file = tmp_path / "pod.yaml"
    manifests = place.cortex("render", "nodes", project / "cortex_cpu.yaml")
    file.write_text(yaml.safe_dump_all(_for_podman(list(yaml.safe_load_all(manifests))), sort_keys=False))
    try:
        _podman("play", "kube", "--network", "none", file)
        until(lambda: _podman("exec", _CONTAINER, "test", "-e", "/run/cortex/ready", check=False).returncode == 0)
        yield _CONTAINER
    finally:
        _podman("play", "kube", "--down", file, check=False)
        maps = [row["metadata"]["name"] for row in yaml.safe_load_all(manifests) if row["kind"] == "ConfigMap"]
        _podman("volume", "rm", *maps, check=False)
        _podman("image", "rm", *(f"localhost/{name}:{cortex.__version__}" for name in _IMAGES), check=False)
        settings.write_text(yaml.safe_dump(document))


def test_the_pod_answers_as_the_others_do(place: Place, pod: str) -> None:
    """The sample's answer is that of the containers behind nginx, which is that of this machine's processes."""
    answer = _podman("exec", "-i", pod, "python", "-c", _ASK, given=json.dumps(sample())).stdout
    assert json.loads(answer) == requests.post(place.url, json=sample(), timeout=60).json()
