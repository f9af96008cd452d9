"""What an API answered so far, read from the files that its workers count in."""

from pathlib import Path

from cortex import metrics_files
from cortex.environments.base import NetworkStats


def network_stats(directory: Path) -> NetworkStats:
    """Sum the workers' counts in a ``PROMETHEUS_MULTIPROC_DIR``; nothing is counted where there is none."""
    if not directory.is_dir():
        return NetworkStats()
    metrics = metrics_files.counted(directory)
    found = {(row.name, row.labels.get("status")): float(row.value) for metric in metrics for row in metric.samples}

    def value(name: str, status: str | None = None) -> float:
        return found.get((name, status), 0.0)

    count = value("cortex_request_duration_seconds_count")
    seconds = value("cortex_request_duration_seconds_sum")
    return NetworkStats(
        code_2xx=int(value("cortex_requests_total", "2XX")),
        code_4xx=int(value("cortex_requests_total", "4XX")),
        code_5xx=int(value("cortex_requests_total", "5XX")),
        latency_ms=1000 * seconds / count if count else None,
    )
