"""What a person reads at the end: figures first, then what one must know before believing them."""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cortex.loadtest import units
from cortex.loadtest.findings import Change, Comparison, Report, Search, Sweep
from cortex.loadtest.latency import Latency
from cortex.loadtest.results import Result, Stage

_Row = tuple[str, str]
_PERCENTILES = {
    "mean": "mean",
    "p50": "p50",
    "p90": "p90",
    "p99": "p99",
    "p999": "p99.9",
    "p9999": "p99.99",
    "max": "max",
}


def table(report: Report) -> RenderableType:
    """Return everything that was found, for a console of any width."""
    parts: list[RenderableType] = []
    if report.sweep:
        parts += [_sweep(report.sweep), _text(report.sweep.words), Text()]
    if report.search:
        parts += [_search(report.search), _text(report.search.words), Text()]
    parts.append(_pairs(_figures(report.result)))
    if latency := report.result.latency:
        parts += [Text(), _latencies(latency, report.result.uncorrected if report.result.open_loop else None)]
    if sides := [*_sides(report.result), *_cost(report.result)]:
        parts += [Text(), _pairs(sides)]
    if report.comparison:
        parts += [Text(), _changes(report.comparison), _text(report.comparison.words)]
    return Group(*parts, *(_text(words, style) for words, style in _verdicts(report)))


def _figures(result: Result) -> Iterator[_Row]:
    yield "duration", f"{result.seconds:.1f} s" + (" (interrupted)" if result.interrupted else "")
    yield "requests answered", f"{result.requests:,}"
    yield "throughput", f"{units.number(result.requests_per_second)} requests/s"
    yield "", f"{units.number(result.inferences_per_second)} inferences/s"
    yield "errors", f"{result.failed:,}" + (f" ({units.share(result.error_share)})" if result.failed else "")
    for kind, count in result.errors.items():
        yield f"  {kind}", f"{count:,}"
    if result.unanswered:
        yield "unanswered", f"{result.unanswered:,} when it was interrupted, in no other figure"


def _latencies(latency: Latency, raw: Latency | None) -> Table:
    """Return percentiles, and beside them those that are counted from when requests were sent, which hide stalls."""
    lines = (latency, raw) if raw else (latency,)
    names = ("latency", "from when due", "from when sent") if raw else ("latency", "")
    rows = ((label, *(units.duration(getattr(line, name)) for line in lines)) for name, label in _PERCENTILES.items())
    return _columns(names, rows)


def _told_by(stage: Stage) -> str:
    page = urlsplit(stage.source)
    return f" of {page.fragment.removesuffix('_stage_seconds')}" if page.fragment else f" at {page.netloc}"


def _sides(result: Result) -> Iterator[_Row]:
    """Yield what the server and the tester spent."""
    if server := result.server:
        several = len({stage.source for stage in server.stages}) > 1
        for stage in server.stages:
            yield f"server {stage.name}{_told_by(stage) if several else ''}", units.duration(stage.mean)
        if server.cpu_cores is not None:
            yield "server processor", f"{units.number(round(server.cpu_cores, 2))} cores"
        if server.memory is not None:
            yield "server memory", units.size(server.memory)
    if client := result.client:
        yield (
            "tester",
            f"{units.duration(client.cpu_per_request)} of processor time a request, busiest process "
            f"{units.share(client.busiest)} of a core",
        )
        if client.late:
            latest = units.duration(client.worst_lateness)
            yield "sent late", f"{client.late:,} ({units.share(client.late_share)}), by {latest} at most"


def _cost(result: Result) -> Iterator[_Row]:
    if not (cost := result.cost):
        return
    if cost.per_million_inferences is not None:
        yield "cost", f"{units.money(cost.per_million_inferences)} for a million inferences"
    if cost.replicas is not None and cost.target_rate is not None:
        hourly = cost.replicas_price_per_hour
        price = f", {units.money(hourly)} an hour" if hourly is not None else ""
        yield "replicas", f"{cost.replicas:,} for {units.number(cost.target_rate)} inferences/s{price}"


def _verdicts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield sentences and their styles."""
    result = report.result
    if result.steady:
        yield result.steady.words, "" if result.steady.reached and result.steady.lasted else "yellow"
    if result.client and result.client.warning:
        yield f"warning: {result.client.warning}", "yellow"
    if verdict := result.settings.get("LoadGen"):
        yield f"LoadGen's verdict: {verdict}", "" if verdict == "VALID" else "yellow"
    for check in report.checks:
        held = "holds" if check.passed else "does not hold"
        yield f"{check.text} {held}: {check.actual}", "green" if check.passed else "bold red"


def _sweep(found: Sweep) -> Table:
    rows = (
        (f"{point.value:g}" + (" (knee)" if index == found.knee else ""), *_run(point.result))
        for index, point in enumerate(found.points)
    )
    return _columns((found.over, "req/s", "p50", "p99", "errors"), rows)


def _search(found: Search) -> Table:
    rows = ((units.number(each.rate), "held" if each.held else "not held", each.why) for each in found.trials)
    return _columns(("req/s", found.objective.name, "why"), rows)


def _changes(found: Comparison) -> Table:
    rows = ((each.name, f"{each.ratio - 1:+.1%}", _interval(each), each.verdict) for each in found.changes)
    return _columns((f"against {found.source}", "change", "95 % interval", "verdict"), rows)


def _interval(change: Change) -> str:
    return f"{change.low - 1:+.1%} to {change.high - 1:+.1%}"


def _run(result: Result) -> tuple[str, ...]:
    latency = result.latency
    times = (units.duration(getattr(latency, name, None)) for name in ("p50", "p99"))
    return units.number(result.requests_per_second), *times, units.share(result.error_share)


def _pairs(rows: Iterable[_Row]) -> Table:
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    grid.add_column(style="bold", overflow="fold")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(_text(name), _text(value))
    return grid


def _columns(names: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    grid = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        grid.add_column(_text(name), justify="right" if index else "left", overflow="fold")
    for row in rows:
        grid.add_row(*map(_text, row))
    return grid


def _text(words: str, style: str = "") -> Text:
    """Return words that style nothing and move no cursor, whatever they hold: some come from a server."""
    return Text(units.text(words), style)
