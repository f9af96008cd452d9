"""The paths of a worker. They are compared exactly, as in Cortex."""

PREDICT_PATHS = ("/", "/predict")
HEALTH, READY, METRICS = "/healthz", "/readyz", "/metrics"
OPENAPI, DOCS = "/openapi.json", "/docs"
PROBE_PATHS = (HEALTH, READY, METRICS)
