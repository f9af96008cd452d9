"""A launch inside a container image: the ``docker`` command that does it.

Everything is mounted where it is outside, so that paths in the configuration and in messages hold on both sides, and
logs stay after the container has gone. In there ``start.sh`` launches the same configuration.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from benchmark.configuration import Configuration

ROOT = Path(__file__).parents[1]
_PASSED_ON = ("NOINSTALL", "http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL")


def command(
    asked: Configuration, image: str, debug: bool, kept: Path, environ: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Return the argv. ``debug`` gives a shell in the container, in which ``./start.sh`` is run by hand.

    ``kept`` is the file with the configuration, in the output directory.
    PYTHON keeps ``start.sh`` from the environment outside: it is the image's interpreter and engine that are measured.
    SYS_NICE is what ``numactl --membind`` needs.
    """
    read = [ROOT, _folder(asked.in_graph), *([asked.data_location] if asked.data_location else [])]
    mounts = {**dict.fromkeys(read, "ro"), asked.output_dir: "rw"}  # Docker refuses to mount a folder twice
    variables = {"CONFIGURATION": str(kept), "DOCKER_IMAGE": "", "PYTHON": "python3", "PYTHONDONTWRITEBYTECODE": "1"}
    variables |= {name: environ[name] for name in _PASSED_ON if name in environ}
    return (
        *("docker", "run", "--rm", "--init", "--cap-add=SYS_NICE"),
        *(["--interactive", "--tty"] if debug else []),
        *(f"--volume={path}:{path}:{mode}" for path, mode in mounts.items()),
        *(f"--env={name}={value}" for name, value in variables.items()),
        f"--workdir={ROOT / 'benchmark'}",
        *("--entrypoint=bash", image),
        *([] if debug else ["./start.sh"]),
    )


def _folder(path: Path) -> Path:
    """Return what to mount for a model: with a file its folder, where its weights may lie beside it."""
    return path.parent if path.is_file() else path
