"""A launch inside an image, with a stand-in for ``docker`` that does here what it is asked to do there."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]

Launch = Callable[..., "subprocess.CompletedProcess[str]"]

DOCKER = """#!{python}
import json, os, sys
from pathlib import Path
Path({calls!r}).write_text(json.dumps(sys.argv[1:]))
flags = [each.partition("=") for each in sys.argv if each.startswith("--")]
mounts = [value.split(":")[1] for flag, _, value in flags if flag == "--volume"]
if len(set(mounts)) < len(mounts):
    sys.exit("docker: Error response from daemon: Duplicate mount point")
variables = dict(value.split("=", 1) for flag, _, value in flags if flag == "--env")
os.chdir(next(value for flag, _, value in flags if flag == "--workdir"))
entrypoint = next(value for flag, _, value in flags if flag == "--entrypoint")
inside = dict(PATH=os.environ["PATH"]) | variables
os.execvpe(entrypoint, [entrypoint, *sys.argv[sys.argv.index("engine:1") + 1:]], inside)
"""


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """The environment of a launch that has the stand-in for ``docker``, whose arguments go to the file ``calls``."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER.format(python=sys.executable, calls=str(tmp_path / "calls")))
    (programs / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for each in programs.iterdir():
        each.chmod(0o755)
    return {"PATH": f"{programs}:/usr/bin:/bin", "NOINSTALL": "True", "PYTHON": sys.executable}


def test_launch_in_an_image(launch: Launch, classifiers: Path, outside: dict[str, str], tmp_path: Path) -> None:
    """The same configuration is launched inside; its report, log and figures come out, and it can be started again."""
    flags = ("--framework", "openvino", "--batch-size", "1", "--steps", "10", "--warmup-steps", "0")
    done = launch("--in-graph", classifiers / "frozen.pb", "--docker-image", "engine:1", *flags, **outside)
    assert done.returncode == 0, done.stderr
    argv = json.loads((tmp_path / "calls").read_text())
    assert argv[:2] == ["run", "--rm"]
    assert argv[-2:] == ["engine:1", "./start.sh"]
    assert "FRAMEWORK: openvino  (earlier launch)" in done.stdout
    assert "Latency: " in done.stdout
    log = Path(done.stdout.splitlines()[-1].removeprefix("Log location: "))
    assert log.parent == tmp_path / "out"
    assert log.with_suffix(".json").is_file()
    assert json.loads((tmp_path / "out" / "last.json").read_text())["docker_image"] == "engine:1"


def test_a_repetition_in_an_image(launch: Launch, classifiers: Path, outside: dict[str, str], tmp_path: Path) -> None:
    """What start.sh is told holds in the image, too, and the last configuration stays as it was."""
    flags = ("--framework", "openvino", "--batch-size", "2", "--steps", "10", "--warmup-steps", "0")
    assert launch("--in-graph", classifiers / "saved", *flags).returncode == 0
    last = (tmp_path / "out" / "last.json").read_bytes()
    start = [str(ROOT / "benchmark" / "start.sh"), "--steps", "20", "--output-dir", str(tmp_path / "elsewhere")]
    variables = {"OUTPUT_DIR": str(tmp_path / "out"), "BATCH_SIZE": "3", "DOCKER_IMAGE": "engine:1"}
    environment = os.environ | outside | variables
    done = subprocess.run(start, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert "steps = 20," in done.stdout
    assert "Batch size = 3" in done.stdout
    assert (tmp_path / "out" / "last.json").read_bytes() == last
    assert not (tmp_path / "elsewhere" / "last.json").exists()


def test_a_graph_beside_its_pictures_and_logs(
    launch: Launch, classifiers: Path, records: Path, outside: dict[str, str], tmp_path: Path
) -> None:
    """A folder is mounted once, to be written to when logs go there: Docker refuses a second mount of it."""
    together = tmp_path / "out"
    shutil.copytree(records, together)
    shutil.copy(classifiers / "frozen.pb", together)
    flags = ("--framework", "openvino", "--batch-size", "1", "--steps", "10", "--warmup-steps", "0")
    place = ("--in-graph", together / "frozen.pb", "--data-location", together, "--docker-image", "engine:1")
    done = launch(*place, *flags, **outside)
    assert done.returncode == 0, done.stderr
    volumes = [word for word in json.loads((tmp_path / "calls").read_text()) if word.startswith("--volume=")]
    assert [each for each in volumes if str(together) in each] == [f"--volume={together}:{together}:rw"]


def test_what_an_image_lacks_is_in_the_requirements(
    launch: Launch, classifiers: Path, records: Path, tmp_path: Path
) -> None:
    """An interpreter with OpenVINO and what start.sh installs, and nothing else, measures decoded pictures."""
    flags = ("--framework", "openvino", "--batch-size", "2", "--steps", "3", "--warmup-steps", "0")
    data = ("--in-graph", classifiers / "saved", "--data-location", records)
    assert launch(*data, *flags).returncode == 0
    image = tmp_path / "image"
    venv.create(image, symlinks=True)
    site = next(image.glob("lib/python*/site-packages"))
    for name in _needed():
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
            if not (site / top).exists():
                (site / top).symlink_to(found.locate_file(top))
    start = [str(ROOT / "benchmark" / "start.sh")]
    variables = {"OUTPUT_DIR": str(tmp_path / "out"), "PYTHON": str(image / "bin/python"), "NOINSTALL": "True"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(start, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Batch size = 2" in done.stdout


def _needed() -> set[str]:
    """Return what start.sh installs, and OpenVINO, by name, with what those need in turn."""
    found: set[str] = set()
    lines = (ROOT / "benchmark/requirements.txt").read_text().splitlines()
    waiting = ["openvino", *(line for line in lines if not line.startswith("#"))]
    while waiting:
        each = Requirement(waiting.pop())
        if each.name not in found and (each.marker is None or each.marker.evaluate({"extra": ""})):
            found.add(each.name)
            waiting += distribution(each.name).requires or ()
    return found
