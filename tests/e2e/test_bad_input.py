"""Bad input from every side: one clear line, the right code, and nothing that ran goes down."""

import base64
import json
import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.e2e.deployment import NAME, Cortex, post, sample

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
        "variables",
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


class TestLive:
    """Requests to a live API."""

    @pytest.fixture(scope="class")
    def endpoint(self, cortex: Cortex, project: Path) -> str:
        printed = cortex("deploy", project / "cortex_gpu.yaml")
        if not list(Path("/dev").glob("nvidia[0-9]*")):
            assert printed.count("will run without gpu access") == 1
        return str(cortex.get()["endpoint"])

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({"url": "file:///etc/passwd"}, "http"),
            ({"url": "http://127.0.0.1:1/cat.jpg"}, "127.0.0.1"),
            ({"url": "http://localhost:1/cat.jpg"}, "localhost"),
            ({"url": "http://[::ffff:127.0.0.1]:1/cat.jpg"}, "127.0.0.1"),
            ({"url": "http://169.254.169.254/latest/meta-data"}, "169.254.169.254"),
            ({"imgs": ["bm90IGEgcGljdHVyZQ=="]}, "imgs[0]"),
            ({"imgs": []}, "imgs"),
            ({"imgs": [5]}, "imgs[0]"),
            ({}, "imgs"),
            ([], "imgs"),
            (None, "imgs"),
        ],
        ids=str,
    )
    def test_a_bad_request_is_a_400(self, endpoint: str, body: object, expected: str) -> None:
        """The answer says which picture, and why."""
        answer = post(endpoint, body)
        assert answer.status_code == 400, answer.text
        assert expected in answer.text
        assert len(answer.text.splitlines()) == 1

    def test_half_a_jpeg(self, endpoint: str) -> None:
        """A picture that breaks off is refused, not guessed at."""
        whole = base64.b64decode(sample()["imgs"][0])
        body = {"imgs": [sample()["imgs"][0], base64.b64encode(whole[: len(whole) // 2]).decode()]}
        answer = post(endpoint, body)
        assert answer.status_code == 400
        assert "imgs[1]" in answer.text

    def test_a_decompression_bomb(self, endpoint: str) -> None:
        """A small file that announces a huge picture is refused before it is decoded."""
        answer = requests.post(endpoint, data=_png(60_000, 60_000), headers={"content-type": "image/png"}, timeout=60)
        assert answer.status_code == 400
        assert "60000" in answer.text

    def test_json_that_is_none(self, endpoint: str) -> None:
        """Cortex's body for it: an object with the parser's words."""
        answer = requests.post(endpoint, data=b"{oops", headers={"content-type": "application/json"}, timeout=60)
        assert answer.status_code == 400
        assert "error" in answer.json()

    def test_fifty_megabytes(self, endpoint: str) -> None:
        """A body beyond the limit is refused at once."""
        answer = requests.post(endpoint, data=b"x" * 50_000_000, timeout=60)
        assert answer.status_code == 413
        assert "networking.max_body_size" in answer.text

    def test_it_still_answers(self, cortex: Cortex, endpoint: str) -> None:
        """After all of the above, the same processes serve."""
        assert len(post(endpoint, sample()).json()) == 5
        status = json.loads((cortex.home / "apis" / NAME / "status.json").read_text())
        assert status["status"] == "live"
        assert [row["restarts"] for row in status["processes"]] == [0] * len(status["processes"])


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
