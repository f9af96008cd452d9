"""The parts of the page, in the order in which they are read. One for which there is nothing to say is None."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cortex.loadtest import units
from cortex.loadtest.findings import Change, Report
from cortex.loadtest.html import bars, curves, distribution, timeline
from cortex.loadtest.html.markup import Child, Markup, element, joined
from cortex.loadtest.latency import Latency
from cortex.loadtest.results import Client, Cost, Result, Server

_WIDE, _HALF, _NARROW = 1000, 484, 344  # of drawings
_ROWS = 600  # of the table of seconds: longer runs have several seconds to a row
_APART = ("command", "machine", "open_loop")  # settings that are not in the list of settings


def over_time(report: Report) -> Markup | None:
    drawn = _plot(lambda width: timeline.plot(report.result, width), _WIDE)
    if drawn is None:
        return None
    legend = _legend({"p50": "p50", "p99": "p99", "answered": "answered", "error": "errors"})
    return _section("timeline", timeline.TITLE, legend, drawn, _windows(report.result))


def histogram(report: Report) -> Markup | None:
    if not (latency := report.result.latency):
        return None
    drawn = _plot(lambda width: distribution.histogram(latency, width), _HALF)
    return _section("histogram", distribution.HISTOGRAM, _legend({"answered": "requests"}), drawn)


def percentiles(report: Report) -> Markup | None:
    result = report.result
    if not (latency := result.latency):
        return None
    drawn = _plot(lambda width: distribution.curve(result, latency, width), _HALF)
    names = {"p99": "from when it was due", "raw": "from when it was sent"} if result.open_loop else {"p99": "latency"}
    raw = result.uncorrected if result.open_loop else None
    return _section("curve", distribution.CURVE, _legend(names), drawn, _percentile_table(latency, raw))


def sweep(report: Report) -> Markup | None:
    if not (found := report.sweep):
        return None
    drawn = _plot(lambda width: curves.sweep(found, width), _WIDE)
    legend = _legend({"rate": "throughput", "p50": "p50", "p99": "p99", "knee": "knee"})
    rows = [_run_row(f"{each.value:g}" + (" (knee)" if i == found.knee else ""), each.result)
            for i, each in enumerate(found.points)]  # fmt: skip
    table = _details("Every run", _table((found.over, *_RUN_COLUMNS), rows))
    return _section("sweep", curves.SWEEP, element("p", found.words), legend, drawn, table)


def search(report: Report) -> Markup | None:
    if not (found := report.search):
        return None
    drawn = _plot(lambda width: curves.search(found, width), _WIDE)
    bound = f"{found.objective.name} at most {units.duration(found.objective.bound)}"
    legend = _legend({"held": "held", "broken": "did not hold", "bound": bound})
    rows = [(f"{units.number(each.rate)}/s", "yes" if each.held else "no", each.why) for each in found.trials]
    table = _details("Every trial", _table(("rate", "held", "why"), rows))
    return _section("search", f"Highest rate with {bound}", element("p", found.words), legend, drawn, table)


def comparison(report: Report) -> Markup | None:
    found = report.comparison
    if not found or not found.changes:
        return None
    drawn = _plot(lambda width: bars.changes(found, width), _WIDE)
    legend = _legend({"better": "better", "worse": "worse", "no-change": "no change"})
    columns = ("figure", "before", "after", "ratio", "95 % interval", "verdict")
    table = _table(columns, [_change_row(each) for each in found.changes])
    source = element("p", "Compared with ", element("code", found.source), ". ", found.words)
    return _section("changes", "Change since the earlier run", source, legend, drawn, table)


def stages(report: Report) -> Markup | None:
    server, latency = report.result.server, report.result.uncorrected or report.result.latency
    if not server or not server.stages or not latency:
        return None
    drawn = _plot(lambda width: bars.stages(server.stages, latency.mean, width), _WIDE)
    rows = [(each.name, units.duration(each.mean), f"{each.count:,}", each.source) for each in server.stages]
    table = _details("Every stage", _table(("stage", "mean", "times passed", "told by"), rows))
    note = (
        "From the server's own metrics, read before and after. What is outside of these is network, HTTP and waiting."
    )
    legend = _legend({kind: name for name, kind in bars.styles(server.stages).items()} | {"rest": bars.REST})
    return _section("stages", bars.STAGES, element("p", note, class_="note"), legend, drawn, table)


def facts(report: Report) -> Markup:
    """Return errors, the tester's own share, the server's use, and cost, as short lists side by side."""
    result = report.result
    lists = (
        ("Errors", _errors(result)),
        ("Traffic", _traffic(result)),
        ("Tester", _client(result.client)),
        ("Server", _server(result.server)),
        ("Cost", _cost(result.cost)),
    )
    return element("div", *(_card(title, rows) for title, rows in lists if rows), class_="cards")


def settings(report: Report) -> Markup:
    result = report.result
    rows = {key.replace("_", " "): value for key, value in result.settings.items() if key not in _APART}
    rows |= {"started": result.started, "warm-up": units.clock(result.warmup_seconds)} if result.started else {}
    machine = result.settings.get("machine")
    command = result.settings.get("command")
    return joined(
        element(
            "div",
            _card("Settings", rows),
            _card("Machine of the tester", machine) if isinstance(machine, Mapping) and machine else None,
            class_="cards",
        ),
        _section("command", "Repeat it", element("pre", element("code", command), tabindex="0")) if command else None,
    )


def _section(name: str, title: str, *parts: Child) -> Markup:
    return element("section", element("h2", title), *parts, class_="card", id=f"section-{name}")


def _plot(draw: Callable[[int], Markup | None], width: int) -> Markup | None:
    """Return a plot drawn twice, for wide windows and narrow ones: text that was only scaled down cannot be read."""
    wide, narrow = draw(width), draw(_NARROW)
    if wide is None or narrow is None:
        return None
    return joined(element("div", wide, class_="wide"), element("div", narrow, class_="narrow"))


def _legend(names: Mapping[str, str]) -> Markup:
    items = (
        element("li", element("span", class_=f"swatch {kind}", aria_hidden="true"), name)
        for kind, name in names.items()
    )
    return element("ul", *items, class_="legend")


def _details(summary: str, content: Markup) -> Markup:
    return element("details", element("summary", summary), content)


def _table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> Markup:
    head = element("tr", *(element("th", each, scope="col") for each in columns))
    body = (element("tr", *_cells(row)) for row in rows)
    table = element("table", element("thead", head), element("tbody", *body))
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=", ".join(columns))


def _cells(row: Iterable[str]) -> Iterable[Markup]:
    first, *others = row
    return (element("th", first, scope="row"), *(element("td", each) for each in others))


def _windows(result: Result) -> Markup:
    rows = (
        (
            f"{each.start:g} s",
            f"{each.requests:,}",
            f"{each.errors:,}",
            *(units.duration(value) for value in (each.p50, each.p99, each.worst)),
        )
        for each in timeline.columns(result.windows, most=_ROWS)
    )
    return _details("Every second", _table(("from", "answered", "errors", "p50", "p99", "max"), rows))


_RUN_COLUMNS = ("requests/s", "inferences/s", "p50", "p99", "errors")


def _run_row(name: str, result: Result) -> tuple[str, ...]:
    return (
        name,
        units.number(result.requests_per_second),
        units.number(result.inferences_per_second),
        *(units.duration(getattr(result.latency, each, None)) for each in ("p50", "p99")),
        units.share(result.error_share),
    )


def _change_row(change: Change) -> tuple[str, ...]:
    figure = units.duration if "latency" in change.name else units.number
    return (
        change.name,
        figure(change.before),
        figure(change.after),
        f"{change.ratio:.3f}",
        f"{change.low:.3f} to {change.high:.3f}",
        change.verdict,
    )


def _percentile_table(latency: Latency, raw: Latency | None) -> Markup:
    names = {"p50": "50 %", "p75": "75 %", "p90": "90 %", "p95": "95 %", "p99": "99 %", "p999": "99.9 %",
             "p9999": "99.99 %", "max": "100 %"}  # fmt: skip
    lines = [line for line in (latency, raw) if line]
    rows = [(text, *(units.duration(getattr(line, name)) for line in lines)) for name, text in names.items()]
    columns = ("share", "from due", "from sent") if raw else ("share", "latency")
    return _details("Every percentile", _table(columns, rows))


def _card(title: str, rows: Mapping[str, Any]) -> Markup:
    pairs = (joined(element("dt", name), element("dd", units.text(value))) for name, value in rows.items())
    return element("section", element("h2", title), element("dl", *pairs), class_="card")


def _errors(result: Result) -> dict[str, str]:
    if not result.failed:
        return {"failed": "none"}
    share = f"{result.failed:,} ({units.share(result.error_share)})"
    return {"failed": share} | {units.text(kind): f"{count:,}" for kind, count in result.errors.items()}


def _traffic(result: Result) -> dict[str, str]:
    return {
        "answered": f"{result.requests:,} requests",
        "inferences": f"{result.inferences:,}",
        "measured": f"{result.seconds:,.1f} s",
        "sent": units.size(result.sent_bytes),
        "received": units.size(result.received_bytes),
    }


def _client(client: Client | None) -> dict[str, str]:
    if not client:
        return {}
    late = {"sent late": f"{client.late:,} ({units.share(client.late_share)})",
            "latest by": units.duration(client.worst_lateness)} if client.late else {}  # fmt: skip
    return {
        "connections": f"{client.processes} x {client.threads}",
        "processor time": f"{client.cpu_seconds:,.1f} s",
        "busiest process": f"{units.share(client.busiest)} of a core",
        "cost of a request": units.duration(client.cpu_per_request),
    } | late


def _server(server: Server | None) -> dict[str, str]:
    if not server:
        return {}
    known = {
        "processor": server.cpu_cores is not None and f"{units.number(round(server.cpu_cores, 2))} cores busy",
        "memory": server.memory is not None and units.size(server.memory),
        "processes": server.processes is not None and str(server.processes),
    }
    return {name: value for name, value in known.items() if value}


def _cost(cost: Cost | None) -> dict[str, str]:
    if not cost:
        return {}
    known = {
        "price of an hour": cost.price_per_hour is not None and units.money(cost.price_per_hour),
        "a million inferences": cost.per_million_inferences is not None and units.money(cost.per_million_inferences),
        "wanted": cost.target_rate is not None and f"{units.number(cost.target_rate)} inferences/s",
        "replicas": cost.replicas is not None and f"{cost.replicas:,}",
        "all, for an hour": cost.replicas_price_per_hour is not None and units.money(cost.replicas_price_per_hour),
    }
    return {name: value for name, value in known.items() if value}
