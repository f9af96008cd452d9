"""A launch inside an image, with a stand-in for ``docker`` that does here what it is asked to do there."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Launch = Callable[..., "subprocess.CompletedProcess[str]"]

DOCKER = """#!{python}
import json, os, sys
from pathlib import Path
Path({calls!r}).write_text(json.dumps(sys.argv[1:]))
flags = [each.partition("=") for each in sys.argv if each.startswith("--")]
variables = dict(value.split("=", 1) for flag, _, value in flags if flag == "--env")
os.chdir(next(value for flag, _, value in flags if flag == "--workdir"))
entrypoint = next(value for flag, _, value in flags if flag == "--entrypoint")
os.execvpe(entrypoint, [entrypoint, *sys.argv[sys.argv.index("engine:1") + 1:]], os.environ | variables)
"""


def test_launch_in_an_image(launch: Launch, classifiers: Path, tmp_path: Path) -> None:
    """The same configuration is launched inside; its report, log and figures come out, and it can be started again."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER.format(python=sys.executable, calls=str(tmp_path / "calls")))
    (programs / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for each in programs.iterdir():
        each.chmod(0o755)
    flags = ("--framework", "openvino", "--batch-size", "1", "--steps", "10", "--warmup-steps", "0")
    done = launch(
        *("--in-graph", classifiers / "frozen.pb", "--docker-image", "engine:1", *flags),
        **{"PATH": f"{programs}:/usr/bin:/bin", "NOINSTALL": "True"},
    )
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
