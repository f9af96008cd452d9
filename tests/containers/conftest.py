"""One deployment in containers for all tests of this folder: to build and start it takes minutes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.containers.deployment import Place, docker
from tests.e2e.deployment import NAME, ROOT, copy_project
from tests.ports import free_port


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's own project, with a small model where ResNet-50 would be."""
    models = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, ROOT / "tests/e2e/make_models.py", models], check=True, capture_output=True)
    return copy_project(tmp_path_factory.mktemp("project"), models / "colours")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Iterator[Place]:
    """The example, deployed with `cortex deploy --env docker`."""
    port = free_port()
    found = Place(tmp_path_factory.mktemp("home"), port)
    row = {"name": "docker", "provider": "docker", "host": "127.0.0.1", "port": str(port)}
    (found.home / "cli.yaml").write_text(yaml.safe_dump({"default_environment": "local", "environments": [row]}))
    try:
        found.cortex("deploy", project / "cortex_cpu.yaml", "--env", "docker")
        yield found
        found.cortex("delete", NAME, "--env", "docker")
        assert not found.containers()
        assert found.project not in docker("volume", "ls", "--format", "{{.Name}}")
        assert not (found.home / "environments/docker/compose.yaml").exists()
    finally:
        ids = docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={found.project}").split()
        if ids:
            docker("rm", "--force", "--volumes", *ids)
