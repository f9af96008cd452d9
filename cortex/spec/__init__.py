"""The yaml of an API, as frozen values. The only package that knows yaml keys.

a file -> document (data and lines) -> shape (keys, types, bounds) -> rules, unique -> APISpec
"""

from cortex.spec.config import Config, load, read
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
    "Config",
    "Model",
    "Monitoring",
    "Networking",
    "Predictor",
    "ServerSideBatching",
    "UpdateStrategy",
    "load",
    "read",
]
