"""The commands that print one message, and the help of all."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest

from cortex import __version__
from cortex.cli import cli
from cortex.environments.base import Deployed
from tests.waiting import DEADLINE


def _commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the words that lead to each command of a group, hidden ones left out."""
    for name, command in group.commands.items():
        if not command.hidden:
            yield (*path, name)
        if isinstance(command, click.Group):
            yield from _commands(command, *path, name)


def test_delete(cortex: Callable[..., Any], world: Any) -> None:
    ran = cortex("delete", "iris", "-f", "-c")
    assert (ran.code, ran.out, ran.err) == (0, "deleting iris\n", "")
    assert world.calls == [("delete", {"name": "iris", "keep_cache": True})]
    assert cortex("delete", "iris", "-o", "json").out == '{"message":"deleting iris"}\n'


def test_refresh(cortex: Callable[..., Any], world: Any) -> None:
    """Steps go to stderr, as with deploy; a refresh that fails is an error."""
    world.steps = ("waiting for worker 0",)
    ran = cortex("refresh", "iris", "--force")
    assert (ran.code, ran.out, ran.err) == (0, "updating iris\n", "waiting for worker 0\n")
    assert world.calls == [("refresh", {"name": "iris", "force": True})]
    world.results = (Deployed("iris", "updating iris", error="worker 0 did not start"),)
    ran = cortex("refresh", "iris", "-o", "json")
    assert (ran.code, ran.out) == (1, '{"message":"updating iris"}\n')
    assert ran.err.endswith("error: iris: worker 0 did not start\n")


def test_logs_without_following(cortex: Callable[..., Any], world: Any) -> None:
    ran = cortex("logs", "iris", "--no-follow")
    assert (ran.code, ran.out) == (0, "loading the predictor from predictor.py\n200 OK POST /\n")
    assert world.calls == [("logs", {"name": "iris", "follow": False})]


@pytest.mark.parametrize("command", [("delete",), ("refresh",), ("logs",)])
def test_api_that_is_not_deployed(command: tuple[str, ...], cortex: Callable[..., Any]) -> None:
    ran = cortex(*command, "nope")
    assert (ran.code, ran.out, ran.err) == (1, "", "error: nope is not deployed\n")


def test_version(cortex: Callable[..., Any]) -> None:
    assert cortex("version").out == f"cli version: {__version__}\n"
    assert json.loads(cortex("version", "--output", "json").out) == {"cli_version": __version__}


def test_cloud_commands_say_that_there_are_none(cortex: Callable[..., Any]) -> None:
    """Whatever follows `cortex cluster`, the answer is the same sentence."""
    ran = cortex("cluster", "up", "--config", "cluster.yaml", "--help")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: `cortex cluster` is not part of this project, ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("path", list(_commands(cli)), ids=" ".join)
def test_help_of_every_command(path: tuple[str, ...], cortex: Callable[..., Any]) -> None:
    """Every command explains itself and each of its options; -h is --help."""
    ran = cortex(*path, "-h")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == cortex(*path, "--help").out
    assert ran.out.startswith(f"Usage: cortex {' '.join(path)} ")
    command: Any = cli
    for name in path:
        command = command.commands[name]
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_help_has_sections(cortex: Callable[..., Any]) -> None:
    """The root help names every command that is not hidden, under Cortex's headings; no arguments ask for it too."""
    ran = cortex()
    assert ran == cortex("--help")
    assert ran.code == 0
    sections = [block.split("\n") for block in ran.out.strip().split("\n\n")[3:]]
    assert [section[0] for section in sections] == ["api commands:", "environment commands:", "other commands:"]
    named = {line.split()[0] for section in sections for line in section[1:]}
    assert named == {name for name, command in cli.commands.items() if not command.hidden}


@pytest.mark.parametrize(
    ("short", "command"), [("dep", "deploy"), ("g", "get"), ("del", "delete"), ("p", "predict"), ("comp", "completion")]
)
def test_start_of_a_command_is_enough(short: str, command: str, cortex: Callable[..., Any]) -> None:
    assert cortex(short, "--help") == cortex(command, "--help")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["de"], '"de" could be any of: deploy, delete'),
        (["clust"], "No such command 'clust'"),
        (["nonsense"], "No such command 'nonsense'"),
        (["get", "--nonsense"], "No such option"),  # how it is named is click's
        (["logs"], "Missing argument 'NAME'"),
        (["get", "-o", "xml"], "Invalid value for '-o' / '--output': 'xml' is not one of"),
        (["env", "de"], '"de" could be any of: default, delete'),
    ],
)
def test_usage_errors(arguments: list[str], message: str, cortex: Callable[..., Any], world: Any) -> None:
    """What the command line cannot mean: one error, the usage, exit code 2, and no environment is asked."""
    ran = cortex(*arguments)
    assert (ran.code, ran.out, world.calls) == (2, "", [])
    assert ran.err.startswith(f"error: {message}")
    assert "\n\nUsage: cortex " in ran.err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_script(shell: str, start: Callable[..., subprocess.Popen[str]]) -> None:
    """A shell can read the script, which `main` puts no blank line before; it asks `cortex` to complete."""
    with start("completion", shell) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert f"_CORTEX_COMPLETE={shell}_complete" in out
    if reader := shutil.which(shell):
        subprocess.run([reader, "-n"], input=out, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("cortex de", ["deploy", "delete"]),
        ("cortex get i", ["iris"]),
        ("cortex get x", []),
        ("cortex del ", ["iris"]),
        ("cortex get --env l", ["local"]),
        ("cortex env default ", ["local"]),
        ("cortex env de", ["default", "delete"]),
        ("cortex de i", []),
        ("cortex cl", []),
    ],
)
def test_completions(words: str, completed: list[str], start: Callable[..., subprocess.Popen[str]]) -> None:
    """Commands, APIs and environments are completed; a shortened command that fits two completes nothing of theirs."""
    env = {"_CORTEX_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    with start(env=env) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert [line.partition(",")[2] for line in out.split()] == completed
