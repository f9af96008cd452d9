"""What is on disk under CORTEX_HOME, seen by several commands at once."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from cortex.environments.state import APIDirectory, Home, supervisor
from cortex.errors import UserError
from cortex.pid import since_boot
from cortex.status import Status

HOLD = """
import sys
from pathlib import Path
from cortex.environments.state import Home
with Home(Path(sys.argv[1])).lock("a"):
    print("held", flush=True)
    sys.stdin.read()
"""


def _status(pid: int, started: float, state: str = "live") -> Status:
    row = {"name": "api-0", "pid": pid, "state": "ready", "restarts": 0}
    return Status(state, "r1", "127.0.0.1", 8888, supervisor=pid, supervisor_started=started, processes=(row,))


def _write(root: Path, status: Status) -> APIDirectory:
    api = Home(root).api("a")
    api.path.mkdir(parents=True)
    status.save(api.path / "status.json")
    return api


def test_a_lock_is_held_against_other_processes_and_dies_with_its_holder(tmp_path: Path) -> None:
    """A second command is told at once; a killed one blocks nobody; nothing is left in the lock directory."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin
    assert holder.stdout
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another cortex command is changing a"), Home(tmp_path).lock("a"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    with Home(tmp_path).lock("a"):
        pass
    assert not list((tmp_path / "locks").iterdir())


@pytest.mark.parametrize("left", ["revisions", "logs"])
def test_what_was_killed_in_the_middle_is_found(tmp_path: Path, left: str) -> None:
    """A deployment that was killed may have left anything, a deletion whatever it came to last."""
    _write(tmp_path, _status(1, 0.0))
    (Home(tmp_path).api("b").path / left).mkdir(parents=True)
    assert Home(tmp_path).unfinished() == ["b"]


def test_a_lock_is_released_by_an_error(tmp_path: Path) -> None:
    """An exception inside leaves neither the lock nor its file."""
    home = Home(tmp_path)
    with pytest.raises(ZeroDivisionError), home.lock("a"):
        raise ZeroDivisionError
    assert not list((tmp_path / "locks").iterdir())


def test_a_living_supervisor_is_believed(tmp_path: Path) -> None:
    """The status file is taken as it is while the process that wrote it lives."""
    status = _status(os.getpid(), since_boot(psutil.Process()))
    assert _write(tmp_path, status).status() == status


def test_a_clock_that_is_set_takes_no_supervisor_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux counts a process's start from the machine's, and tells the machine's by the clock as it is now."""
    api = _write(tmp_path, _status(os.getpid(), since_boot(psutil.Process())))
    booted = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + 60)
    monkeypatch.setattr("psutil._pslinux.BOOT_TIME", booted + 60, raising=False)
    status = api.status()
    assert status
    assert status.status == "live"


def test_a_recycled_pid_is_not_the_supervisor(tmp_path: Path) -> None:
    """Another process with the old pid does not make a dead API look alive."""
    status = _status(os.getpid(), since_boot(psutil.Process()) - 100)
    found = _write(tmp_path, status).status()
    assert supervisor(status) is None
    assert found is not None
    assert (found.status, found.processes) == ("error", ())
    assert "run `cortex deploy` again" in found.reason


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"status": "live"}', '{"surprise": 1, "notices": [], "processes": []}']
)
def test_a_damaged_status_file_is_no_status(tmp_path: Path, text: str) -> None:
    """Half a file, or someone else's, never raises."""
    api = _write(tmp_path, _status(1, 1))
    (api.path / "status.json").write_text(text)
    assert api.status() is None


@pytest.mark.parametrize("name", ["spec", "resolved", "notices"])
@pytest.mark.parametrize("text", [None, "", "{"])
def test_a_revision_that_is_damaged_is_told(name: str, text: str | None, tmp_path: Path) -> None:
    """Whichever of its files is gone or has lost its content, in one line that says what to do."""
    api = Home(tmp_path).api("a")
    api.revision("r1").mkdir(parents=True)
    if text is not None:
        (api.revision("r1") / f"{name}.json").write_text(text)
    with pytest.raises(UserError, match=r"/apis/a/revisions/r1 is damaged; `cortex deploy` writes it anew$"):
        getattr(api, name)("r1")


@pytest.mark.parametrize("name", ["b", "../a", "", ".", "a/../a", "a\0"])
def test_only_names_of_deployed_apis_lead_anywhere(tmp_path: Path, name: str) -> None:
    """A name from the command line is never joined to a path before it is known."""
    _write(tmp_path, _status(1, 1))
    with pytest.raises(UserError, match="is not deployed"):
        Home(tmp_path).find(name)


@pytest.mark.parametrize("uid", [0, 4_294_967_294])
@pytest.mark.parametrize("depth", [0, 30, 60, 90])
def test_sockets_fit_however_long_names_are(
    uid: int, depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Unix socket's path may have 107 bytes: a home that is too deep gets its sockets elsewhere, for every user."""
    deep = tmp_path / ("x" * 120)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp".ljust(depth, "t"))
    monkeypatch.setattr(os, "getuid", lambda: uid)
    homes = [Home(home).api(name * 42) for home in (deep, deep / "y") for name in "ab"]
    assert Home(Path("/h")).api("a").run_dir == Path("/h/run/a")
    assert len({api.run_dir for api in homes}) == len(homes)
    for api in homes:
        assert len(str(api.run_dir / "123456" / "model-server-100.sock.line")) <= 107


def test_sockets_are_not_put_where_somebody_else_may_reach_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All users can tell where the temporary directory of a home will be, and one of them may be there first."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    api = Home(tmp_path / ("x" * 120)).api("a")
    api.clear_run_dir()
    assert api.run_dir.parent.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(UserError, match="belongs to another user: remove it, or set TMPDIR"):
        api.clear_run_dir()
