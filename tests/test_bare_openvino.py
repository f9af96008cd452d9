"""Nothing that runs models reports to anyone, or loads a command line for it."""

import subprocess
import sys

import pytest

from cortex.environments.engines import ENGINES, Wheel

_SEEN = """
import sys, threading
print("openvino" in sys.modules, sys.modules["openvino_telemetry"], sys.modules["openvino.tools.ovc"])
print(*(thread.name for thread in threading.enumerate()))
"""


def _question() -> str:
    wheel = ENGINES["openvino"]
    assert isinstance(wheel, Wheel)
    return wheel.question


@pytest.mark.parametrize(
    "program",
    [
        "import cortex.model_server.engines.openvino",
        "import export.ir",
        "import export\nimport nncf",
        "import benchmark.bare_engine",
        _question(),
    ],
)
def test_openvino_is_bare(program: str) -> None:
    """Neither its telemetry nor its conversion tool is imported, and no thread is started."""
    command = [sys.executable, "-c", program + _SEEN]
    got = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    assert got == "True None None\nMainThread\n"
