"""What is left of a load test for other programs and later days: JSON, CSV, HTML."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cortex.errors import UserError
from cortex.loadtest import html
from cortex.loadtest.findings import Report
from cortex.loadtest.results import Result, Window

_PERCENTILES = ("mean", "min", "p50", "p75", "p90", "p95", "p99", "p999", "p9999", "max")
CSV_COLUMNS = (
    "row",
    "value",
    "start",
    "seconds",
    "requests",
    "inferences",
    "errors",
    "requests_per_second",
    "inferences_per_second",
    *_PERCENTILES,
    "uncorrected_p50",
    "uncorrected_p99",
    "sent_bytes",
    "received_bytes",
)
"""Times are in seconds. A field is empty where there is no such figure."""


def check(path: Path) -> None:
    """Raise UserError when no file can be written there: better before a long run than after it."""
    try:
        existed = path.exists()
        path.open("a").close()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file that can be written") from error
    if not existed:
        path.resolve().unlink()  # a link to where no file is yet stays


def write_json(report: Report, path: Path) -> None:
    """Write everything; ``Report.from_dict`` reads it back. Raises UserError when it cannot be written."""
    _write(path, json.dumps(report.as_dict(), indent=1) + "\n")


def write_csv(report: Report, path: Path) -> None:
    """Write a row for each second, for each point of a sweep and trial of a search, and one of the whole run."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(report))
    _write(path, file.getvalue())


def write_html(report: Report, path: Path) -> None:
    """Write a page that needs nothing but itself."""
    _write(path, html.page(report))


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8", errors="xmlcharrefreplace")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file that can be written") from error


def _rows(report: Report) -> Iterator[dict[str, Any]]:
    for window in report.result.windows:
        yield {"row": "window", "start": window.start} | _figures(window, window.errors)
    for point in report.sweep.points if report.sweep else ():
        yield {"row": "point", "value": point.value} | _whole(point.result)
    for trial in report.search.trials if report.search else ():
        yield {"row": "trial", "value": trial.rate} | _whole(trial.result)
    yield {"row": "summary"} | _whole(report.result)


def _whole(result: Result) -> dict[str, Any]:
    figures = _figures(result, result.failed)
    figures |= {"sent_bytes": result.sent_bytes, "received_bytes": result.received_bytes}
    if result.uncorrected:
        figures |= {"uncorrected_p50": result.uncorrected.p50, "uncorrected_p99": result.uncorrected.p99}
    return figures


def _figures(told: Window | Result, errors: int) -> dict[str, Any]:
    """Return the columns that a second and a whole run have in common."""
    return {
        "seconds": told.seconds,
        "requests": told.requests,
        "inferences": told.inferences,
        "errors": errors,
        "requests_per_second": told.requests / told.seconds if told.seconds else 0.0,
        "inferences_per_second": told.inferences / told.seconds if told.seconds else 0.0,
    } | {name: getattr(told.latency, name) for name in _PERCENTILES if told.latency}
