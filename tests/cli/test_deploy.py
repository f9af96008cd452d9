"""What `cortex deploy` prints, and where."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from cortex.environments.base import Deployed

_CREATED = """\
creating iris (RealtimeAPI)

cortex get        (show api statuses)
cortex get iris   (show api info)
cortex logs iris  (stream api logs)

endpoint: http://localhost:8888
example curl: curl http://localhost:8888 -X POST -H "Content-Type: application/json" -d @sample.json
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a yaml that is valid, in the current directory."""
    (tmp_path / "predictor.py").write_text("")
    config = tmp_path / "cortex.yaml"
    config.write_text("- name: iris\n  kind: RealtimeAPI\n  predictor: {type: python, path: predictor.py}\n")
    monkeypatch.chdir(tmp_path)
    return config


@pytest.mark.usefixtures("project")
def test_success_shows_what_to_do_next(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    """One API that went live: its message, three commands, its endpoint, a curl that works; steps go to stderr."""
    world.steps = ("starting the model server", "starting the model server", "waiting for worker 0")
    world.results = (Deployed("iris", "creating iris (RealtimeAPI)", api=fakes.api()),)
    ran = cortex("deploy")
    assert (ran.code, ran.out, ran.err) == (0, _CREATED, "starting the model server\nwaiting for worker 0\n")
    assert world.calls == [("deploy", {"config": Path("cortex.yaml"), "names": ["iris"], "force": False})]


def test_config_file_force_and_yes_are_passed_on(cortex: Callable[..., Any], world: Any, project: Path) -> None:
    assert cortex("deploy", project, "--force", "--yes").code == 0
    assert world.calls == [("deploy", {"config": project, "names": ["iris"], "force": True})]


@pytest.mark.usefixtures("project")
def test_notices_are_warnings_on_stderr(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    """A notice names its API once."""
    notices = ("the model has random weights", "iris will run without gpu access")
    world.results = (Deployed("iris", "iris is up to date", api=fakes.api(notices=notices)),)
    ran = cortex("deploy")
    assert ran.err == "warning: iris: the model has random weights\nwarning: iris will run without gpu access\n"
    assert ran.out.startswith("iris is up to date\n\ncortex get ")


@pytest.mark.usefixtures("project")
def test_several_apis_one_message_a_line_and_errors_last(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    """One that failed makes the exit code 1, and does not hide those that went live."""
    other = fakes.api(fakes.IRIS.model_copy(update={"name": "wine"}), endpoint="http://localhost:8889")
    world.results = (
        Deployed("bad", "", error="worker 0 did not start: no module named torch", api=fakes.api(notices=("old",))),
        Deployed("iris", "creating iris (RealtimeAPI)", api=fakes.api()),
        Deployed("wine", "updating wine (RealtimeAPI)", api=other),
    )
    ran = cortex("deploy")
    assert ran.code == 1
    assert ran.err == "error: bad: worker 0 did not start: no module named torch\n"
    assert ran.out == (
        "creating iris (RealtimeAPI)\nupdating wine (RealtimeAPI)\n\n"
        "cortex get            (show api statuses)\n"
        "cortex get API_NAME   (show api info)\n"
        "cortex logs API_NAME  (stream api logs)\n\n"
        "iris\nendpoint: http://localhost:8888\nexample curl: curl http://localhost:8888 -X POST "
        '-H "Content-Type: application/json" -d @sample.json\n\n'
        "wine\nendpoint: http://localhost:8889\nexample curl: curl http://localhost:8889 -X POST "
        '-H "Content-Type: application/json" -d @sample.json\n'
    )


@pytest.mark.usefixtures("project")
def test_failure_alone_prints_nothing_on_stdout(cortex: Callable[..., Any], world: Any) -> None:
    world.results = (Deployed("iris", "creating iris (RealtimeAPI)", error="iris: port 8888 is in use"),)
    ran = cortex("deploy")
    assert (ran.code, ran.out, ran.err) == (1, "", "error: iris: port 8888 is in use\n")


@pytest.mark.usefixtures("project")
def test_json_has_cortex_keys(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    """One compact line on stdout whatever happened; stderr and the exit code are those of the pretty output."""
    world.steps = ("starting the model server",)
    world.results = (
        Deployed("iris", "creating iris (RealtimeAPI)", api=fakes.api()),
        Deployed("bad", "creating bad (RealtimeAPI)", error="did not start"),
    )
    ran = cortex("deploy", "-o", "json")
    good, bad = json.loads(ran.out)
    assert ran.out.count("\n") == 1
    assert (good["message"], good["error"]) == ("creating iris (RealtimeAPI)", "")
    assert good["api"]["status"]["status_code"] == "status_live"
    assert bad == {"api": None, "message": "creating bad (RealtimeAPI)", "error": "did not start"}
    assert (ran.code, ran.err) == (1, "starting the model server\nerror: bad: did not start\n")


@pytest.mark.usefixtures("project")
def test_a_short_option_may_have_its_value_behind_an_equals_sign(cortex: Callable[..., Any], world: Any) -> None:
    """Scripts made for Cortex's command write `-o=json`."""
    assert json.loads(cortex("deploy", "-e=local", "-o=json").out) == []
    assert cortex("deploy", "-o=yaml").code == 2
    assert [name for name, _ in world.calls] == ["deploy"]


@pytest.mark.usefixtures("project")
def test_commands_name_an_environment_that_is_not_the_default(cortex: Callable[..., Any], fakes: Any) -> None:
    cortex("env", "configure", "docker")
    fakes.FakeDocker.world.results = (Deployed("iris", "creating iris (RealtimeAPI)", api=fakes.api()),)
    ran = cortex("deploy", "-e", "docker")
    assert "cortex logs iris --env docker  (stream api logs)\n" in ran.out
    assert ran.err == ""


@pytest.mark.usefixtures("project")
def test_choice_made_for_the_user_is_said(cortex: Callable[..., Any]) -> None:
    """With more than one environment and no --env, the one in use is named, and not on stdout."""
    cortex("env", "configure", "docker")
    assert cortex("deploy").err == "using local environment\n"


def test_missing_default_config(cortex: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cortex("deploy")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "error: no api config file was specified, and ./cortex.yaml does not exist; create cortex.yaml, or reference "
        "an existing config file by running `cortex deploy <config_file_path>`\n"
    )


def test_default_config_in_a_closed_directory(
    cortex: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where somebody runs a command as another user, from a home directory."""

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "exists", Mock(side_effect=PermissionError(13, "Permission denied")))
    assert cortex("deploy").err == "error: cortex.yaml: cannot be read: Permission denied\n"


def test_errors_of_the_yaml_are_shown(cortex: Callable[..., Any], world: Any, project: Path) -> None:
    """A yaml that is wrong reaches no environment."""
    project.write_text(project.read_text() + "  foo: 1\n")
    ran = cortex("deploy")
    assert (ran.code, ran.out, world.calls) == (1, "", [])
    assert ran.err.startswith("error: ")
    assert "foo" in ran.err


@pytest.mark.usefixtures("project")
def test_a_front_is_chosen_before_anything_else(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    """Where it cannot be had nothing is deployed; a dry run chooses none."""
    cortex("deploy", "--front", "nginx:8080", "--dry-run")
    assert [call for call, _ in world.calls] == ["render"]
    world.calls.clear()
    cortex("deploy", "--front", "nginx:8080")
    assert [call for call, _ in world.calls] == ["choose_front", "deploy"]
    assert world.calls[0][1] == {"choice": "nginx:8080"}
    world.calls.clear()
    world.error = fakes.UserError("nginx is not installed")
    ran = cortex("deploy", "--front", "nginx")
    assert (ran.code, ran.err) == (1, "error: nginx is not installed\n")
    assert [call for call, _ in world.calls] == ["choose_front"]
