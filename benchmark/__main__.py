"""``python -m benchmark``: the figures of the whole stack, with the machine and the command that made them."""

import json
import shlex
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from benchmark.compare import compare
from benchmark.launch import launch
from benchmark.machine import this_machine
from benchmark.startup import startup as run_startup
from benchmark.tfrecords import tfrecords
from benchmark.worth import worth
from cortex.errors import Error
from cortex.loadtest import files

_ROOT = Path(__file__).parents[1]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure the whole stack on this machine."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended then, too


main.add_command(compare)
main.add_command(launch)
main.add_command(tfrecords)
main.add_command(worth)


@main.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=_ROOT / "cortex_cpu.yaml",
    help="The yaml to deploy; its first API is measured.  [default: cortex_cpu.yaml]",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write everything to this file.")
def startup(config: Path, json_path: Path | None) -> None:
    """Measure how soon a deployment is live, and what it holds in memory."""
    try:
        if json_path:
            files.check(json_path)
        with Console(stderr=True).status("") as status:
            found = run_startup(config, lambda text: status.update(f"{text} ..."))
    except Error as error:
        raise click.ClickException(str(error)) from error
    machine, command = this_machine(), shlex.join(["python", "-m", "benchmark", *sys.argv[1:]])
    console = Console()
    console.print(found.table())
    console.print(f"\non {machine}, {datetime.now(UTC):%Y-%m-%d}\nby {command}", highlight=False, soft_wrap=True)
    if json_path:
        facts = {"command": command, "when": datetime.now(UTC).isoformat(), "machine": asdict(machine)}
        json_path.write_text(json.dumps(facts | found.as_dict(), indent=2) + "\n")


if __name__ == "__main__":
    main()
