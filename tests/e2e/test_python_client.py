"""`cortex.client`, from scripts and from this process, as Cortex's users wrote them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cortex as package
from cortex.errors import UserError
from cortex.python_client import Client
from tests.e2e import a_predictor
from tests.e2e.deployment import Cortex, post
from tests.processes import children
from tests.waiting import until

SPEC = {"name": "greeter", "kind": "RealtimeAPI", "predictor": {"config": {"greeting": "hello"}}}

SCRIPT = """\
import math

import cortex

ROUND = math.floor

class PythonPredictor:
    def __init__(self, config):
        self.greeting = config["greeting"]

    def predict(self, payload):
        return f"{self.greeting} {ROUND(payload)}"

cx = cortex.client("local")
spec = {"name": "greeter", "kind": "RealtimeAPI", "predictor": {"config": {"greeting": "hello"}}}
print(cx.create_api(spec, predictor=PythonPredictor, wait=True)["endpoint"])
"""

PROJECT = """\
from words import GREETING

class PythonPredictor:
    def __init__(self, config):
        pass

    def predict(self, payload):
        return f"{GREETING} {payload}"
"""


@pytest.fixture
def client(cortex: Cortex, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client in this process, of the home that the command has, too."""
    for name in ("CORTEX_HOME", "CORTEX_HOST"):
        monkeypatch.setenv(name, cortex.env[name])
    return package.client("local")


def test_a_class_of_a_script(cortex: Cortex, client: Client, tmp_path: Path) -> None:
    """It is deployed with the globals that it uses; the script ends, and the API stays until it is deleted."""
    endpoint = _run(cortex, tmp_path, SCRIPT)
    assert post(endpoint, 2.5).text == "hello 2"
    [listed] = client.list_apis()
    assert listed["spec"]["name"] == "greeter"
    assert listed["endpoint"] == endpoint
    client.refresh("greeter")
    assert client.get_api("greeter")["status"]["status_code"] == "status_live"
    assert post(endpoint, 3.5).text == "hello 3"
    client.delete_api("greeter")
    assert client.list_apis() == []
    cortex.clean()
    assert not [*cortex.home.glob("deployments/*")]


def test_a_class_of_a_module(client: Client) -> None:
    """Its file is the predictor: the module need not be there."""
    deployed = client.create_api(SPEC, a_predictor.PythonPredictor)
    assert post(deployed["api"]["endpoint"], 4.5).text == "hello 4"
    assert "path" not in SPEC["predictor"], "the caller's dictionary is the caller's"
    client.delete_api("greeter")


def test_a_deleted_api_leaves_no_zombie(client: Client) -> None:
    """Whoever deploys goes on living here, and is the parent of the API's supervisor."""
    client.create_api(SPEC, a_predictor.PythonPredictor)
    (supervisor,) = children("cortex.supervisor")
    client.delete_api("greeter")
    until(lambda: not supervisor.is_running())


def test_a_project(client: Client, tmp_path: Path) -> None:
    """A predictor among other files is deployed with them, and its directory is left as it was."""
    (tmp_path / "words.py").write_text("GREETING = 'good morning'")
    (tmp_path / "predictor.py").write_text(PROJECT)
    spec = {"name": "greeter", "kind": "RealtimeAPI", "predictor": {"type": "python", "path": "predictor.py"}}
    deployed = client.create_api(spec, project_dir=tmp_path)
    assert post(deployed["api"]["endpoint"], 1).text == "good morning 1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictor.py", "words.py"]
    client.delete_api("greeter")


def test_a_yaml(client: Client, tmp_path: Path) -> None:
    """`deploy` takes the path of a yaml, as in Cortex 0.21, and says of each of its APIs what came of it."""
    (tmp_path / "predictor.py").write_text(PROJECT.replace("from words import GREETING", "GREETING = 'good evening'"))
    (tmp_path / "cortex.yaml").write_text(
        "- {name: one, kind: RealtimeAPI, predictor: {type: python, path: predictor.py}}\n"
        "- {name: two, kind: RealtimeAPI, predictor: {type: python, path: predictor.py}}\n"
    )
    deployed = client.deploy(str(tmp_path / "cortex.yaml"), True, wait=True)
    assert [each["api"]["spec"]["name"] for each in deployed] == ["one", "two"]
    for each in deployed:
        assert post(each["api"]["endpoint"], 1).text == "good evening 1"
        client.delete_api(each["api"]["spec"]["name"])


def test_the_logs(cortex: Cortex, client: Client, tmp_path: Path) -> None:
    """`stream_api_logs` prints until it is interrupted."""
    client.create_api(SPEC, a_predictor.PythonPredictor)
    script = tmp_path / "logs.py"
    script.write_text("import cortex; cortex.client('local').stream_api_logs('greeter')")
    with subprocess.Popen([sys.executable, script], env=cortex.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("loading the predictor" in line for line in process.stdout)
        process.kill()
    client.delete_api("greeter")


def test_a_class_that_fails(cortex: Cortex, client: Client) -> None:
    """The error is the command's; the files that it speaks of are still there, until the next try succeeds."""
    spec = {**SPEC, "predictor": {"config": {}}}
    with pytest.raises(UserError, match=r"greeter: .*KeyError: 'greeting'"):
        client.create_api(spec, a_predictor.PythonPredictor, requirements=["numpy"])
    assert (cortex.home / "deployments/greeter/requirements.txt").read_text() == "numpy"
    client.create_api(SPEC, a_predictor.PythonPredictor)
    assert not (cortex.home / "deployments/greeter").exists()
    client.delete_api("greeter")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either predictor or project_dir must be given"),
        ({"predictor": a_predictor.PythonPredictor, "project_dir": "."}, "either predictor or project_dir"),
        ({"predictor": a_predictor.PythonPredictor({"greeting": ""})}, "predictor: must be a class, not <tests.e2e"),
        ({"predictor": type("PythonPredictor", (), {"__module__": "x"})}, "the file that defines it cannot be read"),
        ({"project_dir": "nowhere"}, "project_dir: nowhere: No such file or directory"),
        (
            {"predictor": a_predictor.PythonPredictor, "api_spec": {**SPEC, "kind": "TaskAPI"}},
            "deployments/greeter/cortex.yaml:2: greeter: kind: ",
        ),
        (
            {"predictor": a_predictor.PythonPredictor, "api_spec": {**SPEC, "name": "../x"}},
            r"deployments/---x/cortex.yaml:1: \.\./x: name: ",
        ),
        (
            {"predictor": a_predictor.PythonPredictor, "api_spec": {**SPEC, "networking": {1, object()}}},
            "api_spec: must be plain data, as in a yaml",
        ),
        (
            {"predictor": a_predictor.PythonPredictor, "requirements": ["no-such-package==1"]},
            "asks for packages that are not installed:\n  no-such-package==1: not installed\ninstall them with: ",
        ),
    ],
)
def test_what_cannot_be_deployed(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    """One error says what is wrong, before anything runs or is written beside the caller."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        client.create_api(**{"api_spec": SPEC, **arguments})
    assert not [*tmp_path.iterdir()]
    assert client.list_apis() == []


def test_a_class_that_cannot_be_pickled(cortex: Cortex, tmp_path: Path) -> None:
    """A class of a script that uses what lives in this process alone is refused, and so is one without dill."""
    script = SCRIPT.replace("ROUND = math.floor", "import threading; ROUND = (i for i in ())")
    assert "UserError: predictor: cannot be pickled: TypeError: " in _run(cortex, tmp_path, script, code=1)
    script = SCRIPT.replace("import math", "import math, sys; sys.modules['dill'] = None")
    assert "needs dill: pip install dill" in _run(cortex, tmp_path, script, code=1)


def test_a_dictionary_is_no_yaml(client: Client) -> None:
    """Versions of Cortex differ in what `deploy` takes; the error names the method for the other thing."""
    with pytest.raises(UserError, match="create_api takes an API that is a dictionary"):
        client.deploy(SPEC)  # type: ignore[arg-type]


def test_no_such_environment_or_api(client: Client) -> None:
    """Both are told in the command's words."""
    with pytest.raises(UserError, match='unable to find environment named "aws"'):
        package.client("aws")
    for ask in (client.get_api, client.refresh, client.delete_api, client.stream_api_logs):
        with pytest.raises(UserError, match="nobody is not deployed"):
            ask("nobody")


def test_importing_the_package_imports_no_more() -> None:
    """A worker and a model server import it, too: the client's modules come when it is asked for."""
    code = "import sys, json, cortex; print(json.dumps([name for name in sys.modules if name.startswith('cortex.')]))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert json.loads(done.stdout) == []


def _run(cortex: Cortex, directory: Path, script: str, code: int = 0) -> str:
    """Run a script; return the last line that it printed."""
    (directory / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=directory,
        env={**os.environ, **cortex.env},
        text=True,
        stdout=subprocess.PIPE,
        stderr=None if code == 0 else subprocess.STDOUT,
    )
    assert done.returncode == code, done.stdout
    return done.stdout.strip().splitlines()[-1]
