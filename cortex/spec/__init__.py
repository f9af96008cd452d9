"""The yaml of an API, as frozen values. The only package that knows yaml keys.

a file -> document (data and lines) -> shape (keys, types, bounds) -> rules, unique -> APISpec

`cortex.spec.config` is the way from the file to the values; who is given values, as a worker is, does without it.
"""

from cortex.spec.scalars import SINGLE_MODEL
from cortex.spec.values import (
    APISpec,
    Autoscaling,
    Compute,
    Model,
    Monitoring,
    Networking,
    Predictor,
    ServerSideBatching,
    UpdateStrategy,
)

__all__ = [
    "SINGLE_MODEL",
    "APISpec",
    "Autoscaling",
    "Compute",
    "Model",
    "Monitoring",
    "Networking",
    "Predictor",
    "ServerSideBatching",
    "UpdateStrategy",
]
