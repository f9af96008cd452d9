"""Which engines can run here: each says so itself, or what keeps it from it is told in one line."""

import sys
from pathlib import Path

import pytest

from cortex.environments import engines
from cortex.environments.engines import EngineStatus, Program, Wheel
from cortex.model_server.engines import selection

STANDINS = Path(__file__).parents[1] / "standins"


@pytest.fixture
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CORTEX_TENSORFLOW_MODEL_SERVER", raising=False)


def test_every_engine_is_asked() -> None:
    """Those of the model server, and the programs that can take its place."""
    programs = {"tensorflow_model_server", "tensorflow_model_server_neuron"}
    assert set(engines.ENGINES) == {*selection.ENGINES, *programs}


def test_an_engine_that_is_there() -> None:
    """It names the devices that it computes on."""
    status = engines.ENGINES["openvino"].status("openvino", 60)
    assert (status.name, status.problem) == ("openvino", "")
    assert "CPU" in status.providers
    assert status.version[0].isdecimal()


@pytest.mark.parametrize(
    ("package", "question", "problem"),
    [
        ("no-such-package", "found = []", "not installed: pip install no-such-package"),
        (
            "click",
            "import no_such_module",
            "installed, but cannot be imported: PYTHON failed: ModuleNotFoundError: No ",
        ),
        (
            "click",
            "raise ValueError('libcuda.so.1')",
            "installed, but cannot be imported: PYTHON failed: ValueError: lib",
        ),
        ("click", "import os; os.abort()", "installed, but cannot be imported: PYTHON failed: "),
        ("click", "import time; time.sleep(60)", "installed, but cannot be imported: PYTHON did not answer within 1 s"),
        ("click", "found = []; print = lambda *_: None", "installed, but cannot be imported: "),
    ],
)
def test_an_engine_that_cannot_run(package: str, question: str, problem: str) -> None:
    """A crash, a missing library or a hang of one is its own problem."""
    status = Wheel((package,), question).status("x", 1)
    assert status.problem.startswith(problem.replace("PYTHON", Path(sys.executable).name))
    assert "\n" not in status.problem


def test_the_program_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """CORTEX_TENSORFLOW_MODEL_SERVER is asked for its version, since it is what a plan would start."""
    program = str(STANDINS / "tensorflow_model_server_neuron")
    monkeypatch.setenv("CORTEX_TENSORFLOW_MODEL_SERVER", program)
    status = Program("for inf").status("tensorflow_model_server_neuron", 10)
    assert status == EngineStatus("tensorflow_model_server_neuron", "1.15.0-stand-in", (program,))


def test_a_program_that_is_missing(no_choice: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    status = Program("for inf").status("tensorflow_model_server", 10)
    assert status.problem == "tensorflow_model_server is not on the PATH (for inf)"


def test_the_order_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are asked at once; the slowest does not come last for that."""
    slow, quick = (Wheel(("click",), f"import time; time.sleep({s}); found = [1]") for s in (0.3, 0))
    monkeypatch.setattr(engines, "ENGINES", {"slow": slow, "quick": quick})
    assert [(status.name, status.providers) for status in engines.statuses()] == [("slow", ("1",)), ("quick", ("1",))]
