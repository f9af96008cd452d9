"""Measure the throughput of a deployed image classifier. The engine is `cortex.loadtest`."""

import shlex
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cortex.errors import CortexError, UserError
from cortex.loadtest import TLS, files, options, report
from cortex.loadtest.command import carry_out, job
from cortex.loadtest.live import Line
from cortex.loadtest.results import Report
from cortex.loadtest.scenarios import SCENARIOS

FILE = click.Path(dir_okay=False, path_type=Path)
READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
POSITIVE = click.FloatRange(0, min_open=True)
ALONE = ("sweep", "slo", "schedule", "scenario")
"""Options that say what to run, of which there can be one."""


class Grouped(click.Command):
    """Show options under the heading of their `Option`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        for heading, members in groupby(shown, key=lambda each: getattr(each, "heading", "Options")):
            rows = [row for each in members if (row := each.get_help_record(ctx))]
            with formatter.section(heading):
                formatter.write_dl(rows)


class Option(click.Option):
    """An option that stands under a heading in the help."""

    def __init__(self, *args: Any, heading: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


def option(heading: str, *names: str, **kwargs: Any) -> Any:
    return click.option(*names, cls=Option, heading=heading, **kwargs)


LOAD, SENT, WHERE, FIND, TELL = "Load", "What is sent", "Where it goes", "Finding things out", "Reports"


@click.command(cls=Grouped)
@click.argument("img_url", envvar="IMG_URL")
@click.argument("endpoint", envvar="ENDPOINT")
@option(
    "Options",
    "-w",
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of processes that send requests.",
)
@option(
    "Options",
    "-t",
    "--threads",
    type=click.IntRange(1),
    show_default="1; in an open loop 64 in all",
    help="Number of threads per worker, with one connection each.",
)
@option(
    "Options",
    "-s",
    "--samples",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Number of requests per thread.",
)
@option(
    "Options",
    "-i",
    "--time-based",
    "seconds",
    type=POSITIVE,
    metavar="SECONDS",
    help="How long each thread sends requests. With it, -s is not considered.",
)
@option(
    "Options",
    "-b",
    "--batch-size",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of images per request.",
)
@option(
    LOAD,
    "--rate",
    type=POSITIVE,
    metavar="R",
    help="Open loop: R requests/s for -i seconds or 10. Latency counts from when each was due.",
)
@option(
    LOAD,
    "--arrivals",
    type=click.Choice(["constant", "poisson"]),
    default="constant",
    show_default=True,
    help="How requests of an open loop are spread.",
)
@option(
    LOAD,
    "--schedule",
    metavar="S",
    help="Open loop by a schedule: ramp:10..100/30s, steps:10,20,40/10s, or a file with a time of arrival a line.",
)
@option(
    LOAD,
    "--think-time",
    type=click.FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="Pause of each thread between an answer and its next request.",
)
@option(
    LOAD,
    "--warmup",
    type=click.FloatRange(0),
    metavar="SECONDS",
    show_default="0; 1 with --sweep and --slo",
    help="Send as long before, and count nothing of it.",
)
@option(
    LOAD,
    "--scenario",
    type=click.Choice(SCENARIOS),
    help="Let MLPerf's LoadGen time it, for -i seconds or 10. Server and Offline need --rate.",
)
@option(
    LOAD,
    "--loadgen-logs",
    type=click.Path(file_okay=False, path_type=Path),
    default="loadgen-logs",
    show_default=True,
    help="Folder for LoadGen's own logs.",
)
@option(
    SENT,
    "--format",
    "payload_format",
    type=click.Choice(options.FORMATS),
    show_default="by the file's name",
    help="A picture as JSON with base64, as a form, or as raw body; a JSON file as it is; a PredictionLog file.",
)
@option(SENT, "--shuffle", is_flag=True, help="Send the pictures of a folder in random order.")
@option(
    SENT,
    "--expect",
    metavar="FILE",
    help='Count an answer that differs from this JSON file as "wrong answer"; "recorded" for those of a PredictionLog.',
)
@option(
    SENT,
    "--tolerance",
    type=click.FloatRange(0),
    default=0.01,
    show_default=True,
    help="By how much of its value an expected number may be off.",
)
@option(
    WHERE,
    "--protocol",
    type=click.Choice(options.PROTOCOLS),
    show_default="by the endpoint",
    help="The predictor's HTTP API, or TF Serving's REST or gRPC (grpc://host:8500).",
)
@option(WHERE, "--model", metavar="NAME", help="The model behind a TF Serving endpoint.")
@option(WHERE, "--signature", default="serving_default", show_default=True, metavar="NAME", help="Its signature.")
@option(
    WHERE, "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent with each request. Repeatable."
)
@option(WHERE, "--api-key", envvar="CORTEX_API_KEY", metavar="KEY", help="Sent as Authorization: Bearer KEY.")
@option(
    WHERE,
    "--timeout",
    type=POSITIVE,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a request may take.",
)
@option(WHERE, "--keep-alive/--no-keep-alive", default=True, help="Whether connections are used again.")
@option(WHERE, "--insecure", is_flag=True, help="Leave the server's certificate unchecked.")
@option(WHERE, "--ca-file", type=READABLE, help="Authorities to trust, PEM.")
@option(WHERE, "--client-cert", type=READABLE, help="Certificate to show, PEM.")
@option(WHERE, "--client-key", type=READABLE, help="Its key, PEM.")
@option(
    FIND, "--sweep", metavar="1,2,4..64", help="Run at each of these sizes, -i seconds or 5 each, and name the knee."
)
@option(
    FIND,
    "--over",
    type=click.Choice(["connections", "rate"]),
    default="connections",
    show_default=True,
    help="What the sizes of --sweep are.",
)
@option(FIND, "--slo", metavar="p99=100ms", help="Search the highest rate that holds this, -i seconds or 5 a trial.")
@option(FIND, "--compare", type=READABLE, help="A report of --json: say whether what changed since is real.")
@option(
    FIND,
    "--metrics-url",
    "metrics",
    multiple=True,
    metavar="URL",
    show_default="/metrics of an HTTP endpoint",
    help="Where the server tells of its stages. Repeatable.",
)
@option(
    FIND,
    "--price-per-hour",
    type=POSITIVE,
    metavar="PRICE",
    help="What the server costs: tells the cost of inferences.",
)
@option(FIND, "--target-rate", type=POSITIVE, metavar="R", help="Tell how many such servers R inferences/s take.")
@option(
    FIND,
    "--assert",
    "conditions",
    metavar="CONDITIONS",
    help="Exit with 1 unless they hold: 'p99<100ms,errors<0.1%,rate>50'.",
)
@option(TELL, "--json", "json_file", type=FILE, help="Write everything, for --compare and other programs.")
@option(TELL, "--csv", "csv_file", type=FILE, help="Write each second as a row.")
@option(TELL, "--html", "html_file", type=FILE, help="Write a page with plots.")
@option(TELL, "-q", "--quiet", is_flag=True, help="Say nothing but errors: for scripts.")
def main(
    json_file: Path | None,
    csv_file: Path | None,
    html_file: Path | None,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Test the throughput of an image classifier, on CPU, GPU or accelerator alike.

    IMG_URL is the URL or the path of a picture, ENDPOINT the URL of the API. Either may come from the environment
    variable of its name instead. Each thread sends its next request when the last one is answered. Only answers with
    a 2xx status count as inferences; exit code 1 says that there were none.

    IMG_URL may also be a folder of pictures, a JSON file that is sent as it is, or a PredictionLog file of recorded
    requests. Ctrl-C ends a run early, and reports.
    """
    writers = [
        (path, write)
        for path, write in (
            (json_file, files.write_json),
            (csv_file, files.write_csv),
            (html_file, files.write_html),
        )
        if path
    ]
    _agree(chosen)
    try:
        for path, _ in writers:
            files.check(path)
        asked = job(_options(chosen), shlex.join(["throughput_test.py", *_without_secrets(sys.argv[1:])]))
        with Line(Console(stderr=True), quiet) as line:
            found = carry_out(asked, line)
        for path, write in writers:
            write(found, path)
    except (UserError, CortexError) as error:
        raise click.ClickException(str(error)) from error
    if not quiet:
        Console().print(report.table(found))
    sys.exit(_code(found, quiet))


def _agree(chosen: dict[str, Any]) -> None:
    """Raise UsageError for options that say different things."""
    named = [f"--{name}" for name in ALONE if chosen[name]]
    if len(named) > 1 and set(named) != {"--slo", "--scenario"}:
        raise click.UsageError(f"{' and '.join(named)} exclude each other")
    if chosen["rate"] and named and not chosen["scenario"]:
        raise click.UsageError(f"{named[0]} chooses its own rates: leave out --rate")
    if chosen["think_time"] and (chosen["rate"] or chosen["schedule"] or chosen["slo"]):
        raise click.UsageError("--think-time is of a closed loop: an open loop has its rate")
    if chosen["client_key"] and not chosen["client_cert"]:
        raise click.UsageError("--client-key belongs to a --client-cert")


def _options(chosen: dict[str, Any]) -> options.Options:
    tls = TLS(not chosen.pop("insecure"), chosen.pop("ca_file"), chosen.pop("client_cert"), chosen.pop("client_key"))
    return options.Options(image=chosen.pop("img_url"), tls=tls, **chosen)


def _without_secrets(arguments: list[str]) -> list[str]:
    """Return the command line for a report that others may see: keys and headers are left out."""
    shown, hide = [], False
    for each in arguments:
        name, equals, _ = each.partition("=")
        secret = name in ("--api-key", "--header")
        shown.append("..." if hide else f"{name}=..." if secret and equals else each)
        hide = secret and not equals
    return shown


def _code(found: Report, quiet: bool) -> int:
    """Return 1 when a condition failed or nothing was answered, and say so where no table does."""
    if quiet:
        for check in found.checks:
            if not check.passed:
                click.echo(f"failed: {check.text} ({check.actual})", err=True)
    return 0 if found.passed and found.result.requests else 1


if __name__ == "__main__":
    main()
