"""Counts, latencies and stages of an API, for Prometheus.

A request's stages are ``decode`` (its body is read and parsed), ``queue`` (it waits for a thread), ``predict`` (the
user's code), ``model`` (what that code's calls of a model client took) and ``encode`` (the prediction is written as an
answer). Each time is counted in one stage only.

With ``PROMETHEUS_MULTIPROC_DIR`` set every worker writes into that directory, and any of them answers for all.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from cortex import metrics_files

metrics_files.open_directory()  # before Prometheus' library looks whether there is one
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STAGE_SECONDS = tuple(round(base * 10.0**power, 6) for power in range(-5, 2) for base in (1, 2.5, 5))
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class _Calls(threading.local):
    """What calls of a model client have taken since the user's code was entered, in each thread for itself."""

    seconds = 0.0


class Metrics:
    """Measure prediction requests: how many by status class, how long each took, and in which stages."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        requests = Counter("cortex_requests", "Prediction requests answered.", ["status"], registry=self._registry)
        self._seconds = Histogram(
            "cortex_request_duration_seconds",
            "Time from a prediction request's first byte to its answer's last.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        stages = Histogram(
            "cortex_request_stage_seconds",
            "A prediction request's time in a stage.",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "cortex_in_flight_requests",
            "Prediction requests under way.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self._requests, self._stages = cache(requests.labels), cache(stages.labels)  # looked up at every request
        self._calls = _Calls()

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count a prediction request as under way."""
        self._in_flight.inc()
        try:
            yield
        finally:
            self._in_flight.dec()

    def observe(self, status: int, seconds: float) -> None:
        """Count one answered request, under ``2XX``, ``4XX``, ``5XX`` and so on."""
        self._requests(f"{status // 100}XX").inc()
        self._seconds.observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """Count one request's time in a stage."""
        self._stages(name).observe(seconds)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time inside as a request's time in a stage, whether it goes well or not."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stage(stage, time.perf_counter() - started)

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """Count the time inside as ``predict``, less what this thread's model calls take, which is ``model``."""
        self._calls.seconds, started = 0.0, time.perf_counter()
        try:
            yield
        finally:
            model = self._calls.seconds
            self.stage("predict", time.perf_counter() - started - model)
            if model:
                self.stage("model", model)

    @contextmanager
    def model_call(self) -> Iterator[None]:
        """Take the time inside as that of a model call of whatever request this thread is predicting for."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._calls.seconds += time.perf_counter() - started

    def exposition(self) -> bytes:
        """Return Prometheus' text form, of all workers when they share a directory. Reads files."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        metrics_files.forget_the_dead(directory)
        registry = CollectorRegistry()
        registry.register(_Shared(directory))
        return generate_latest(registry)


class _Shared(Collector):
    """What all processes have counted in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        return metrics_files.counted(self._directory)
