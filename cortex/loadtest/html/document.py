"""The page: verdict first, then the sections."""

from collections.abc import Iterator
from importlib import resources

from cortex.loadtest import units
from cortex.loadtest.findings import Report
from cortex.loadtest.html import sections
from cortex.loadtest.html.markup import Markup, element
from cortex.loadtest.results import Result

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may do with the page: no script, and nothing that is fetched. Text that got past escaping is inert."""


def page(report: Report) -> str:
    """Return the report as one HTML file: no script, no network. Everything that came from outside is escaped."""
    endpoint = units.text(report.result.settings.get("endpoint", ""))
    return "<!doctype html>\n" + element(
        "html",
        _head(f"Load test of {endpoint}" if endpoint else "Load test"),
        element("body", element("main", _header(report, endpoint), *_body(report))),
        lang="en",
    )


def _head(title: str) -> Markup:
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Markup(style)),
    )


def _body(report: Report) -> Iterator[Markup | None]:
    yield sections.comparison(report)
    yield sections.search(report)
    yield sections.sweep(report)
    yield sections.over_time(report)
    yield element("div", sections.histogram(report), sections.percentiles(report), class_="pair")
    yield sections.stages(report)
    yield sections.facts(report)
    yield sections.settings(report)


def _header(report: Report, endpoint: str) -> Markup:
    result = report.result
    place = element("p", endpoint, class_="endpoint") if endpoint else None
    when = element("p", _when(result), class_="note")
    tiles = element("div", *(_tile(*each) for each in _figures(result)), class_="tiles")
    words = element("ul", *(element("li", text, class_=kind) for kind, text in _verdicts(report)), class_="verdicts")
    return element("header", element("h1", "Load test"), place, when, tiles, words)


def _when(result: Result) -> str:
    started = units.text(result.started).replace("T", " ")
    return f"{result.seconds:,.1f} s measured" + (f", from {started}" if started else "")


def _tile(name: str, value: str, unit: str, kind: str = "", aside: str = "") -> Markup:
    figure = element("p", element("span", value, class_="value"), " ", unit)
    below = element("p", aside, class_="aside") if aside else None
    return element("div", element("p", name), figure, below, class_=f"tile {kind}")


def _figures(result: Result) -> Iterator[tuple[str, ...]]:
    """Yield what one wants to know first: name, value, unit, whether it is bad, and a word beside it."""
    yield "throughput", units.number(result.requests_per_second), "requests/s"
    if result.inferences != result.requests:
        yield "inferences", units.number(result.inferences_per_second), "/s"
    for name in ("p50", "p99"):
        value, _, unit = units.duration(getattr(result.latency, name, None)).partition(" ")
        yield f"latency {name}", value, unit, "", _uncorrected(result, name)
    share, unit = units.share(result.error_share).rsplit(" ", 1)
    yield "errors", share, unit, "bad" if result.failed else ""


def _uncorrected(result: Result, name: str) -> str:
    if not result.open_loop or not result.uncorrected:
        return ""
    return f"{units.duration(getattr(result.uncorrected, name))} from sending"


def _verdicts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield whether each condition holds, and what one must know before believing the figures."""
    result = report.result
    for check in report.checks:
        held = "holds" if check.passed else "does not hold"
        yield ("good" if check.passed else "bad"), f"{check.text} {held}: {check.actual}"
    if verdict := result.settings.get("LoadGen"):
        yield ("good" if verdict == "VALID" else "warn"), f"LoadGen's verdict: {verdict}"
    if not result.requests:
        yield "bad", "No request was answered."
    if result.failed:
        kind, count = next(iter(result.errors.items()))
        yield (
            "bad",
            f"{result.failed:,} of {result.failed + result.requests:,} requests failed, {count:,} of them: {kind}",
        )
    if result.interrupted:
        left = f" {result.unanswered:,} requests had no answer yet." if result.unanswered else ""
        yield "warn", f"The run was interrupted: figures are of what was answered until then.{left}"
    if result.steady:
        yield ("good" if result.steady.reached and result.steady.lasted else "warn"), result.steady.words
    if result.client and result.client.warning:
        yield "warn", result.client.warning
