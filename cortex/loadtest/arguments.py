"""The command line of throughput_test.py: its arguments and their help."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from cortex.loadtest import TLS, agreement, options
from cortex.loadtest.scenarios import SCENARIOS
from cortex.loadtest.schedules import CONSTANT, POISSON
from cortex.loadtest.sweep import CONNECTIONS, RATE

_FILE = click.Path(dir_okay=False, path_type=Path)
_READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MOST = 1e9  # of seconds, of requests a second: what no timer and no load goes beyond


class _Number(click.FloatRange):
    """A number from 0 on, of a size that times and rates can have: no NaN, and nothing without end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not number <= _MOST:
            self.fail(f"{value} is not a number up to {_MOST:,.0f}.", param, ctx)
        return number


_POSITIVE, _FROM_ZERO = _Number(0, min_open=True), _Number(0)


class _Grouped(click.Command):
    """Show options under the heading of their `_Option`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        for heading, members in groupby(shown, key=lambda each: getattr(each, "heading", "Options")):
            rows = [row for each in members if (row := each.get_help_record(ctx))]
            with formatter.section(heading):
                formatter.write_dl(rows)


class _Option(click.Option):
    """An option that stands under a heading in the help."""

    def __init__(self, *args: Any, heading: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


def _option(heading: str, *names: str, **kwargs: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=_Option, heading=heading, **kwargs)


_SIZE, _LOAD, _SENT = "Options", "Load", "What is sent"
_WHERE, _FIND, _TELL = "Where it goes", "Finding things out", "Reports"

_ARGUMENTS = (
    click.argument("img_url", envvar="IMG_URL"),
    click.argument("endpoint", envvar="ENDPOINT"),
    _option(
        _SIZE,
        "-w",
        "--workers",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Number of processes that send requests.",
    ),
    _option(
        _SIZE,
        "-t",
        "--threads",
        type=click.IntRange(1),
        show_default="1; in an open loop 64 in all",
        help="Number of threads per worker, with one connection each.",
    ),
    _option(
        _SIZE,
        "-s",
        "--samples",
        type=click.IntRange(1),
        default=10,
        show_default=True,
        help="Number of requests per thread.",
    ),
    _option(
        _SIZE,
        "-i",
        "--time-based",
        "seconds",
        type=_POSITIVE,
        metavar="SECONDS",
        help="How long each thread sends requests. With it, -s is not considered.",
    ),
    _option(
        _SIZE,
        "-b",
        "--batch-size",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Number of images per request.",
    ),
    _option(
        _LOAD,
        "--rate",
        type=_POSITIVE,
        metavar="R",
        help="Open loop: R requests/s for -i seconds or 10. Latency counts from when each was due.",
    ),
    _option(
        _LOAD,
        "--arrivals",
        type=click.Choice([CONSTANT, POISSON]),
        default=CONSTANT,
        show_default=True,
        help="How requests of an open loop are spread.",
    ),
    _option(
        _LOAD,
        "--schedule",
        metavar="S",
        help="Open loop by a schedule: ramp:10..100/30s, steps:10,20,40/10s, or a file with a time of arrival a line.",
    ),
    _option(
        _LOAD,
        "--think-time",
        type=_FROM_ZERO,
        default=0.0,
        metavar="SECONDS",
        help="Pause of each thread between an answer and its next request.",
    ),
    _option(
        _LOAD,
        "--warmup",
        type=_FROM_ZERO,
        metavar="SECONDS",
        show_default="0; 1 with --sweep and --slo",
        help="Send as long before, and count nothing of it.",
    ),
    _option(
        _LOAD,
        "--scenario",
        type=click.Choice(SCENARIOS),
        help="Let MLPerf's LoadGen time it, for -i seconds or 10. Server and Offline need --rate.",
    ),
    _option(
        _LOAD,
        "--loadgen-logs",
        type=click.Path(file_okay=False, path_type=Path),
        default="loadgen-logs",
        show_default=True,
        help="Folder for LoadGen's own logs.",
    ),
    _option(
        _SENT,
        "--format",
        "payload_format",
        type=click.Choice(options.FORMATS),
        show_default="by the file's name",
        help="A picture as JSON with base64, as a form, or as raw body; a JSON file as it is; a PredictionLog file.",
    ),
    _option(_SENT, "--shuffle", is_flag=True, help="Send the pictures of a folder in random order."),
    _option(
        _SENT,
        "--expect",
        metavar="FILE",
        help='Count an answer that differs from this JSON file as "wrong answer"; "recorded": from the PredictionLog.',
    ),
    _option(
        _SENT,
        "--tolerance",
        type=_FROM_ZERO,
        default=0.01,
        show_default=True,
        help="By how much of its value an expected number may be off.",
    ),
    _option(
        _WHERE,
        "--protocol",
        type=click.Choice(options.PROTOCOLS),
        show_default="by the endpoint",
        help="The predictor's HTTP API, or TF Serving's REST or gRPC (grpc://host:8500).",
    ),
    _option(_WHERE, "--model", metavar="NAME", help="The model behind a TF Serving endpoint."),
    _option(_WHERE, "--signature", default="serving_default", show_default=True, metavar="NAME", help="Its signature."),
    _option(
        _WHERE,
        "--header",
        "headers",
        multiple=True,
        metavar="'NAME: VALUE'",
        help="Sent with each request. Repeatable.",
    ),
    _option(_WHERE, "--api-key", envvar="CORTEX_API_KEY", metavar="KEY", help="Sent as Authorization: Bearer KEY."),
    _option(
        _WHERE,
        "--timeout",
        type=_POSITIVE,
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="How long a request may take.",
    ),
    _option(_WHERE, "--keep-alive/--no-keep-alive", default=True, help="Whether connections are used again."),
    _option(_WHERE, "--insecure", is_flag=True, help="Leave the server's certificate unchecked."),
    _option(_WHERE, "--ca-file", type=_READABLE, help="Authorities to trust, PEM."),
    _option(_WHERE, "--client-cert", type=_READABLE, help="Certificate to show, PEM."),
    _option(_WHERE, "--client-key", type=_READABLE, help="Its key, PEM."),
    _option(
        _FIND,
        "--sweep",
        metavar="1,2,4..64",
        help="Run at each of these sizes, -i seconds or 5 each, and name the knee.",
    ),
    _option(
        _FIND,
        "--over",
        type=click.Choice([CONNECTIONS, RATE]),
        default=CONNECTIONS,
        show_default=True,
        help="What the sizes of --sweep are.",
    ),
    _option(
        _FIND, "--slo", metavar="p99=100ms", help="Search the highest rate that holds this, -i seconds or 5 a trial."
    ),
    _option(_FIND, "--compare", type=_READABLE, help="A report of --json: say whether what changed since is real."),
    _option(
        _FIND,
        "--metrics-url",
        "metrics",
        multiple=True,
        metavar="URL",
        show_default="/metrics of an HTTP endpoint",
        help="Where the server tells of its stages. Repeatable.",
    ),
    _option(
        _FIND,
        "--price-per-hour",
        type=_POSITIVE,
        metavar="PRICE",
        help="What the server costs: tells the cost of inferences.",
    ),
    _option(
        _FIND, "--target-rate", type=_POSITIVE, metavar="R", help="Tell how many such servers R inferences/s take."
    ),
    _option(
        _FIND,
        "--assert",
        "conditions",
        metavar="CONDITIONS",
        help="Exit with 1 unless they hold: 'p99<100ms,errors<0.1%,rate>50'.",
    ),
    _option(_TELL, "--json", "json_file", type=_FILE, help="Write everything, for --compare and other programs."),
    _option(_TELL, "--csv", "csv_file", type=_FILE, help="Write each second as a row."),
    _option(_TELL, "--html", "html_file", type=_FILE, help="Write a page with plots."),
    _option(_TELL, "-q", "--quiet", is_flag=True, help="Say nothing but errors: for scripts."),
)


def arguments(command: Callable[..., None]) -> click.Command:
    """Make a command of a function that is called with everything that can be asked for."""
    for each in reversed(_ARGUMENTS):
        command = each(command)
    return click.command(cls=_Grouped)(command)


def asked(chosen: dict[str, Any]) -> options.Options:
    """Return what was chosen, as a value. Raises UsageError for options that say different things."""
    agreement.check(chosen)
    tls = TLS(not chosen.pop("insecure"), chosen.pop("ca_file"), chosen.pop("client_cert"), chosen.pop("client_key"))
    return options.Options(image=chosen.pop("img_url"), tls=tls, **chosen)
