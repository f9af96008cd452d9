"""The pages of metrics on the REST port, by path: ours, and TF Serving's where its monitoring file asks for it."""

from pathlib import Path

from cortex.model_server import tf_serving_metrics
from cortex.model_server.flags import Flags
from cortex.model_server.metrics import Metrics
from cortex.model_server.request import Page

METRICS_PATH = "/metrics"


def open_pages(flags: Flags) -> dict[str, Page]:
    """Return the pages by path. Raises StatusError for a monitoring file that cannot be used."""
    pages: dict[str, Page] = {METRICS_PATH: Metrics()}
    if flags.monitoring_config_file:
        path = tf_serving_metrics.read_path(Path(flags.monitoring_config_file))
        if path:
            pages[path] = tf_serving_metrics.TFServingMetrics()
    return pages
