"""`cortex deploy --front nginx` for real: nginx of this machine in front of what this machine runs."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.certificates import issue
from tests.e2e.deployment import Cortex
from tests.ports import free_port
from tests.programs import needs_nginx
from tests.waiting import DEADLINE, until

pytestmark = needs_nginx
PREDICTOR = """\
class PythonPredictor:
    def __init__(self, config):
        self.name = config["name"]

    def predict(self, payload):
        return {"api": self.name}
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def home(cortex: Cortex) -> Iterator[Cortex]:
    """A home whose APIs go after each test, and its front and settings with them."""
    try:
        yield cortex
    finally:
        cortex.clean()
        cortex("env", "delete", "local")
        assert not (cortex.home / "front").exists()
        assert not _nginx(cortex)


def _nginx(cortex: Cortex) -> list[psutil.Process]:
    marked = str(cortex.home / "front")
    found = psutil.process_iter(["name", "open_files"])  # of another user's, open_files is None
    return [
        process
        for process in found
        if process.info["name"] == "nginx"
        and any(row.path.startswith(marked) for row in process.info["open_files"] or ())
    ]


def _pids(cortex: Cortex) -> set[int]:
    return {process.pid for process in _nginx(cortex)}


def _project(directory: Path, *names: str) -> Path:
    """Write APIs that tell their names, and return their yaml."""
    (directory / "predictor.py").write_text(PREDICTOR)
    row = "- name: {0}\n  predictor: {{type: python, path: predictor.py, config: {{name: {0}}}}}\n"
    rows = [row.format(name) for name in names]
    config = directory / "cortex.yaml"
    config.write_text("".join(rows))
    return config


def _asked(port: int, path: str) -> str:
    answer = requests.post(f"http://127.0.0.1:{port}{path}", json={}, timeout=10)
    return str(answer.json()["api"]) if answer.status_code == 200 else str(answer.status_code)


def test_apis_share_one_port_until_the_last_is_gone(home: Cortex, port: int, tmp_path: Path) -> None:
    """By path; the first has the rest; a later deployment joins them unasked; the last one takes nginx with it."""
    said = home("deploy", _project(tmp_path, "iris", "wine"), "--front", f"nginx:{port}")
    assert f"front: http://localhost:{port}/wine" in said
    assert [_asked(port, path) for path in ("/iris", "/wine", "/predict")] == ["iris", "wine", "iris"]
    home("deploy", _project(tmp_path, "rose"))
    assert home.get("rose")["front"] == f"http://localhost:{port}/rose"
    assert _asked(port, "/rose") == "rose"
    home("delete", "iris")
    assert [_asked(port, path) for path in ("/wine", "/rose", "/predict")] == ["wine", "rose", "wine"]
    home("delete", "wine")
    home("delete", "rose")
    assert not _nginx(home)


def test_tls_and_a_rate_limit(home: Cortex, port: int, tmp_path: Path) -> None:
    """They are settings: the next deployment has them and says where it is reached; they go in the same way."""
    config, files, tls_port = _project(tmp_path, "iris"), issue(tmp_path), free_port()
    home("deploy", config, "--front", f"nginx:{port}")
    pids = _pids(home)
    master = next(process for process in _nginx(home) if process.ppid() not in pids)
    home("env", "configure", "local", *files.settings, "--set", f"tls_port={tls_port}", "--set", "rate_limit=1r/m")
    assert home.get("iris")["front"] == f"http://localhost:{port}/iris", "what runs is told, not what will run"
    secure = f"https://localhost:{tls_port}/iris"
    assert f"front: {secure}" in home("deploy", config)
    assert home.get("iris")["front"] == secure
    assert master in _nginx(home)
    with requests.Session() as session:
        session.trust_env = False  # which may name other authorities
        session.verify = str(files.authority)
        answers = [session.post(secure, json={}, timeout=10) for _ in range(30)]
        assert session.post(f"http://localhost:{port}/iris", json={}, timeout=10).url == secure
    assert answers[0].json() == {"api": "iris"}
    assert {answer.status_code for answer in answers} == {200, 429}
    assert answers[-1].json() == {"error": "too many requests from this address; try again in a second"}
    home("env", "configure", "local")
    assert f"front: http://localhost:{port}/iris" in home("deploy", config)
    assert {_asked(port, "/iris") for _ in range(30)} == {"iris"}


def test_a_setting_that_cannot_be_changes_nothing(home: Cortex, port: int, tmp_path: Path) -> None:
    """One line by every command that touches the front; the API and its front go on."""
    config, files, tls_port = _project(tmp_path, "iris"), issue(tmp_path), free_port()
    home("deploy", config, "--front", f"nginx:{port}")
    before = home.status("iris")["revision"], home.pids("iris"), _pids(home)
    home("env", "configure", "local", *files.settings, "--set", f"tls_port={tls_port}")
    files.key.write_bytes(issue(tmp_path, "other").key.read_bytes())
    (tmp_path / "predictor.py").write_text(PREDICTOR + "# changed\n")
    told = f"certificate_key: {files.key} is not the key of the certificate {files.certificate}"
    for command in (("deploy", config), ("deploy", config, "--front", "nginx"), ("refresh", "iris")):
        assert told in home(*command, code=1)
    assert (home.status("iris")["revision"], home.pids("iris"), _pids(home)) == before
    assert _asked(port, "/iris") == "iris"
    for pair in ("tls_port=no", "rate_limit=10", "certificate=/a"):
        assert "error: " in home("env", "configure", "local", "--set", pair, code=1)


def test_killed_moved_and_taken_back(home: Cortex, port: int, tmp_path: Path) -> None:
    """nginx that was killed is told and comes back; another port is another choice; `none` leaves the APIs alone."""
    config = _project(tmp_path, "iris")
    home("deploy", config, "--front", f"nginx:{port}")
    for process in _nginx(home):
        process.kill()
    assert home.get("iris")["notices"] == ["the nginx in front of it is not running; run `cortex deploy` again"]
    home("refresh", "iris")
    assert _asked(port, "/iris") == "iris"
    assert home.get("iris")["notices"] == []
    other = free_port()
    home("deploy", config, "--front", f"nginx:{other}")
    assert _asked(other, "/iris") == "iris"
    assert "front:" not in home("deploy", config, "--front", "none")
    assert not _nginx(home)
    told = home.get("iris")
    assert told["front"] == ""
    assert requests.post(told["endpoint"], json={}, timeout=10).json() == {"api": "iris"}


SLOW = PREDICTOR.replace("self.name =", "import time; time.sleep(3); self.name =")


@pytest.mark.parametrize(
    ("how", "paths"), [(signal.SIGINT, ["iris", "rose"]), (signal.SIGHUP, ["iris", "404"])], ids=["ctrl-c", "hangup"]
)
def test_a_deployment_that_was_interrupted(
    home: Cortex, port: int, tmp_path: Path, how: signal.Signals, paths: list[str]
) -> None:
    """The front leads to it after Ctrl-C, too; where nobody could tell the front any more, `cortex get` says so."""
    home("deploy", _project(tmp_path, "iris"), "--front", f"nginx:{port}")
    config = _project(tmp_path, "rose")
    (tmp_path / "predictor.py").write_text(SLOW)
    deployment = home.start("deploy", config)
    until((home.home / "apis/rose/status.json").exists)
    deployment.send_signal(how)
    deployment.communicate(timeout=DEADLINE)
    until(lambda: home.status("rose")["status"] == "live")
    assert [_asked(port, path) for path in ("/iris", "/rose/")] == paths
    assert ("the nginx in front of it does not lead to it" in home("get", "rose")) == ("404" in paths)
    home("deploy", config)
    assert _asked(port, "/rose") == "rose"
