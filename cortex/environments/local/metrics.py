"""What an API answered so far, read from the files that its workers count in."""

from pathlib import Path

from cortex.environments.base import NetworkStats


def network_stats(directory: Path) -> NetworkStats:
    """Sum the workers' counts in a ``PROMETHEUS_MULTIPROC_DIR``; nothing is counted where there is none."""
    if not directory.is_dir():
        return NetworkStats()
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]  # annotated only in part

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, labels) or 0.0

    count = value("cortex_request_duration_seconds_count")
    seconds = value("cortex_request_duration_seconds_sum")
    return NetworkStats(
        code_2xx=int(value("cortex_requests_total", status="2XX")),
        code_4xx=int(value("cortex_requests_total", status="4XX")),
        code_5xx=int(value("cortex_requests_total", status="5XX")),
        latency_ms=1000 * seconds / count if count else None,
    )
