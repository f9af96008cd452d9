"""One launch on this machine: the measured process with its environment, its log, and its figures."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import click

from benchmark.configuration import Configuration
from benchmark.machine import this_machine
from benchmark.measured import Run
from benchmark.settings import Settings
from cortex.errors import UserError

_ROOT = Path(__file__).parents[1]

Echo = Callable[[str], None]


def measure(asked: Configuration, settings: Settings) -> None:
    """Show the settings, and measure. Raises UserError when it fails; the log stays in any case."""
    with _log(asked) as log:
        path = Path(log.name)

        def echo(line: str) -> None:
            click.echo(line)
            print(line, file=log, flush=True)

        for setting in settings.shown:
            echo(str(setting))
        result = path.with_suffix(".json")
        _follow(Run(asked, settings, result), log, echo)
        _complete(result, asked, settings)
        echo(f"Ran {asked.mode} with batch size {settings.batch_size}")
        click.echo(f"Log location: {path}")


def shell(settings: Settings, kept: Path) -> int:
    """Give a shell whose environment is that of the measured process, and return its exit code.

    ``kept`` is the configuration that start.sh launches in it.
    """
    for setting in settings.shown:
        click.echo(str(setting))
    click.echo(f"{_ROOT / 'benchmark' / 'start.sh'} measures; exit leaves this shell.")
    environment = {**_environment(settings), "CONFIGURATION": str(kept), "PYTHON": sys.executable}
    program = environment.get("SHELL") or "/bin/bash"
    return subprocess.run([*settings.prefix, program], env=environment, check=False).returncode


@contextmanager
def ended_with(child: "subprocess.Popen[Any]") -> Iterator[None]:
    """End the child when what waits for it is ended."""
    try:
        yield
    except BaseException:
        child.terminate()
        raise


def _follow(run: Run, log: TextIO, echo: Echo) -> None:
    """Run the measured process to its end, and pass on what it reports. Raises UserError when it fails."""
    argv = [*run.settings.prefix, sys.executable, "-m", "benchmark.measured", run.as_json()]
    errors = subprocess.STDOUT if run.asked.verbose else log
    env = _environment(run.settings)
    failure = ""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True, env=env) as child:
        with ended_with(child):
            for line in map(str.rstrip, child.stdout or ()):
                if line.startswith("error: "):
                    failure = line.removeprefix("error: ")
                    print(line, file=log, flush=True)
                else:
                    echo(line)
        code = child.wait()
    if failure:
        raise UserError(failure)
    if code:
        end = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        raise UserError(f"the measured process ended {end}; see {log.name}")


@contextmanager
def _log(asked: Configuration) -> Iterator[TextIO]:
    """Open a new log, named for what is measured and when. Raises UserError where none can be made, or go on."""
    name = f"benchmark_{asked.model_name}_{asked.mode}_{asked.precision}_{datetime.now(UTC):%Y%m%d_%H%M%S_%f}.log"
    try:
        asked.output_dir.mkdir(parents=True, exist_ok=True)
        with (asked.output_dir / name).open("x", buffering=1) as file:
            yield file
    except BrokenPipeError:  # whoever read the report does not any more
        raise
    except OSError as error:
        raise UserError(f"--output-dir {asked.output_dir}: {error.strerror}") from error


def _complete(result: Path, asked: Configuration, settings: Settings) -> None:
    """Put beside the figures what they belong to."""
    facts = {
        "when": datetime.now(UTC).isoformat(),
        "machine": asdict(this_machine()),
        "configuration": asdict(asked),
        "settings": [asdict(setting) for setting in settings.shown],
        "figures": json.loads(result.read_text()),
    }
    result.write_text(json.dumps(facts, indent=2, default=str) + "\n")


def _environment(settings: Settings) -> Mapping[str, str]:
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **settings.environment, "PYTHONPATH": path}
