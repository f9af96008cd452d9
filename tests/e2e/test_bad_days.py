"""What is left when commands are interrupted or killed half way, and what the next command makes of it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest
import requests

from cortex.environments.state import Home
from tests.e2e.deployment import CORTEX, Cortex
from tests.ports import free_port
from tests.programs import NGINX
from tests.waiting import DEADLINE, until

pytestmark = pytest.mark.e2e
UnderWay = Callable[[str], AbstractContextManager[None]]
YAML = """\
- name: {name}
  predictor: {{type: python, path: predictor.py}}
  networking: {{local_port: {port}}}
"""
SLOW = """
import pathlib
import re
import time


class PythonPredictor:
    def __init__(self, config):
        pass

    def predict(self, query_params):
        if "busy" in query_params:
            re.match("(a+)+$", "a" * 40 + "b")  # years, in which no other thread of this process runs
        if "until" in query_params:
            end = pathlib.Path(query_params["until"])
            end.with_suffix(".begun").touch()
            while not end.exists():
                time.sleep(0.02)
        return "done"
"""

DETACHES = """
import subprocess
import sys

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(7777.5)"
subprocess.Popen(["sleep", "7777.5"], start_new_session=True)
deaf = subprocess.Popen([sys.executable, "-c", DEAF], start_new_session=True, stdout=subprocess.PIPE)
deaf.stdout.readline()
"""
WITHOUT_INIT = """
import ctypes, subprocess, sys
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
subprocess.run([sys.argv[1], "deploy", sys.argv[2]], check=True)
subprocess.run([sys.argv[1], "delete", "slow"], check=True, timeout=60)
"""


WITH_A_MODEL = """
class PythonPredictor:
    def __init__(self, config, python_client):
        self.client = python_client

    def load_model(self, model_path):
        return model_path

    def predict(self):
        return "loaded" if self.client.get_model("m") else "not loaded"
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """The yaml of an API ``slow`` that answers when a file is there, or never, if it is asked to."""
    (tmp_path / "predictor.py").write_text(SLOW)
    (tmp_path / "slow.yaml").write_text(YAML.format(name="slow", port=free_port()))
    return tmp_path / "slow.yaml"


@pytest.fixture
def deployed(cortex: Cortex, slow: Path) -> Iterator[str]:
    """The endpoint of ``slow``, which is deleted afterwards."""
    cortex("deploy", slow)
    yield str(cortex.get("slow")["endpoint"])
    if "slow" in cortex("get"):
        cortex("delete", "slow")


@pytest.fixture
def under_way(tmp_path: Path) -> UnderWay:
    """Have a request under way for as long as a block takes; it has to be answered then."""

    @contextlib.contextmanager
    def hold(endpoint: str) -> Iterator[None]:
        end = tmp_path / "end"
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(requests.post, endpoint, params={"until": str(end)}, timeout=60)
            try:
                until(end.with_suffix(".begun").exists)
                yield
                assert not answer.done()
            finally:
                end.touch()
        assert answer.result().text == "done"

    return hold


def test_a_deletion_that_was_interrupted_is_no_deployment(
    cortex: Cortex, deployed: str, slow: Path, under_way: UnderWay
) -> None:
    """The API that is on its way out is not taken for one that is up to date: deploying brings it back for good."""
    with under_way(deployed):
        deletion = cortex.start("delete", "slow")
        until(lambda: cortex.status("slow")["status"] != "live")
        deletion.send_signal(signal.SIGINT)
        deletion.communicate(timeout=DEADLINE)
        assert deletion.returncode == 1
        assert "it is being stopped" in cortex("get", "slow")
        deployment = cortex.start("deploy", slow)
        until(lambda: len(cortex.status("slow")["in_use"]) == 2)
    assert "updating slow" in deployment.communicate(timeout=DEADLINE)[0]
    until(lambda: len(cortex.status("slow")["in_use"]) == 1)
    assert requests.post(deployed, timeout=10).text == "done"
    assert cortex.get("slow")["status"]["status_code"] == "status_live"


def test_a_supervisor_that_ends_takes_no_deployment(
    cortex: Cortex, deployed: str, slow: Path, under_way: UnderWay
) -> None:
    """Nothing goes live in a supervisor that was told to end; it says so until it has."""
    with under_way(deployed):
        os.kill(cortex.status("slow")["supervisor"], signal.SIGTERM)
        until(lambda: cortex.status("slow")["status"] != "live")
        assert "the API is being stopped; try again when it has ended" in cortex("deploy", slow, code=1)
    until(lambda: "its supervisor is not running" in cortex("get", "slow"))
    cortex("deploy", slow)
    assert requests.post(deployed, timeout=10).text == "done"


@pytest.fixture
def killed(cortex: Cortex, slow: Path) -> int:
    """The port of a first deployment of ``slow`` whose command was killed before anything of it ran."""
    port = cortex.home / "apis/slow/port"
    command = cortex.start("deploy", slow)
    until(lambda: port.exists() and port.read_text())
    command.kill()
    command.communicate(timeout=DEADLINE)
    return int(port.read_text())


def test_a_first_deployment_that_was_killed_keeps_no_port(cortex: Cortex, slow: Path, killed: int) -> None:
    """Another API may have its port: nobody could delete what never came to be deployed."""
    other = slow.with_name("other.yaml")
    other.write_text(YAML.format(name="other", port=killed))
    cortex("deploy", other)
    assert not left_of(cortex, "slow")
    cortex("delete", "other")
    cortex("deploy", slow)
    cortex("delete", "slow")


def test_a_first_deployment_that_was_killed_is_none(cortex: Cortex, killed: int) -> None:
    """There is nothing to delete but what its command left, and that goes; not before whoever deploys is done."""
    with Home(cortex.home).lock("slow"):
        assert "slow is not deployed" in cortex("delete", "slow", code=1)
        assert left_of(cortex, "slow")
    assert "slow is not deployed" in cortex("delete", "slow", code=1)
    assert not left_of(cortex, "slow")
    assert not cortex.family()


def left_of(cortex: Cortex, name: str) -> list[Path]:
    """Return what there is of an API."""
    return [path for path in cortex.home.glob(f"*/{name}") if path.parent.name in ("apis", "locks", "run")]


def test_a_deletion_keeps_the_model_of_a_first_deployment(cortex: Cortex, deployed: str, slow: Path) -> None:
    """What is prepared is in use, although nothing runs yet that says so."""
    project = slow.with_name("another")
    (project / "m/1").mkdir(parents=True)
    (project / "m/1/weights").write_text("1")
    (project / "predictor.py").write_text(WITH_A_MODEL)
    predictor = "{type: python, path: predictor.py, models: {paths: [{name: m, model_path: m}]}}"
    (project / "cortex.yaml").write_text(f"- name: another\n  predictor: {predictor}\n")
    api = cortex.home / "apis/another"
    deployment = cortex.start("deploy", project / "cortex.yaml")
    until((api / "port").exists)
    deployment.send_signal(signal.SIGSTOP)
    assert not (api / "status.json").exists(), "it runs already, so that this shows nothing"
    cortex("delete", "slow")
    deployment.send_signal(signal.SIGCONT)
    said, _ = deployment.communicate(timeout=DEADLINE)
    assert deployment.returncode == 0, said
    assert requests.post(cortex.get("another")["endpoint"], timeout=10).text == "loaded"
    cortex("delete", "another")


def test_nobody_listens(cortex: Cortex, deployed: str, slow: Path) -> None:
    """A script may have closed any of the streams; the work is done all the same."""
    supervisor = cortex.status("slow")["supervisor"]
    for closed in ("2>&-", "<&- >&- 2>&-"):
        revision = cortex.status("slow")["revision"]
        slow.with_name("predictor.py").write_text(f"{SLOW}# {closed}")
        cortex.shell(f"{CORTEX} deploy {slow} {closed}", cwd=slow.parent)
        assert cortex.status("slow")["revision"] != revision
    assert cortex.status("slow")["supervisor"] == supervisor


def test_a_port_file_that_was_cut_short(cortex: Cortex, deployed: str, slow: Path) -> None:
    """A disk that was full may have left it empty; the API is never at port 0."""
    (cortex.home / "apis/slow/port").write_text("")
    cortex("refresh", "slow")
    assert cortex.get("slow")["endpoint"] == deployed
    (cortex.home / "apis/slow/port").write_text("")
    slow.write_text(slow.read_text().split("  networking")[0] + "  compute: {cpu: 1}\n")
    cortex("deploy", slow)
    assert cortex.get("slow")["endpoint"] == deployed
    assert requests.post(deployed, timeout=10).text == "done"


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cortex]:
    """A home on a disk of its own, which holds 512 kB."""
    disk = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a disk can be mounted by root only")
    cortex = Cortex(disk / "home")
    try:
        yield cortex
    finally:
        for pid in cortex.family():
            psutil.Process(pid).kill()
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path, but: int = 0) -> None:
    """Use a disk up to the last byte, ``but`` some pages of 4 kB."""
    with contextlib.suppress(OSError), (disk / "full").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with (disk / "full").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 4096 * but)


def test_a_disk_that_is_full(small: Cortex, slow: Path) -> None:
    """Every command goes on where it can, and else says what could not be written; metrics alone suffer."""
    small("deploy", slow)
    fill(small.home.parent)
    assert "live" in small("get", "slow")
    assert "slow (RealtimeAPI) is up to date" in small("deploy", slow)
    assert "updating slow" in small("refresh", "slow")
    if NGINX:
        said = small("deploy", slow, "--front", f"nginx:{free_port()}", code=1)
        assert said == f"error: cannot write {small.home}: No space left on device"
    slow.with_name("predictor.py").write_text(SLOW + "# changed\n")
    assert "slow: cannot copy" in small("deploy", slow, code=1)
    assert requests.post(small.get("slow")["endpoint"], timeout=10).text == "done"
    small("delete", "slow")


def test_an_api_that_no_command_would_find_is_not_left(small: Cortex, slow: Path) -> None:
    """A first deployment on a disk with room for all but its status fails, and nothing of it runs on."""
    for pages in (5, 6, 7):
        small.home.parent.joinpath("full").unlink(missing_ok=True)
        fill(small.home.parent, but=pages)
        deployment = small.start("deploy", slow)
        said, _ = deployment.communicate(timeout=DEADLINE)
        assert ("slow" in small("get")) == bool(small.family()), said
        assert ("slow" in small("get")) == (deployment.returncode == 0), said
        if small.family():
            small("delete", "slow")


def test_a_home_that_is_read_only(cortex: Cortex, deployed: str, slow: Path) -> None:
    """It is said to be, by every command that would change something."""
    home = cortex.home
    for arguments in (["deploy", str(slow)], ["refresh", "slow"], ["delete", "slow"]):
        script = f"mount --bind {home} {home} && mount -o remount,ro,bind {home} && exec {CORTEX} {' '.join(arguments)}"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], env=cortex.env, capture_output=True, text=True, check=False
        )
        if "unshare" in done.stderr or "mount" in done.stderr:
            pytest.skip("a file system can be mounted by root only")
        assert done.stderr.strip().endswith(f"CORTEX_HOME={home} cannot be written to: Read-only file system")


def test_a_worker_that_outlives_its_supervisor_keeps_no_port(cortex: Cortex, deployed: str, slow: Path) -> None:
    """One that does not even hear that it is to end goes with the next deployment, which has its port."""
    with contextlib.suppress(requests.Timeout):
        requests.post(deployed, params={"busy": "1"}, timeout=1)
    os.kill(cortex.status("slow")["supervisor"], signal.SIGKILL)
    cortex("deploy", slow)
    assert cortex.get("slow")["endpoint"] == deployed
    assert requests.post(deployed, timeout=10).text == "done"


def test_a_home_that_was_removed(cortex: Cortex, deployed: str, slow: Path) -> None:
    """What still runs of it is replaced at its port by the next deployment, and ended by a deletion."""
    shutil.rmtree(cortex.home)
    cortex("deploy", slow)
    assert cortex.get("slow")["endpoint"] == deployed
    assert requests.post(deployed, timeout=10).text == "done"
    shutil.rmtree(cortex.home)
    cortex.home.mkdir()
    assert "slow is not deployed" in cortex("get", "slow", code=1)
    assert "deleting slow" in cortex("delete", "slow")
    assert not cortex.family()


def test_a_container_without_init(cortex: Cortex, slow: Path) -> None:
    """Its first process adopts what a command leaves running and never asks what came of it; deleting ends anyway."""
    subprocess.run([sys.executable, "-c", WITHOUT_INIT, CORTEX, slow], env=cortex.env, check=True)
    assert not cortex.family()


def test_what_a_predictor_starts_in_a_session_of_its_own(cortex: Cortex, slow: Path) -> None:
    """It ends with the API, a few seconds after it at most: also what does not hear that it is to end."""
    slow.with_name("predictor.py").write_text(SLOW + DETACHES)
    cortex("deploy", slow)
    detached = {pid for pid in cortex.family() if "7777.5" in " ".join(psutil.Process(pid).cmdline())}
    assert len(detached) == 2
    deletion = cortex.start("delete", "slow")
    said, _ = deletion.communicate(timeout=DEADLINE)
    assert deletion.returncode == 0, said
    assert not cortex.family()


def test_what_a_predictor_writes_beside_itself_stays(cortex: Cortex, deployed: str, slow: Path) -> None:
    """A deployment that is up to date leaves the files alone that run."""
    (revision,) = (cortex.home / "apis/slow/revisions").iterdir()
    (revision / "project/downloaded").write_text("much")
    (revision / "project/predictor.py").write_text(SLOW + "# longer")
    assert "up to date" in cortex("deploy", slow)
    assert (revision / "project/downloaded").read_text() == "much"


def test_what_a_predictor_empties_or_removes_beside_itself_stays_so(cortex: Cortex, deployed: str, slow: Path) -> None:
    """No deployment of what already runs takes the files away from under it, whatever has become of them."""
    for name in ("emptied", "removed"):
        slow.with_name(name).write_text("content")
    cortex("deploy", slow)
    project = cortex.home / "apis/slow/revisions" / cortex.status("slow")["revision"] / "project"
    (project / "emptied").write_text("")
    (project / "removed").unlink()
    (project / "written").write_text("much")
    there = project.stat().st_ino
    assert "up to date" in cortex("deploy", slow)
    assert "updating slow" in cortex("deploy", slow, "--force")
    assert project.stat().st_ino == there
    assert (project / "written").read_text() == "much"


def test_files_that_lost_their_content(cortex: Cortex, deployed: str, slow: Path) -> None:
    """A machine without power may keep the names of files that were just written, and nothing in them."""
    os.kill(cortex.status("slow")["supervisor"], signal.SIGKILL)
    (revision,) = (cortex.home / "apis/slow/revisions").iterdir()
    for file in (*revision.glob("*.json"), revision / "project/predictor.py"):
        file.write_bytes(b"")
    assert f"error: {revision} is damaged; `cortex deploy` writes it anew" in cortex("get", "slow", code=1)
    cortex("deploy", slow)
    assert requests.post(deployed, timeout=10).text == "done"
    assert "live" in cortex("get", "slow")


def test_a_supervisor_that_does_not_start_says_why(cortex: Cortex, slow: Path) -> None:
    """In the one line that there is: of a first deployment nothing is left to look at."""
    in_the_way = cortex.home / "run/slow"
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.touch()
    said = cortex("deploy", slow, code=1)
    assert f"error: slow: the supervisor did not start: FileExistsError: [Errno 17] File exists: '{in_the_way}'" in said
    assert not (cortex.home / "apis/slow").exists()
    in_the_way.unlink()


def test_a_long_home_from_shells_that_differ(
    tmp_path: Path, slow: Path, under_way: UnderWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another TMPDIR, or another way to write CORTEX_HOME, leads to the same supervisor: nothing is cut off or left."""
    home = tmp_path / ("x" * 100)
    cortex, other = Cortex(home), Cortex(home / ".." / home.name)
    try:
        cortex("deploy", slow)
        supervisor = cortex.status("slow")["supervisor"]
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        with under_way(cortex.get("slow")["endpoint"]):
            monkeypatch.setenv("TMPDIR", str(tmp_path / "one"))
            slow.with_name("predictor.py").write_text(SLOW + "# changed\n")
            assert "updating slow" in other("deploy", slow)
            assert cortex.status("slow")["supervisor"] == supervisor
        monkeypatch.setenv("TMPDIR", str(tmp_path / "two"))
        other("delete", "slow")
        assert not cortex.family()
    finally:
        for pid in cortex.family():
            psutil.Process(pid).kill()
