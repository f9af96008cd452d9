"""Bad projects: one clear line, exit code 1, and nothing is left running."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.deployment import Cortex

pytestmark = pytest.mark.e2e

Edit = Callable[[Path], object]


def _yaml(old: str, new: str) -> Edit:
    def edit(project: Path) -> None:
        config = project / "cortex_cpu.yaml"
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new))

    return edit


def _truncate(project: Path) -> None:
    graph = project / "models/resnet50/1/saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-100])


BAD_PROJECTS: dict[str, tuple[Edit, str]] = {
    "unknown key": (_yaml("type: tensorflow", "type: tensorflow\n    colour: red"), 'key "colour" is not supported'),
    "wrong type": (_yaml("model_path: models/resnet50", "model_path: 5"), "invalid type (expected string)"),
    "missing model": (_yaml("models/resnet50", "models/nowhere"), "models/nowhere: does not exist"),
    "missing predictor": (lambda project: (project / "predictor.py").unlink(), "predictor.py: file does not exist"),
    "missing class": (
        lambda project: (project / "predictor.py").write_text("x = 1\n"),
        "TensorFlowPredictor class is not defined",
    ),
    "wrong signature": (
        lambda project: (project / "predictor.py").write_text(
            "class TensorFlowPredictor:\n    def __init__(self, tensorflow_client, config): pass\n"
            "    def predict(self, data): pass\n"
        ),
        '"data" is not a supported argument',
    ),
    "syntax error": (lambda project: (project / "predictor.py").write_text("class (\n"), "predictor.py"),
    "truncated SavedModel": (_truncate, "saved_model.pb"),
    "no SavedModel": (
        lambda project: (project / "models/resnet50/1/saved_model.pb").write_text("not a graph"),
        "saved_model.pb",
    ),
    "damaged variables": (
        lambda project: [path.write_bytes(b"") for path in (project / "models/resnet50/1/variables").iterdir()],
        "TensorFlow cannot load the model",
    ),
    "unmet requirement": (
        lambda project: (project / "requirements.txt").write_text("no-such-package-for-sure==1\n"),
        "no-such-package-for-sure==1: not installed",
    ),
}


@pytest.mark.parametrize("case", BAD_PROJECTS)
def test_a_bad_project_is_not_deployed(cortex: Cortex, tmp_path: Path, project: Path, case: str) -> None:
    """Each is told in an `error:` line with exit code 1, and leaves no process."""
    edit, expected = BAD_PROJECTS[case]
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    edit(copy)
    printed = cortex("deploy", copy / "cortex_cpu.yaml", code=1)
    errors = [line for line in printed.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, printed
    assert expected in printed
    assert "Traceback" not in printed
    assert not cortex.family()


def test_a_model_that_gives_other_answers_does_not_go_live(
    cortex: Cortex, tmp_path: Path, project: Path, models: Path
) -> None:
    """The artifact's recorded answers are compared before it serves anybody."""
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    shutil.rmtree(copy / "models/resnet50")
    shutil.copytree(models / "liar", copy / "models/resnet50")
    printed = cortex("deploy", copy / "cortex_cpu.yaml", code=1)
    assert "record" in printed
    assert "tolerance" in printed
    assert not cortex.family()


def test_a_port_in_use_is_named(cortex: Cortex, tmp_path: Path, project: Path) -> None:
    """A stranger on the port is told apart from an API of ours."""
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        _yaml("  predictor:", f"  networking:\n    local_port: {port}\n  predictor:")(copy)
        printed = cortex("deploy", copy / "cortex_cpu.yaml", code=1)
    assert f"port {port} is being used by a non-cortex process" in printed


def test_without_an_accelerator_the_target_is_refused(cortex: Cortex, project: Path) -> None:
    """One sentence says what is missing, and what would work."""
    if list(Path("/dev").glob("neuron[0-9]*")):
        pytest.skip("this machine has a Neuron device")
    printed = cortex("deploy", project / "cortex_accelerator.yaml", code=1)
    assert "no AWS Inferentia device" in printed
