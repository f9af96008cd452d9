"""Counts and latencies of an API, for Prometheus.

With ``PROMETHEUS_MULTIPROC_DIR`` set every worker writes into that directory, and any of them answers for all.
"""

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Measure prediction requests: how many by status class, and how long each took."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "cortex_requests", "Prediction requests answered.", ["status"], registry=self._registry
        )
        self._seconds = Histogram(
            "cortex_request_duration_seconds",
            "Time from a prediction request's first byte to its answer's last.",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def observe(self, status: int, seconds: float) -> None:
        """Count one answered request, under ``2XX``, ``4XX``, ``5XX`` and so on."""
        self._requests.labels(f"{status // 100}XX").inc()
        self._seconds.observe(seconds)

    def exposition(self) -> bytes:
        """Return Prometheus' text form, of all workers when they share a directory. Reads files."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the package annotates it only in part
        return generate_latest(registry)
