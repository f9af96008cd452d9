"""The reference under the real Gunicorn, and a deployment by a stand-in of the `cortex` command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmark import startup
from benchmark.systems import Deployment, FlaskAPI
from cortex.errors import UserError
from cortex.loadtest import HTTP, ClosedLoop, Payload, run
from cortex.pid import lives
from tests.processes import children
from tests.waiting import DEADLINE

ROOT = Path(__file__).parents[2]

# A supervisor with one worker of the name that is looked for; the worker answers every POST, and says that it is ready.
CORTEX = """#!{python}
import os, pathlib, signal, socket, subprocess, sys, time
home = pathlib.Path(os.environ["CORTEX_HOME"])
command, name = sys.argv[1:3]
if command == "deploy":
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (home / "port").write_text(str(listener.getsockname()[1]))
        listener.set_inheritable(True)
        worker = [sys.executable, "-m", "cortex.api.server"]
        env = os.environ | {{"CORTEX_LISTEN_FD": str(listener.fileno())}}
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        process = subprocess.Popen(worker, cwd={modules!r}, env=env, close_fds=False, start_new_session=True, **quiet)
    (home / "pid").write_text(str(process.pid))
elif command == "get":
    assert sys.argv[3:] == ["-o", "json"]
    print('\\n[{{"endpoint": "http://127.0.0.1:' + (home / "port").read_text() + '"}}]')
elif command == "delete" and not (home / "broken").exists():
    os.kill(int((home / "pid").read_text()), signal.SIGKILL)
else:
    sys.exit("error: " + command + " went wrong")
"""

WORKER = """
import http.server, os, socket
from cortex_notify import notify

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=int(os.environ["CORTEX_LISTEN_FD"]))
notify(ready=True)
server.serve_forever()
"""

WSGI = """
import os
def app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"{}"]
"""


@pytest.fixture
def cortex(tmp_path: Path) -> Path:
    """A stand-in of the command, whose workers are processes named as real ones."""
    modules = tmp_path / "modules"
    (modules / "cortex" / "api").mkdir(parents=True)
    (modules / "cortex" / "__init__.py").touch()
    (modules / "cortex" / "api" / "server.py").write_text(WORKER)
    (modules / "cortex_notify.py").write_text((ROOT / "cortex" / "notify.py").read_text())
    command = tmp_path / "cortex"
    command.write_text(CORTEX.format(python=sys.executable, modules=str(modules)))
    command.chmod(0o755)
    return command


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cortex_cpu.yaml"
    path.write_text("- name: classifier\n")
    return path


def test_deployment(cortex: Path, config: Path) -> None:
    """A deployment is live when its context is entered, and everything of it is gone when the context is left."""
    with Deployment(config, cortex) as deployment:
        home = Path(deployment._home.name)
        assert run(ClosedLoop(samples=3), HTTP(deployment.url), Payload(b"", "text/plain")).requests == 3
        [worker] = deployment.workers()
        assert deployment.processes() == [worker]
    assert not lives(worker)
    assert not home.exists()


def test_a_broken_deployment_is_ended(cortex: Path, config: Path) -> None:
    """When `cortex delete` fails, the processes are ended all the same."""
    with Deployment(config, cortex) as deployment:
        [worker] = deployment.workers()
        (Path(deployment._home.name) / "broken").touch()
    assert not lives(worker)


def test_startup(cortex: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start-up is measured at a second deployment and at one more worker, which ends again."""

    monkeypatch.setattr(startup, "Deployment", lambda config: Deployment(config, cortex))
    steps: list[str] = []
    found = startup.measured(config, steps.append)
    assert (found.workers, found.workers_with_tensorflow) == (1, 0)
    assert min(found.cold_seconds, found.live_seconds, found.worker_seconds, found.memory.pss) > 0
    assert [name.split()[0] for name in found.processes] == ["cortex.api.server"]
    assert len(steps) == 3
    assert found.table().row_count == 6
    assert not children("cortex.api.server")


@pytest.mark.parametrize("text", ["", "[]", "name: x", "- [", "- 7"])
def test_bad_config(tmp_path: Path, text: str) -> None:
    """A yaml without a first API with a name is one clear line."""
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml: cannot read the name of its first API"):
        Deployment(tmp_path / "bad.yaml")


def test_failed_deploy(tmp_path: Path, config: Path) -> None:
    """A deployment that fails shows what the command said."""
    command = tmp_path / "cortex"
    command.write_text("#!/bin/sh\necho 'error: no model' >&2; exit 1\n")
    command.chmod(0o755)
    with pytest.raises(UserError, match=r"cortex deploy .* failed: error: no model"), Deployment(config, command):
        pass


def test_gunicorn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gunicorn is up when all three workers have loaded the app, and gone with the context."""
    (tmp_path / "tiny.py").write_text(WSGI)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    with FlaskAPI("tiny:app") as system:
        family = system.processes()
        assert len(family) == 4
        assert run(ClosedLoop(samples=3), HTTP(system.url), Payload(b"", "text/plain")).requests == 3
    assert not any(lives(each) for each in family)


def test_gunicorn_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that cannot be loaded is told at once, with what it said."""
    with pytest.raises(UserError, match="No module named 'nowhere'"), FlaskAPI("nowhere:app"):
        pass


FLASK = """
import io, json, sys
from benchmark.flask_api import app
client = app.test_client()
print(json.dumps([
    client.post("/predict", data={"image": (io.BytesIO(open(sys.argv[1], "rb").read()), "cat.jpg")}).get_json(),
    client.post("/predict", data={}).status_code,
]))
"""


def test_flask_api() -> None:
    """The reference answers as the tutorial's API does: five labels with probabilities, best first."""
    command = [sys.executable, "-c", FLASK, ROOT / "export" / "cat.jpg"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    answer, bad = json.loads(done.stdout.splitlines()[-1])
    probabilities = [each["probability"] for each in answer["predictions"]]
    assert answer["success"] is True
    assert len(answer["predictions"]) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(isinstance(each["label"], str) for each in answer["predictions"])
    assert bad == 400


def compare(*arguments: object, cortex: Path, model: Path, **popen: Any) -> subprocess.Popen[str]:
    """Start ``python -m benchmark compare`` for fp32, with a stand-in of the `cortex` command, a small app for the
    reference, a small picture for the large one, one client, and each third of the cells with forms."""
    patch = (
        "import pathlib, runpy, sys; import benchmark.payloads, benchmark.sections, benchmark.systems as s;"
        f"s.Deployment.__init__.__defaults__ = (pathlib.Path({str(cortex)!r}),);"
        "s.FlaskAPI.__init__.__defaults__ = ('tiny:app',);"
        "benchmark.payloads._LARGE_SIZE = (40, 30); benchmark.sections.CLIENTS = (1,);"
        "forms = benchmark.sections.forms; benchmark.sections.forms = lambda *it: forms(*it)[::3];"
        "sys.argv[0] = 'benchmark'; runpy.run_module('benchmark', run_name='__main__')"
    )
    words = ("compare", "--precision", "fp32", "--model", model, *arguments)
    command = [sys.executable, "-c", patch, *(str(word) for word in words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **popen)


@pytest.fixture
def tiny_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.py").write_text(WSGI)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A base path with one version, which the stand-in does not look into."""
    (tmp_path / "model" / "1").mkdir(parents=True)
    return tmp_path / "model"


@pytest.mark.usefixtures("tiny_app")
def test_compare_command(cortex: Path, model: Path, tmp_path: Path) -> None:
    """`compare` measures the sections asked for, keeps them as JSON, prints tables, and writes them when told to."""
    kept, document = tmp_path / "out.json", tmp_path / "performance.md"
    arguments = ["--only", "forms", "--only", "overload", "--quick", "--json", kept]
    process = compare(*arguments, cortex=cortex, model=model)
    stdout, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, stderr
    assert "round 1 of 1: API, fp32, json, large picture, 1 client" in stderr
    sections = json.loads(kept.read_text())["sections"]
    assert sorted(sections) == ["forms, fp32", "overload, fp32"]
    assert len(sections["forms, fp32"]["rows"]) == 3
    assert all(run["rate"] > 0 for row in sections["forms, fp32"]["rows"] for run in row["runs"])
    [overload] = sections["overload, fp32"]["overload"]
    assert [flood["offered"] / flood["best"] for flood in overload["floods"]] == [4]
    assert f"    scripts/bench --precision fp32 --model {model} --only forms" in stdout
    document.write_text("<!-- figures: written by scripts/bench --write-docs -->\n<!-- end of figures -->\n")
    again = ["--json", kept, "--write-docs", "--document", document]
    _, stderr = compare(*again, cortex=cortex, model=model).communicate(timeout=DEADLINE)
    assert not stderr
    assert stdout.strip() in document.read_text()


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.usefixtures("tiny_app")
def test_ctrl_c(cortex: Path, model: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a comparison leaves no process of either system."""
    arguments = ("--only", "forms", "--seconds", 60, "--json", tmp_path / "out.json")
    process = compare(*arguments, cortex=cortex, model=model, start_new_session=True)
    mine, deadline = psutil.Process(process.pid), time.monotonic() + DEADLINE
    try:
        started: set[psutil.Process] = set()
        while not any("cortex.loadtest" in command_of(each) for each in started):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            started |= set(mine.children(recursive=True))
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 1
    assert len(started) >= 5
    assert not any(lives(each) for each in started)
