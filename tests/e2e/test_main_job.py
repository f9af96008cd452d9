"""The main job with the real network: export ResNet-50, deploy, five labels, throughput."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.e2e.deployment import NAME, ROOT, Cortex, copy_project, post, sample

pytestmark = pytest.mark.e2e


README = (ROOT / "README.md").read_text()


def readme_block(title: str) -> list[str]:
    """Return the commands of the README's section."""
    section = README.split(f"## {title}\n", 1)[1]
    return section.split("```bash\n", 1)[1].split("```", 1)[0].splitlines()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user would have, but for the model."""
    return copy_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def endpoint(cortex: Cortex, project: Path) -> Iterator[str]:
    """Deploy with the README's own commands; random weights, since no download can be relied on."""
    export, deploy, _ = readme_block("Deploy it by hand")
    cortex.shell(f"{export} --weights random", cwd=project)
    assert "random weights" in cortex.shell(deploy, cwd=project), "whoever deploys must be told what labels mean"
    yield str(cortex.get()["endpoint"])
    cortex("delete", NAME)


def test_the_readmes_curl(cortex: Cortex, endpoint: str) -> None:
    """The third command of the README answers with five labels."""
    if shutil.which("curl") is None:
        pytest.skip("this machine has no curl")
    curl = readme_block("Deploy it by hand")[2]
    assert "http://localhost:8888" in curl
    printed = cortex.shell(curl.replace("http://localhost:8888", f"{endpoint} --silent"), cwd=ROOT)
    assert len(json.loads(printed)) == 5


def test_the_readmes_throughput_test(cortex: Cortex, endpoint: str) -> None:
    """The README's measuring command, for a shorter time."""
    [command] = readme_block("Measure it")
    assert " -i 30 " in command
    command = command.replace("-i 30", "-i 2").replace("http://localhost:8888", endpoint)
    assert re.search(r"[1-9][0-9.]* inferences/s", cortex.shell(command, cwd=ROOT))


def test_json_of_one_picture(endpoint: str) -> None:
    """The request of sample.json: a flat list of five labels."""
    labels = post(endpoint, sample()).json()
    assert [type(label) for label in labels] == [str] * 5


def test_json_of_two_pictures(endpoint: str) -> None:
    """Several pictures: a list of lists, in their order."""
    one = post(endpoint, sample()).json()
    both = post(endpoint, {"imgs": sample()["imgs"] * 2}).json()
    assert both == [one, one]


def test_a_form_with_a_picture(endpoint: str) -> None:
    """The form of the Flask API: predictions with probabilities, highest first."""
    with (ROOT / "export/cat.jpg").open("rb") as image:
        answer = requests.post(endpoint, files={"image": image}, timeout=60).json()
    assert answer["success"] is True
    probabilities = [row["probability"] for row in answer["predictions"]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert [row["label"] for row in answer["predictions"]] == post(endpoint, sample()).json()


def test_a_raw_picture(endpoint: str) -> None:
    """The body may be the picture itself."""
    body = (ROOT / "export/cat.jpg").read_bytes()
    answer = requests.post(endpoint, data=body, headers={"content-type": "image/jpeg"}, timeout=60)
    assert answer.json() == post(endpoint, sample()).json()


def test_random_weights_are_told_wherever_one_looks(cortex: Cortex, endpoint: str) -> None:
    """In `cortex get`, and in the summary on GET."""
    assert "random weights" in cortex("get", NAME)
    assert "random weights" in requests.get(endpoint, timeout=10).text


def test_throughput_test(endpoint: str) -> None:
    """The tester's command line, with its arguments from the environment."""
    done = subprocess.run(
        [sys.executable, "throughput_test.py", "-w", "2", "-t", "2", "-s", "3"],
        cwd=ROOT,
        env={"PATH": "", "IMG_URL": "export/cat.jpg", "ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"inferences/s", done.stdout), done.stdout
    assert "12" in done.stdout


def test_the_deployment_is_small(cortex: Cortex, endpoint: str) -> None:
    """Supervisor, worker and model server share 900 MB; nobody pays for TensorFlow."""
    assert post(endpoint, sample()).status_code == 200
    family = [psutil.Process(pid) for pid in cortex.family()]
    assert len(family) == 3, [process.cmdline() for process in family]
    used = sum(process.memory_full_info().pss for process in family)
    assert used < 900e6, f"{used / 1e6:.0f} MB"
