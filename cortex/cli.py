"""The `cortex` command. Commands call into an environment and print what it says; errors become output in `main`."""

import contextlib
import errno
import os
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cortex import __version__, endpoint
from cortex.console import document, text
from cortex.console.env import env_commands
from cortex.console.get import repaint, show_api, show_apis
from cortex.console.menu import Menu
from cortex.console.options import api_argument, complete_apis, environment_option, output_option
from cortex.console.render import render, rendered
from cortex.console.steps import Steps
from cortex.console.text import message
from cortex.environments.registry import Configured, Registry, cortex_home
from cortex.errors import Error, UserError

if TYPE_CHECKING:
    from cortex.environments.base import Environment

_SECTIONS = {
    "api commands": ("deploy", "render", "get", "logs", "predict", "refresh", "delete"),
    "environment commands": ("env",),
    "other commands": ("version", "completion"),
}
_SHELLS = ("bash", "zsh")
_COMPLETE = "_CORTEX_COMPLETE"
_WATCH_INTERVAL = 2.0
_LONGEST_BOLD = 150
"""Characters of an error's first line above which it is too long to be a headline."""
_ATTACHED = re.compile(r"^-([a-z])=(?=.)")
"""A short option with its value, as Cortex's command took it too: `-o=json` is click's `-ojson`."""


def main(arguments: Sequence[str] | None = None, registry: Registry | None = None) -> int:
    """Run one command line and return its exit code: 0, 1 failed or interrupted, 2 usage, 3 did not start."""
    arguments = [_ATTACHED.sub(r"-\1", each) for each in (sys.argv[1:] if arguments is None else arguments)]
    color = False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
    try:
        if not _is_for_a_shell(arguments):
            click.echo()
        registry = registry or Registry(cortex_home())
        code = cli.main(arguments, prog_name="cortex", standalone_mode=False, obj=registry, color=color)
        return code if isinstance(code, int) else 0
    except (click.Abort, KeyboardInterrupt):
        return 1
    except BrokenPipeError:
        _close_stdout()
        return 1
    except click.ClickException as error:
        usage = f"\n\n{error.ctx.get_usage()}" if isinstance(error, click.UsageError) and error.ctx else ""
        _complain(error.format_message() + usage, color)
        return error.exit_code
    except Error as error:
        _complain(str(error), color)
        return error.exit_code
    except Exception as error:  # the last line of defence: a person gets one line, and a way to see the rest
        if os.environ.get("CORTEX_DEBUG"):
            raise
        _complain(_unforeseen(error), color)
        return 1


def _is_for_a_shell(arguments: Sequence[str]) -> bool:
    """Tell whether the output is to be read by a shell, which a blank line first would disturb."""
    return _COMPLETE in os.environ or list(arguments) in [["completion", shell] for shell in _SHELLS]


def _unforeseen(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # which names no file that was open already
        return f"{error.filename or 'standard output, or CORTEX_HOME'}: {error.strerror}"
    return f"{type(error).__name__}: {error} (set CORTEX_DEBUG=1 to see where)"


def _complain(message: str, color: bool | None) -> None:
    first, end, rest = f"error: {message}".partition("\n")
    headline = click.style(first, bold=True) if len(first) <= _LONGEST_BOLD else first
    click.echo(headline + end + rest, err=True, color=color)


def _close_stdout() -> None:
    """Let what is still buffered go nowhere, so that Python does not complain at exit about the reader that left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=Menu, sections=_SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Deploy trained models as web APIs on CPUs, GPUs and accelerators."""


@cli.command()
@click.argument("config_file", type=click.Path(path_type=Path), required=False)
@environment_option
@click.option("-f", "--force", is_flag=True, help="Replace an update that is in progress.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing (accepted for scripts; no question is asked here).")
@click.option(
    "--front", metavar="FRONT", help="nginx or nginx:PORT (8080): in front of all APIs, now and later; none: no more."
)
@click.option("--dry-run", is_flag=True, help="Print what would be carried out, and do nothing.")
@output_option
@click.pass_obj
def deploy(
    registry: Registry,
    config_file: Path | None,
    env: str | None,
    force: bool,
    yes: bool,
    front: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """Create or update APIs.

    CONFIG_FILE is the yaml that describes them: ./cortex.yaml when none is named.
    """
    from cortex.spec.config import read

    path = config_file or _default_config()
    entry = _choose(registry, env)
    environment = registry.open(entry)
    config = read(path)
    if dry_run:
        click.echo(rendered(environment.render(config, front), output))
        return
    if front is not None:
        environment.choose_front(front)
    with Steps() as steps:
        results = tuple(environment.deploy(config, force=force, progress=steps))
    if output == "json":
        click.echo(document.line([document.deployed(result) for result in results]))
    else:
        _echo_any(text.deployed(results, "" if entry.default else f" --env {entry.name}"))
    _echo_any(text.warnings(results), err=True)
    _raise_any(text.failures(results))


@cli.command()
@click.argument("name", required=False, shell_complete=complete_apis)
@environment_option
@click.option("-w", "--watch", is_flag=True, help="Show it again every 2 seconds until Ctrl-C.")
@output_option
@click.option("-v", "--verbose", is_flag=True, help="With NAME: show the parts of its configuration for clusters too.")
@click.pass_obj
def get(registry: Registry, name: str | None, env: str | None, watch: bool, output: str, verbose: bool) -> None:
    """Show all APIs, or all about one."""
    if watch and output == "json":
        raise click.UsageError("--watch is for people: it does not go together with --output json")
    if name:
        show = partial(show_api, _open(registry, env), name, verbose, output)
    else:
        show = partial(show_apis, registry, env, output)
    show(click.echo)
    while watch:
        time.sleep(_WATCH_INTERVAL)
        show(repaint)


@cli.command()
@api_argument
@environment_option
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait for further lines until Ctrl-C.")
@click.pass_obj
def logs(registry: Registry, name: str, env: str | None, follow: bool) -> None:
    """Print what an API's processes log."""
    for line in _open(registry, env).logs(name, follow=follow):
        click.echo(line)


@cli.command()
@api_argument
@click.argument("json_file", type=click.Path(path_type=Path))
@environment_option
@output_option
@click.pass_obj
def predict(registry: Registry, name: str, json_file: Path, env: str | None, output: str) -> None:
    """Post a JSON file to an API and print its answer."""
    sample = endpoint.read_sample(json_file)
    answer = endpoint.predict(_open(registry, env).api(name), sample)
    click.echo(document.answer(answer) if output == "json" else text.answer(answer))


@cli.command()
@api_argument
@environment_option
@click.option("-f", "--force", is_flag=True, help="Replace an update that is in progress.")
@output_option
@click.pass_obj
def refresh(registry: Registry, name: str, env: str | None, force: bool, output: str) -> None:
    """Restart an API without losing a request."""
    environment = _open(registry, env)
    with Steps() as steps:
        result = environment.refresh(name, force=force, progress=steps)
    click.echo(message(result.message, output))
    _raise_any(text.failures([result]))


@cli.command()
@api_argument
@environment_option
@click.option("-f", "--force", is_flag=True, help="Ask nothing (accepted for scripts; no question is asked here).")
@click.option("-c", "--keep-cache", is_flag=True, help="Keep the cached models of the API.")
@output_option
@click.pass_obj
def delete(registry: Registry, name: str, env: str | None, force: bool, keep_cache: bool, output: str) -> None:
    """Stop an API and remove all that it left."""
    click.echo(message(_open(registry, env).delete(name, keep_cache=keep_cache), output))


cli.add_command(env_commands)
cli.add_command(render)


@cli.command()
@output_option
def version(output: str) -> None:
    """Print the version."""
    click.echo(document.line({"cli_version": __version__}) if output == "json" else f"cli version: {__version__}")


@cli.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print a completion script for a shell.

    To try it: source <(cortex completion bash)
    """
    from click.shell_completion import get_completion_class

    completer = get_completion_class(shell)
    assert completer is not None  # click has both of the choices
    click.echo(completer(cli, {}, "cortex", _COMPLETE).source())


@cli.command(context_settings={"ignore_unknown_options": True}, add_help_option=False, hidden=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def cluster(arguments: tuple[str, ...]) -> None:
    """Say that clusters of a cloud are not part of this project."""
    raise UserError(
        "`cortex cluster` is not part of this project, which creates no cloud clusters; "
        "`cortex env list` shows where APIs can run"
    )


def _default_config() -> Path:
    path = Path("cortex.yaml")
    with contextlib.suppress(PermissionError):  # whoever reads it tells that
        if not path.exists():
            raise UserError(
                "no api config file was specified, and ./cortex.yaml does not exist; create cortex.yaml, or reference "
                "an existing config file by running `cortex deploy <config_file_path>`"
            )
    return path


def _choose(registry: Registry, env: str | None) -> Configured:
    """Return the named or default environment, and say which it is when that was not the only choice."""
    entry = registry.named(env)
    if env is None and len(registry.runnable()) > 1:
        click.echo(f"using {entry.name} environment", err=True)
    return entry


def _open(registry: Registry, env: str | None) -> "Environment":
    return registry.open(_choose(registry, env))


def _echo_any(shown: str, *, err: bool = False) -> None:
    if shown:
        click.echo(shown, err=err)


def _raise_any(failures: str) -> None:
    if failures:
        raise UserError(failures)
