"""Updates at awkward moments, with a python predictor that is quick to start."""

import contextlib
import os
import signal
import socket
import threading
from pathlib import Path

import psutil
import pytest
import requests

from tests.e2e.deployment import CORTEX, Cortex
from tests.waiting import DEADLINE, until

pytestmark = pytest.mark.e2e

YAML = """
- name: slow
  kind: RealtimeAPI
  predictor:
    type: python
    path: predictor.py
    threads_per_process: 4
    config: {word: one, sleep: 0}
"""
PREDICTOR = """
import os
import time
from pathlib import Path


class PythonPredictor:
    def __init__(self, config):
        print("constructing", flush=True)
        time.sleep(config["sleep"])
        self.word = config["word"]

    def predict(self, query_params):
        while "until" in query_params and not Path(query_params["until"]).exists():
            time.sleep(0.02)
        if "variable" in query_params:
            return os.environ.get(query_params["variable"], "not set")
        return self.word + " " + Path("file.txt").read_text()
"""
SLOW_TO_END = """
import atexit
import sys
import time

if "cortex.supervisor" in sys.orig_argv:
    atexit.register(time.sleep, 1)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "cortex.yaml").write_text(YAML)
    (tmp_path / "predictor.py").write_text(PREDICTOR)
    (tmp_path / "file.txt").write_text("file")
    return tmp_path


def change(project: Path, old: str, new: str) -> None:
    config = project / "cortex.yaml"
    config.write_text(config.read_text().replace(old, new))


def test_a_deployment_has_the_environment_of_its_shell(
    cortex: Cortex, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of the shell which deployed the first revision and so started the supervisor."""
    for value in ("first", "second"):
        monkeypatch.setenv("A_TEST_VARIABLE", value)
        change(project, "sleep: 0", "sleep: 0.0" if value == "second" else "sleep: 0")
        cortex("deploy", project / "cortex.yaml")
        url = f"{cortex.get('slow')['endpoint']}?variable=A_TEST_VARIABLE"
        assert requests.post(url, data=b"", timeout=60).text == value
    monkeypatch.delenv("A_TEST_VARIABLE")
    cortex("refresh", "slow")
    assert requests.post(url, data=b"", timeout=60).text == "not set"


def test_a_request_under_way_keeps_its_revision(cortex: Cortex, project: Path) -> None:
    """The old revision's files are there for as long as its last request runs."""
    cortex("deploy", project / "cortex.yaml")
    endpoint = cortex.get("slow")["endpoint"]
    answers: list[str] = []
    go = project / "go"
    url = f"{endpoint}?until={go}"
    asking = threading.Thread(target=lambda: answers.append(requests.post(url, data=b"", timeout=60).text))
    asking.start()
    until(lambda: _connections(cortex))
    change(project, "word: one", "word: two")
    cortex("deploy", project / "cortex.yaml")
    assert requests.post(endpoint, data=b"", timeout=60).text == "two file"
    go.touch()
    asking.join(60)
    assert answers == ["one file"]
    cortex("delete", "slow")


def test_force_takes_over_a_first_deployment(cortex: Cortex, project: Path) -> None:
    """A predictor that hangs in its constructor can be replaced before it was ever live."""
    change(project, "sleep: 0", "sleep: 3600")
    first = cortex.start("deploy", project / "cortex.yaml")
    logs = cortex.home / "apis/slow/logs/api-0.log"
    until(lambda: logs.exists() and "constructing" in logs.read_text())
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=DEADLINE)
    change(project, "sleep: 3600", "sleep: 0")
    refused = cortex("deploy", project / "cortex.yaml", code=1)
    assert "an update is under way (override with --force)" in refused
    cortex("deploy", project / "cortex.yaml", "--force")
    assert cortex.get("slow")["status"]["status_code"] == "status_live"
    cortex("delete", "slow")


@pytest.mark.parametrize(
    ("command", "before"),
    [("deploy", True), ("deploy", False), ("delete", True), ("delete", False), ("refresh", True)],
)
def test_a_command_takes_over_from_one_that_waits(cortex: Cortex, project: Path, command: str, before: bool) -> None:
    """By force, or to delete: what hangs is given up, and whoever waits for it is told."""
    if before:
        cortex("deploy", project / "cortex.yaml")
    change(project, "sleep: 0", "sleep: 3600")
    waiting = cortex.start("deploy", project / "cortex.yaml")
    status = cortex.home / "apis/slow/status.json"
    until(lambda: status.exists() and cortex.status("slow")["status"] == "updating")
    change(project, "sleep: 3600", "sleep: 0")
    assert "another cortex command is changing slow" in cortex("deploy", project / "cortex.yaml", code=1)
    cortex(command, project / "cortex.yaml" if command == "deploy" else "slow", "--force")
    said, _ = waiting.communicate(timeout=DEADLINE)
    assert waiting.returncode == 1
    assert "another command took over" in said
    if command != "delete":
        assert cortex.get("slow")["status"]["status_code"] == "status_live"
        cortex("delete", "slow")
    assert not cortex.family()


def test_a_first_deployment_that_fails_ends_with_its_supervisor(
    cortex: Cortex, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that takes to end: the command leaves nothing, and the next one does not meet it."""
    (project / "sitecustomize.py").write_text(SLOW_TO_END)
    monkeypatch.setenv("PYTHONPATH", str(project))
    change(project, "sleep: 0", "sleep: x")
    assert "TypeError" in cortex("deploy", project / "cortex.yaml", code=1)
    assert not cortex.family()
    cortex("delete", "slow")


def test_deployments_at_once_do_not_fight_for_a_port(tmp_path_factory: pytest.TempPathFactory, project: Path) -> None:
    """Of several homes that find the same port free, one gets it, and the others go on to the next."""
    homes = [Cortex(tmp_path_factory.mktemp("home")) for _ in range(3)]
    try:
        commands = [home.start("deploy", project / "cortex.yaml") for home in homes]
        said = [command.communicate(timeout=DEADLINE)[0] for command in commands]
        assert [command.returncode for command in commands] == [0, 0, 0], said
        assert len({home.get("slow")["endpoint"] for home in homes}) == 3
    finally:
        for home in homes:
            home.clean()


def test_delete_ends_an_update(cortex: Cortex, project: Path) -> None:
    """An API can be deleted while a revision of it hangs on its way up."""
    cortex("deploy", project / "cortex.yaml")
    change(project, "sleep: 0", "sleep: 3600")
    update = cortex.start("deploy", project / "cortex.yaml")
    until(lambda: cortex.status("slow")["status"] == "updating")
    update.send_signal(signal.SIGINT)
    update.communicate(timeout=DEADLINE)
    cortex("delete", "slow")
    assert not cortex.family()


def test_another_address_is_refused_while_it_runs(cortex: Cortex, project: Path) -> None:
    """CORTEX_HOST cannot change silently under a live API: the line says what to do. A refresh has no need of it."""
    cortex("deploy", project / "cortex.yaml")
    endpoint = cortex.get("slow")["endpoint"]
    cortex.shell(f"CORTEX_HOST=127.0.0.2 {CORTEX} refresh slow", cwd=project)
    assert cortex.get("slow")["endpoint"] == endpoint
    printed = cortex.shell(f"! CORTEX_HOST=127.0.0.2 {CORTEX} deploy cortex.yaml", cwd=project)
    assert "slow listens on 127.0.0.1, and cannot move to CORTEX_HOST=127.0.0.2" in printed
    cortex("delete", "slow")


@pytest.mark.parametrize(("host", "reached"), [("localhost", "localhost"), ("::1", "[::1]"), ("::", "[::1]")])
def test_every_way_to_write_an_address_can_be_updated(cortex: Cortex, project: Path, host: str, reached: str) -> None:
    """The socket is kept although it calls its address something else, and what is shown leads to it."""
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    deploy = f"CORTEX_HOST={host} {CORTEX} deploy cortex.yaml"
    cortex.shell(deploy, cwd=project)
    endpoint = cortex.get("slow")["endpoint"]
    assert endpoint == f"http://{reached}:{cortex.status('slow')['port']}"
    change(project, "word: one", "word: two")
    assert "updating slow" in cortex.shell(deploy, cwd=project)
    assert cortex.get("slow")["endpoint"] == endpoint
    assert requests.post(endpoint, data=b"", timeout=60).text == "two file"
    cortex("delete", "slow")


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def test_a_dead_supervisors_worker_does_not_survive_a_delete(cortex: Cortex, project: Path) -> None:
    """kill -9 of the supervisor while a worker drains a long request, then delete: nothing is left."""
    cortex("deploy", project / "cortex.yaml")
    endpoint = cortex.get("slow")["endpoint"]
    failed: list[str] = []
    asking = threading.Thread(target=_ask_in_vain, args=(f"{endpoint}?until={project / 'never'}", failed))
    asking.start()
    until(lambda: _connections(cortex))
    os.kill(cortex.status("slow")["supervisor"], signal.SIGKILL)
    cortex("delete", "slow")
    asking.join(60)
    assert failed
    assert not cortex.family()


def _ask_in_vain(url: str, failed: list[str]) -> None:
    try:
        requests.post(url, data=b"", timeout=60)
    except requests.ConnectionError as error:
        failed.append(str(error))


def _connections(cortex: Cortex) -> bool:
    worker = psutil.Process(cortex.pids("slow")["api-0"])
    return any(connection.status == psutil.CONN_ESTABLISHED for connection in worker.net_connections())
