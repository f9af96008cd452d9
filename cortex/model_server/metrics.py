"""The metrics of a server, at ``/metrics`` in Prometheus' text format; docs/metrics.md lists them.

Labels take values that this server knows: names of models that answered, signatures, methods, codes. A name that a
client made up is counted under ``""``, so that nobody outside can grow the page.
"""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from cortex.model_server.request import WARM_UP, Page, Request
from cortex.model_server.status import Code

_SECONDS = tuple(round(base * 10.0**power, 6) for power in range(-5, 2) for base in (1, 2.5, 5))
_ROWS = tuple(float(2**power) for power in range(13))
_WHO = ("model_name", "version", "signature", "method")


class Metrics(Page):
    """Count what is heard of in a registry of its own."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        requests = Counter("cortex_model_requests", "Requests answered.", (*_WHO, "door", "code"), registry=registry)
        latency = Histogram(
            "cortex_model_request_seconds", "Time of a request.", _WHO, buckets=_SECONDS, registry=registry
        )
        stages = Histogram(
            "cortex_model_stage_seconds",
            "Time of a request in a stage: decode, queue, execute, encode.",
            ("model_name", "version", "stage"),
            buckets=_SECONDS,
            registry=registry,
        )
        in_flight = Gauge(
            "cortex_model_requests_in_flight",
            "Requests under way.",
            ("door",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        # every request counts with these, and finding the one of its labels takes longer than counting
        self._requests, self._latency = cache(requests.labels), cache(latency.labels)
        self._stages, self._in_flight = cache(stages.labels), cache(in_flight.labels)
        self._batches = Histogram(
            "cortex_batch_rows", "Rows of a batch, padding included.", ("model_name",), buckets=_ROWS, registry=registry
        )
        self._batch_requests = Histogram(
            "cortex_batch_requests", "Requests in a batch.", ("model_name",), buckets=_ROWS, registry=registry
        )
        self._padding = Counter("cortex_batch_padding_rows", "Rows added.", ("model_name",), registry=registry)
        self._batch_seconds = Histogram(
            "cortex_batch_seconds", "Time of a batch.", ("model_name",), buckets=_SECONDS, registry=registry
        )
        self._refused = Counter(
            "cortex_batch_left_out", "Requests that no batch answered.", ("model_name", "reason"), registry=registry
        )
        self._loads = Histogram(
            "cortex_model_load_seconds", "Time of a load, warm-up included.", ("code",), registry=registry
        )
        self._warm_ups = Histogram("cortex_model_warm_up_seconds", "Time of a warm-up.", ("code",), registry=registry)
        self._logged = Counter(
            "cortex_request_log_records", "Records of request logs.", ("model_name", "code"), registry=registry
        )

    def page(self) -> str:
        """Return every metric as text."""
        return generate_latest(self._registry).decode()

    def began(self, request: Request) -> None:
        """Count a request as under way."""
        self._in_flight(request.door).inc()

    def ended(self, request: Request, code: Code) -> None:
        """Count a request, and where its time went."""
        self._in_flight(request.door).dec()
        version = str(request.version) if request.version else ""
        who = (request.model, version, request.signature, request.method)
        self._requests(*who, request.door, code.name).inc()
        self._latency(*who).observe(request.seconds)
        for stage, seconds in request.stages.items():
            self._stages(request.model, version, stage).observe(seconds)

    def batched(self, model: str, pool: str, sizes: tuple[int, ...], padding: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.labels(model).observe(sum(sizes) + padding)
        self._batch_requests.labels(model).observe(len(sizes))
        self._padding.labels(model).inc(padding)
        self._batch_seconds.labels(model).observe(seconds)

    def left_out(self, model: str, reason: str) -> None:
        """Count a request that no batch answered."""
        self._refused.labels(model, reason).inc()

    def loaded(self, directory: str, request: Request, code: Code) -> None:
        """Count a load, and the time of its warm-up."""
        self._loads.labels(code.name).observe(request.seconds)
        if WARM_UP in request.stages:
            self._warm_ups.labels(code.name).observe(request.stages[WARM_UP])

    def logged(self, model: str, code: Code) -> None:
        """Count a record of a request log, or one that was dropped."""
        self._logged.labels(model, code.name).inc()
