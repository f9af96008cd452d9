"""The life of a deployment: deploy, ask, kill, redeploy, fail, delete."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from tests.e2e.deployment import NAME, Cortex, post, sample
from tests.waiting import DEADLINE, until

pytestmark = pytest.mark.e2e
RAISES = """
class TensorFlowPredictor:
    def __init__(self, tensorflow_client, config):
        1 / 0

    def predict(self, payload):
        return 1
"""


@pytest.fixture(scope="module")
def deployed(cortex: Cortex, project: Path) -> str:
    """The colour model behind the example's own yaml and predictor; returns the endpoint."""
    printed = cortex("deploy", project / "cortex_cpu.yaml")
    assert f"creating {NAME} (RealtimeAPI)" in printed
    return str(cortex.get()["endpoint"])


class Load:
    """Clients with keep-alive connections, asking without a pause until told to stop."""

    def __init__(self, endpoint: str, clients: int = 4) -> None:
        self.answers: Counter[str] = Counter()
        self._endpoint = endpoint
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        until(lambda: self.answers["200"] > 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def errors(self) -> int:
        return sum(count for kind, count in self.answers.items() if kind != "200")

    def _ask(self) -> None:
        body = sample()
        with requests.Session() as session:
            while not self._stop.is_set():
                try:
                    answer = session.post(self._endpoint, json=body, timeout=60)
                    self.answers[str(answer.status_code)] += 1
                except requests.RequestException as error:
                    self.answers[type(error).__name__] += 1


def test_it_answers_five_labels(cortex: Cortex, deployed: str) -> None:
    """The README's request: five labels back, in at most one line of work for the user."""
    answer = post(deployed, sample())
    assert answer.status_code == 200, answer.text
    labels = answer.json()
    assert len(labels) == 5
    assert all(isinstance(label, str) for label in labels)
    assert labels[0] == "tench", "the cat of sample.json is more red than green or blue, which is class 0"
    assert cortex("predict", NAME, Path(__file__).parents[2] / "sample.json").count('"') == 10


def test_the_summary_and_health(deployed: str) -> None:
    """GET tells what to send; health and documentation are where people look for them."""
    summary = requests.get(deployed, timeout=10).json()
    signature = {"input": {"shape": [-1, 224, 224, 3], "type": "uint8"}}
    assert summary["model_signatures"] == {"_cortex_default": signature}
    for path in ("healthz", "readyz", "docs", "openapi.json", "metrics"):
        assert requests.get(f"{deployed}/{path}", timeout=10).status_code == 200, path


def test_no_worker_ever_maps_tensorflow(cortex: Cortex, deployed: str) -> None:
    """Neither a worker nor the OpenVINO model server executes TensorFlow, after real requests."""
    post(deployed, sample())
    for name, pid in cortex.pids().items():
        assert "libtensorflow" not in Path(f"/proc/{pid}/maps").read_text(), name


def test_get_tells_what_runs(cortex: Cortex, deployed: str) -> None:
    """The table, the curl line, the input and the effective configuration, for people and for scripts."""
    post(deployed, sample())
    shown = cortex("get", NAME)
    for expected in (deployed, "curl", "live", "uint8", "(-1, 224, 224, 3)", "processes_per_replica: 1", "local_port"):
        assert expected in shown
    assert cortex.get()["status"]["status_code"] == "status_live"
    assert NAME in cortex("get")


def test_nothing_changed_is_up_to_date(cortex: Cortex, deployed: str, project: Path) -> None:
    """Deploying the same thing again starts nothing."""
    before = cortex.pids()
    assert f"{NAME} (RealtimeAPI) is up to date" in cortex("deploy", project / "cortex_cpu.yaml")
    assert cortex.pids() == before


@pytest.mark.parametrize("victim", ["api-0", "model-server-0"])
def test_a_killed_process_heals_by_itself(cortex: Cortex, deployed: str, victim: str) -> None:
    """kill -9 costs at most the requests in flight, and everything answers again."""
    clients = 4
    with Load(deployed, clients) as load:
        pid = cortex.pids()[victim]
        os.kill(pid, signal.SIGKILL)
        until(lambda: cortex.pids()[victim] not in (None, pid))
        until(lambda: cortex.get()["status"]["status_code"] == "status_live")
        answered = load.answers["200"]
        until(lambda: load.answers["200"] > answered + 10)
    assert load.errors <= clients, load.answers


def test_a_redeploy_under_load_loses_no_request(cortex: Cortex, deployed: str, project: Path) -> None:
    """A changed predictor takes over while clients hammer: not one error, and the old processes are gone."""
    before = cortex.pids()
    predictor = project / "predictor.py"
    with Load(deployed) as load:
        predictor.write_text(predictor.read_text() + "\n# changed\n")
        assert f"updating {NAME} (RealtimeAPI)" in cortex("deploy", project / "cortex_cpu.yaml")
        answered = load.answers["200"]
        until(lambda: load.answers["200"] > answered + 10)
        until(lambda: not any(psutil.pid_exists(pid) for pid in before.values()))
    assert load.errors == 0, load.answers
    assert cortex.get()["endpoint"] == deployed, "a redeploy keeps its port"


def test_a_refresh_under_load_loses_no_request(cortex: Cortex, deployed: str) -> None:
    """`cortex refresh` replaces every process by a new one of the same revision."""
    before = cortex.pids()
    with Load(deployed) as load:
        cortex("refresh", NAME)
        assert not set(before.values()) & set(cortex.pids().values())
        until(lambda: not any(psutil.pid_exists(pid) for pid in before.values()))
    assert load.errors == 0, load.answers


def test_a_failed_redeploy_leaves_the_old_one(cortex: Cortex, deployed: str, project: Path) -> None:
    """A predictor that raises in its constructor is told with its reason, and the live revision never noticed."""
    predictor = project / "predictor.py"
    good = predictor.read_text()
    try:
        predictor.write_text(RAISES)
        with Load(deployed) as load:
            printed = cortex("deploy", project / "cortex_cpu.yaml", code=1)
        assert "division by zero" in printed
        assert load.errors == 0
    finally:
        predictor.write_text(good)
    shown = cortex("get", NAME)
    assert "live" in shown
    assert "division by zero" in shown, "the failed update stays as a notice"
    cortex("deploy", project / "cortex_cpu.yaml", "--force")
    assert "division by zero" not in cortex("get", NAME)


def test_two_command_lines_at_once(cortex: Cortex, deployed: str, project: Path) -> None:
    """Of two deployments at the same time the later takes over, or both are carried out; the API is live, once."""
    both = [cortex.start("deploy", project / "cortex_cpu.yaml", "--force") for _ in range(2)]
    printed = [process.communicate(timeout=DEADLINE)[0] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 0], [0, 1]), printed
    if codes == [0, 1]:
        assert any("another command took over" in text for text in printed)
    assert cortex.get()["status"]["status_code"] == "status_live"
    assert post(deployed, sample()).status_code == 200


def test_an_interrupted_command_line_stops_nothing(cortex: Cortex, deployed: str) -> None:
    """Ctrl-C of `cortex refresh` leaves the update going on, to its end."""
    before = cortex.pids()
    command = cortex.start("refresh", NAME)
    until(lambda: cortex.status()["status"] == "updating")
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=DEADLINE)
    until(lambda: cortex.get()["status"]["status_code"] == "status_live")
    assert not set(before.values()) & set(cortex.pids().values())
    assert post(deployed, sample()).status_code == 200


def test_logs_show_every_process(cortex: Cortex, deployed: str) -> None:
    """`cortex logs` interleaves worker and model server, and names what was requested."""
    post(deployed, sample())
    shown = cortex("logs", NAME, "--no-follow")
    assert "POST /" in shown
    assert "Successfully loaded servable version {name: _cortex_default version: 1}" in shown


def test_logs_follow_until_interrupted(cortex: Cortex, deployed: str) -> None:
    """`cortex logs` goes on with what comes."""
    follower = cortex.start("logs", NAME)
    try:
        assert follower.stdout
        post(deployed, sample(), headers={"x-request-id": "look-for-me"})
        seen = threading.Event()
        reader = threading.Thread(target=_find, args=(follower, "POST /", seen), daemon=True)
        reader.start()
        assert seen.wait(20)
    finally:
        follower.send_signal(signal.SIGINT)
        follower.wait(10)
        reader.join(10)
        follower.stdout.close()


def _find(process: "subprocess.Popen[str]", text: str, seen: threading.Event) -> None:
    assert process.stdout
    for line in process.stdout:
        if text in line:
            seen.set()
            return


def test_a_killed_supervisor_is_told_and_mended(cortex: Cortex, deployed: str, project: Path) -> None:
    """Without its supervisor the API is down, says so, and `cortex deploy` brings it back."""
    os.kill(cortex.status()["supervisor"], signal.SIGKILL)
    until(lambda: cortex.get()["status"]["status_code"] == "status_error")
    assert "supervisor is not running" in cortex("get", NAME)
    until(lambda: not cortex.family())
    cortex("deploy", project / "cortex_cpu.yaml")
    assert post(cortex.get()["endpoint"], sample()).status_code == 200


def test_a_request_that_waits_does_not_outlive_the_supervisor(cortex: Cortex, deployed: str, project: Path) -> None:
    """It waits for a model server that nobody will start again: it is told so, and the worker ends."""
    endpoint = cortex.get()["endpoint"]  # its supervisor was killed, and the port may have gone to others
    supervisor = cortex.status()["supervisor"]
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(cortex.pids()["model-server-0"], signal.SIGKILL)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, endpoint, sample())
        until(lambda: "cortex_in_flight_requests 1.0" in requests.get(f"{endpoint}/metrics", timeout=10).text)
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: not cortex.family())
    assert answer.result().status_code == 500
    cortex("deploy", project / "cortex_cpu.yaml")


def test_delete_leaves_nothing(cortex: Cortex, deployed: str) -> None:
    """No process, no socket, no file of the API, and the port is free; who reads its files goes on."""
    pids, endpoint = cortex.pids().values(), cortex.get()["endpoint"]
    spec = next((cortex.home / "apis" / NAME / "revisions").glob("*/*.json"))
    reader = subprocess.Popen(["tail", "-f", spec], stdout=subprocess.DEVNULL)
    try:
        assert f"deleting {NAME}" in cortex("delete", NAME)
        assert reader.poll() is None
    finally:
        reader.kill()
        reader.wait()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not cortex.family()
    left = [path for path in cortex.home.rglob("*") if path.is_file() and path.name not in (".lock", "cli.yaml")]
    assert left == []
    port = _port(endpoint)
    until(lambda: _is_free(port) or _others(port, cortex.home))
    assert f"error: {NAME} is not deployed" in cortex("get", NAME, code=1)
    assert f"error: {NAME} is not deployed" in cortex("delete", NAME, code=1)


def _port(endpoint: str) -> int:
    return int(endpoint.rsplit(":", 1)[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _others(port: int, home: Path) -> bool:
    """Tell whether a deployment of another home has taken the port that became free."""
    holders = {row.pid for row in psutil.net_connections("tcp4") if row.laddr[1:] == (port,) and row.pid}
    with contextlib.suppress(psutil.Error):
        return any(psutil.Process(pid).environ().get("CORTEX_HOME") not in (None, str(home)) for pid in holders)
    return False
