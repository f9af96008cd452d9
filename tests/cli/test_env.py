"""`cortex env`, and the file in which it keeps the user's choice."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cortex.environments.registry import Registry, cortex_home
from cortex.errors import CortexError


def test_local_is_always_there(cortex: Callable[..., Any], home: Path) -> None:
    """Looking writes nothing."""
    assert cortex("env", "list").out == "name: local (default)\nprovider: local\n"
    assert not home.exists()


def test_life_of_an_environment(cortex: Callable[..., Any], home: Path) -> None:
    """Configure, list, make it the default, use it, delete it; the default then falls back to local."""
    assert cortex("env", "configure", "prod", "--provider", "docker").out == "configured prod environment\n"
    assert cortex("env", "list").out == "name: local (default)\nprovider: local\n\nname: prod\nprovider: docker\n"
    assert cortex("env", "default", "prod").out == "set prod as the default environment\n"
    assert cortex("env", "default", "prod").out == "prod is already the default environment\n"
    assert json.loads(cortex("env", "list", "-o", "json").out) == [
        {"name": "local", "provider": "local", "default": False, "settings": {}},
        {"name": "prod", "provider": "docker", "default": True, "settings": {}},
    ]
    ran = cortex("delete", "iris")
    assert (ran.code, ran.err) == (1, "using prod environment\nerror: iris is not deployed\n")
    assert cortex("env", "delete", "prod").out == (
        "deleted the prod environment configuration\nset local as the default environment\n"
    )
    assert yaml.safe_load((home / "cli.yaml").read_text()) == {"default_environment": "local", "environments": []}
    assert sorted(file.name for file in home.iterdir()) == ["cli.lock", "cli.yaml"]


def test_local_is_cleared_but_stays(cortex: Callable[..., Any]) -> None:
    assert cortex("env", "delete", "local").out == "cleared the local environment configuration\n"
    assert (
        cortex("env", "list", "-o", "json").out
        == '[{"name":"local","provider":"local","default":true,"settings":{}}]\n'
    )


def test_messages_as_json(cortex: Callable[..., Any]) -> None:
    assert cortex("env", "configure", "docker", "-o", "json").out == '{"message":"configured docker environment"}\n'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get", "iris", "-e", "x"], 'unable to find environment named "x"; `cortex env list` shows those that are'),
        (["env", "default", "x"], "x environment is not configured; `cortex env list` shows those that are"),
        (["env", "delete", "x"], "x environment is not configured; `cortex env list` shows those that are"),
        (
            ["env", "configure", "x"],
            'the provider "x" is not part of this project (there is: docker, local); say which runs x with --provider',
        ),
        (["env", "configure", "x", "-p", "local"], '"x": the environment that the local provider runs must be named'),
        (["env", "configure", "../up", "-p", "docker"], "'../up' cannot be the name of an environment: it must be a"),
        (["env", "configure", "local", "-p", "docker"], '"local": the environment that the local provider runs must'),
    ],
)
def test_wrong_names(arguments: list[str], message: str, cortex: Callable[..., Any]) -> None:
    ran = cortex(*arguments)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "invalid yaml: "),
        ("- local", "must be a map with the keys default_environment and environments"),
        ("environments: local", "environments: must be a list"),
        ("environments: [local]", "environments[0]: name: must be a string"),
        ("environments: [{name: local}]", "environments[0]: provider: must be a string"),
        ("environments: [{name: 1, provider: local}]", "environments[0]: name: must be a string"),
        ("environments: [{name: a, provider: x}, {name: a, provider: x}]", 'environments[1]: name: "a" is there twice'),
        ("environments: [{name: ../up, provider: docker}]", "environments[0]: name: '../up' must be a letter or digit"),
        ("default_environment: x", 'default_environment: there is no environment named "x"'),
        ("default_environment: [x]", "default_environment: there is no environment named \"['x']\""),
        ("\udcff", "cannot be read: 'utf-8' codec"),
    ],
)
def test_file_that_is_wrong(text: str, message: str, cortex: Callable[..., Any], home: Path) -> None:
    """One line names the file and the key; the file is left as it is."""
    home.mkdir(parents=True)
    file = home / "cli.yaml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    for arguments in (["get"], ["env", "configure", "docker"]):
        ran = cortex(*arguments)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(f"error: {file}: {message}")
        assert ran.err.count("\n") == 1
    assert file.read_bytes() == text.encode(errors="surrogateescape")


def test_file_that_cortex_wrote(cortex: Callable[..., Any], home: Path) -> None:
    """Environments of a cloud are listed and kept, never used by default, and refused by name."""
    home.mkdir(parents=True)
    aws = {"name": "aws", "provider": "aws", "operator_endpoint": "https://example.com"}
    (home / "cli.yaml").write_text(
        yaml.safe_dump({"telemetry": True, "default_environment": "aws", "environments": [aws]})
    )
    assert cortex("env", "list").out.startswith("name: aws (default)\nprovider: aws\n\nname: local\n")
    assert cortex("get").out.splitlines()[1].startswith("local   iris")
    ran = cortex("get", "iris")
    assert ran.err == (
        'error: aws environment: the provider "aws" is not part of this project (there is: docker, local); '
        "choose another environment with --env, or for good with `cortex env default local`\n"
    )
    assert cortex("env", "default", "local").code == 0
    assert cortex("env", "default", "aws").code == 1
    kept = yaml.safe_load((home / "cli.yaml").read_text())
    assert kept == {"telemetry": True, "default_environment": "local", "environments": [aws]}


def test_home_that_is_a_file(cortex: Callable[..., Any], home: Path) -> None:
    home.parent.mkdir()
    home.write_text("a file")
    for arguments, why in (
        (("get",), "cannot be read: Not a directory"),
        (("env", "configure", "docker"), "cannot be written: File exists"),
    ):
        ran = cortex(*arguments)
        assert (ran.code, ran.err) == (1, f"error: {home / 'cli.yaml'}: {why}\n")


def test_two_at_once_lose_nothing(registry: Registry) -> None:
    """Every change of the file is made on what the last one left."""
    names = [f"env-{number}" for number in range(16)]
    threads = [threading.Thread(target=registry.configure, args=(name, "docker")) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.name for entry in registry.configured()} == {"local", *names}


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CORTEX_HOME wins, is expanded and made absolute; without it, or empty, it is ~/.cortex."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for value, expected in (("~/x", "x"), ("y", "y"), (str(tmp_path / "z"), "z"), ("", ".cortex")):
        monkeypatch.setenv("CORTEX_HOME", value)
        assert cortex_home() == tmp_path / expected
    monkeypatch.delenv("CORTEX_HOME")
    assert cortex_home() == tmp_path / ".cortex"


def test_provider_whose_package_is_missing(home: Path) -> None:
    """An environment is imported only when it is chosen."""
    registry = Registry(home, {"local": "json:loads", "docker": "no_such_package:Environment"})
    with pytest.raises(CortexError, match="the docker environment needs the package no_such_package: install it"):
        registry.open(registry.provided("docker"))


def test_settings_of_an_environment(cortex: Callable[..., Any], home: Path) -> None:
    """They are kept beside the provider, listed, and replaced as a whole."""
    cortex("env", "configure", "prod", "-p", "docker", "--registry", "example.com/x", "--set", "front=a=b")
    assert yaml.safe_load((home / "cli.yaml").read_text())["environments"] == [
        {"name": "prod", "provider": "docker", "registry": "example.com/x", "front": "a=b"}
    ]
    assert cortex("env", "list").out.endswith("name: prod\nprovider: docker\nregistry: example.com/x\nfront: a=b\n")
    gone = "configured prod environment\nnot set any more: front\n"
    assert cortex("env", "configure", "prod", "--registry", "example.com/y").out == gone
    assert cortex("env", "list").out.endswith("name: prod\nprovider: docker\nregistry: example.com/y\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["prod", "-p", "docker", "--namespace", "x"], 1, "the docker environment has no setting 'namespace'"),
        (["local", "--context", "x"], 1, "the local environment has no setting 'context'"),
        (["prod", "-p", "docker", "-s", "provider=x"], 1, "provider is not a setting: it is given as an argument"),
        (["prod", "-p", "docker", "-s", "front"], 2, "Invalid value for --set: 'front' is not KEY=VALUE"),
        (["prod", "-p", "docker", "-s", "=x"], 2, "Invalid value for --set: '=x' is not KEY=VALUE"),
    ],
)
def test_settings_that_are_refused(
    arguments: list[str], code: int, message: str, cortex: Callable[..., Any], home: Path
) -> None:
    """A setting that the provider does not know is refused before anything is written."""
    ran = cortex("env", "configure", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(f"error: {message}")
    assert not (home / "cli.yaml").exists()


def test_settings_in_the_file_are_strings(cortex: Callable[..., Any], home: Path) -> None:
    home.mkdir(parents=True)
    (home / "cli.yaml").write_text("environments: [{name: prod, provider: docker, registry: 1}]")
    assert "environments[0]: registry: must be a string" in cortex("get").err


def test_what_cortex_kept_beside_local_is_not_a_setting(cortex: Callable[..., Any], home: Path) -> None:
    """Cortex kept the keys of an account there: they are neither shown nor used, and stay in the file."""
    home.mkdir(parents=True)
    (home / "cli.yaml").write_text("environments: [{name: local, provider: local, aws_secret_access_key: shh}]")
    assert "shh" not in cortex("env", "list").out
    assert cortex("get").code == 0
    cortex("env", "configure", "docker")
    assert "shh" in (home / "cli.yaml").read_text()


def test_settings_of_local_stand_beside_what_cortex_kept(cortex: Callable[..., Any], home: Path) -> None:
    """Ours are listed and replaced as a whole; whatever else is there stays, and is neither shown nor refused."""
    home.mkdir(parents=True)
    foreign = {"aws_secret_access_key": "shh", "registry": 1, "more": ["x"]}
    row = {"name": "local", "provider": "local", **foreign}
    (home / "cli.yaml").write_text(yaml.safe_dump({"environments": [row]}))
    cortex("env", "configure", "local", "--set", "rate_limit=10r/s", "--set", "tls_port=8444")
    shown = "name: local (default)\nprovider: local\nrate_limit: 10r/s\ntls_port: 8444\n"
    assert cortex("env", "list").out == shown
    assert json.loads(cortex("env", "list", "-o", "json").out)[0]["settings"] == {
        "rate_limit": "10r/s",
        "tls_port": "8444",
    }
    cortex("env", "configure", "local", "--set", "tls_port=8445")
    ours = {"tls_port": "8445"}
    assert yaml.safe_load((home / "cli.yaml").read_text())["environments"] == [row | ours]
    assert cortex("env", "configure", "local").code == 0
    assert yaml.safe_load((home / "cli.yaml").read_text())["environments"] == [row]


def test_settings_of_local_in_the_file_are_strings(cortex: Callable[..., Any], home: Path) -> None:
    home.mkdir(parents=True)
    (home / "cli.yaml").write_text("environments: [{name: local, provider: local, tls_port: 8443}]")
    assert "environments[0]: tls_port: must be a string" in cortex("get").err
