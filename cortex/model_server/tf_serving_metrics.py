"""TF Serving's own metrics, with its names, labels and buckets, for dashboards that were made for it.

They are served where ``--monitoring_config_file`` says, and only then. Sources: contracts of ``servables/tensorflow/
util.cc``, ``batching/batching_session.cc`` and ``util/prometheus_exporter.cc`` of tensorflow/serving. Times are in
microseconds.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric

from cortex.model_server import text_proto
from cortex.model_server.engines.base import Array, size_of
from cortex.model_server.request import EXECUTE, WARM_UP, Page, Request
from cortex.model_server.status import Code, invalid

DEFAULT_PATH = "/monitoring/prometheus/metrics"

_SERVING, _SAVED_MODEL, _CORE = ":tensorflow:serving:", ":tensorflow:cc:saved_model:", ":tensorflow:core:"
_INFERENCE = frozenset({"predict", "classify", "regress", "multiinference"})
_WITH_EXAMPLES = _INFERENCE - {"predict"}


def read_path(path: Path) -> str:
    """Return the path of the page that a MonitoringConfig text proto asks for, or "" for no page.

    Raises StatusError (INVALID_ARGUMENT) that names the file.
    """
    message = text_proto.read(path, "MonitoringConfig", {"prometheus_config": {"enable": "bool", "path": "string"}})
    asked = message.prometheus_config
    where: str = asked.path or DEFAULT_PATH
    if not where.startswith("/"):
        raise invalid(f"{path}: prometheus_config.path must begin with a slash, not {where!r}")
    return where if asked.enable else ""


def _exponential(scale: float, growth: float, count: int) -> tuple[float, ...]:
    return tuple(scale * growth**power for power in range(count))


_LATENCY = _exponential(10, 1.8, 33)
_QUEUING = _exponential(100, 1.2, 52)
_EXAMPLES = _exponential(1, 2, 15)
_ROWS = _exponential(1, 2, 15)
_GRAPH_RUN = _exponential(1000, 2, 20)
_TENSOR_BYTES = _exponential(1, 4, 14)


class TFServingMetrics(Page):
    """Count what TF Serving counts, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("request_count", "model_name", "status")
        self._latency = self._histogram("request_latency", _LATENCY, "model_name", "API", "entrypoint")
        self._runtime = self._histogram("runtime_latency", _LATENCY, "model_name", "API", "runtime")
        self._examples = self._histogram("request_example_counts", _EXAMPLES, "model")
        self._example_total = self._counter("request_example_count_total", "model")
        self._logged = self._counter("request_log_count", "model_name", "status_code")
        self._queuing = self._histogram("batching_session:queuing_latency", _QUEUING, "thread_pool_name")
        self._runs = self._counter("batching_session:wrapped_run_count")
        self._padding = self._histogram("batching_session:padding_size", _ROWS, "execution_batch_size")
        self._input = self._histogram("batching_session:input_batch_size", _ROWS)
        self._loads = self._counter("load_attempt_count", "model_path", "status", prefix=_SAVED_MODEL)
        self._load_time = self._counter("load_latency", "model_path", prefix=_SAVED_MODEL)
        self._warm_ups = self._histogram("model_warmup_latency", _LATENCY, "model_path", "status")
        self._warmed = self._counter("model_warmup_records_read", "model_path")
        self._processed = self._histogram("batching_session:processed_batch_size", _ROWS)
        self._graph_runs = self._counter("graph_runs", prefix=_CORE)
        self._graph_time = self._counter("graph_run_time_usecs", prefix=_CORE)
        self._graph_times = self._histogram("graph_run_time_usecs_histogram", _GRAPH_RUN, prefix=_CORE)
        self._inputs = self._histogram("graph_run_input_tensor_bytes", _TENSOR_BYTES, prefix=_CORE)
        self._outputs = self._histogram("graph_run_output_tensor_bytes", _TENSOR_BYTES, prefix=_CORE)

    def page(self) -> str:
        """Return every metric as text, as TF Serving prints it: no HELP, and the counters' names as declared."""
        return "".join(line for metric in self._registry.collect() for line in _lines(metric))

    def count(self, name: str) -> int:
        """Return the value of the first cell of a counter, which is the one that TF Serving reports too."""
        wanted = ("counter", name.replace("/", ":"))
        found = [metric for metric in self._registry.collect() if (metric.type, metric.documentation) == wanted]
        return int(next((sample.value for metric in found for sample in metric.samples), 0))

    def ended(self, request: Request, code: Code) -> None:
        """Count an inference request; its latency only when it succeeded."""
        api = request.method
        if api.lower() not in _INFERENCE:
            return
        self._requests.labels(request.model, code.name).inc()
        if EXECUTE in request.stages:
            self._runtime.labels(request.model, api, "TF1").observe(request.stages[EXECUTE] * 1e6)
        if code is not Code.OK:
            return
        self._latency.labels(request.model, api, request.door).observe(request.seconds * 1e6)
        if api.lower() in _WITH_EXAMPLES:
            self._examples.labels(request.model).observe(request.examples)
            self._example_total.labels(request.model).inc(request.examples)

    def batched(self, model: str, pool: str, sizes: tuple[int, ...], padding: int, seconds: float) -> None:
        """Count a batch."""
        size = sum(sizes) + padding
        self._runs.inc()
        self._padding.labels(str(size)).observe(padding)
        self._processed.observe(size)
        for rows in sizes:
            self._input.observe(rows)

    def queued(self, model: str, pool: str, seconds: float) -> None:
        """Count the wait of a request for its batch."""
        self._queuing.labels(pool).observe(seconds * 1e6)

    def logged(self, model: str, code: Code) -> None:
        """Count a record of a request log."""
        self._logged.labels(model, code.name).inc()

    def ran(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], seconds: float) -> None:
        """Count a run of an engine, which is what runs the graph here, and the bytes of each tensor of it."""
        micros = int(seconds * 1e6)
        self._graph_runs.inc()
        self._graph_time.inc(micros)
        self._graph_times.observe(micros)
        for array in inputs.values():
            self._inputs.observe(size_of(array))
        for array in outputs.values():
            self._outputs.observe(size_of(array))

    def loaded(self, directory: str, request: Request, code: Code) -> None:
        """Count the load of a version, and its warm-up."""
        self._loads.labels(directory, "success" if code is Code.OK else "fail").inc()
        self._load_time.labels(directory).inc(int(request.seconds * 1e6))
        if WARM_UP in request.stages:
            self._warm_ups.labels(directory, code.name).observe(request.stages[WARM_UP] * 1e6)
            self._warmed.labels(directory).inc(request.warmed)

    def _counter(self, name: str, *labels: str, prefix: str = _SERVING) -> Counter:
        return Counter(prefix + name, prefix + name, labels, registry=self._registry)

    def _histogram(self, name: str, buckets: tuple[float, ...], *labels: str, prefix: str = _SERVING) -> Histogram:
        return Histogram(prefix + name, prefix + name, labels, buckets=buckets, registry=self._registry)


def _lines(metric: Metric) -> Iterator[str]:
    """Yield the lines of one metric, whose help is its name: the library has ``_total`` behind those of counters."""
    yield f"# TYPE {metric.documentation} {metric.type}\n"
    for sample in metric.samples:
        if not sample.name.endswith("_created"):
            name = metric.documentation if metric.type == "counter" else sample.name
            labels = ",".join(f'{key}="{_label(key, value)}"' for key, value in sample.labels.items())
            yield f"{name}{{{labels}}} {sample.value:.15g}\n"


def _label(key: str, value: str) -> str:
    """Return the value escaped; a bound has six digits, as Abseil prints a double."""
    if key == "le":
        return value if value == "+Inf" else f"{float(value):.6g}"
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
