"""How many replicas: Cortex's autoscaling rules in the words of Kubernetes, and what may be disrupted.

What they are meant to come to is `tests.environments.kubernetes.autoscaling`. Kubernetes' autoscaler differs from it
in this:

- it looks every 15 seconds, not every 10 (``pollingInterval`` 10 is how often KEDA asks Prometheus);
- a share of the replicas that is taken away is rounded down to the replicas left, where Cortex rounded up: from 10
  replicas and a factor of 0.75, 7 are left, not 8;
- it waits for a period by its own clock from its start, and then steps as often as its policies let it. A policy's
  period here is Cortex's, plus one tick: that is how long a step was the lowest (or highest) recommendation;
- its tolerance is the cluster's, 10 %, where the cluster has no tolerance of its own for each autoscaler (before
  Kubernetes 1.33), and with KEDA;
- a stabilization period is an hour at most, and a policy's period 30 minutes;
- replicas that are not ready count as having no request under way when it adds some.
"""

import math
from collections.abc import Mapping
from typing import Any

from cortex.environments.kubernetes.settings import Settings
from cortex.quantity import in_thousandths
from cortex.spec import APISpec, Autoscaling

IN_FLIGHT = "cortex_in_flight_requests"
"""The gauge that every worker exposes; Cortex's own name for it."""
TICK_SECONDS = 10
"""How often Cortex's autoscaler looked."""
TOLERANCE_SINCE = (1, 33)
_LONGEST_STABILIZATION = 3600
_LONGEST_PERIOD = 1800


def scaled(spec: APISpec) -> bool:
    """Tell whether anything chooses a number of replicas for an API."""
    return spec.autoscaling.max_replicas > spec.autoscaling.min_replicas


def autoscaler(spec: APISpec, settings: Settings, version: tuple[int, int]) -> dict[str, Any]:
    """Return what chooses the number of replicas: a ScaledObject when there is a Prometheus to ask, else an HPA."""
    return _scaled_object(spec, settings) if settings.prometheus else _horizontal(spec, version)


def behavior(rules: Autoscaling) -> dict[str, Any]:
    """Return how fast replicas may come and go: the factors and the periods."""
    up = (rules.max_upscale_factor - 1) * 100
    down = (1 - rules.max_downscale_factor) * 100
    return {
        "scaleUp": _direction(rules.upscale_stabilization_period, up),
        "scaleDown": _direction(rules.downscale_stabilization_period, down),
    }


def disruption_budget(spec: APISpec) -> dict[str, Any]:
    """Return how many replicas a drain of nodes may take away at a time: never none, or no node could be drained."""
    unavailable = spec.update_strategy.max_unavailable
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": spec.name},
        "spec": {
            "maxUnavailable": 1 if unavailable in (0, "0%") else unavailable,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {"cortex/api": spec.name}},
        },
    }


def _horizontal(spec: APISpec, version: tuple[int, int]) -> dict[str, Any]:
    rules = spec.autoscaling
    speeds = behavior(rules)
    if version >= TOLERANCE_SINCE:
        speeds["scaleUp"]["tolerance"] = _number(rules.upscale_tolerance)
        speeds["scaleDown"]["tolerance"] = _number(rules.downscale_tolerance)
    target = {"type": "AverageValue", "averageValue": in_thousandths(spec.target_concurrency)}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": spec.name},
        "spec": {
            "scaleTargetRef": _target(spec),
            "minReplicas": rules.min_replicas,
            "maxReplicas": rules.max_replicas,
            "metrics": [{"type": "Pods", "pods": {"metric": {"name": IN_FLIGHT}, "target": target}}],
            "behavior": speeds,
        },
    }


def _scaled_object(spec: APISpec, settings: Settings) -> dict[str, Any]:
    rules = spec.autoscaling
    trigger = {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": settings.prometheus,
            "query": query(spec, settings.namespace),
            "threshold": _number(spec.target_concurrency),
        },
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": spec.name},
        "spec": {
            "scaleTargetRef": _target(spec),
            "pollingInterval": TICK_SECONDS,
            "minReplicaCount": rules.min_replicas,
            "maxReplicaCount": rules.max_replicas,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior(rules)}},
            "triggers": [trigger],
        },
    }


def query(spec: APISpec, namespace: str) -> str:
    """Return Cortex's average in PromQL: requests in flight at all replicas, averaged over the window.

    Replicas that came or went within the window count for the part of it in which they were there.
    """
    series = f'{IN_FLIGHT}{{namespace="{namespace}",service="{spec.name}"}}[{round(spec.autoscaling.window)}s]'
    return f"sum(sum_over_time({series})) / max(count_over_time({series}))"


def _direction(stabilization: float, percent: float) -> dict[str, Any]:
    """Return the rules of one direction. One replica is always allowed, so the larger of two policies counts."""
    period = min(_LONGEST_PERIOD, math.ceil(stabilization) + TICK_SECONDS)
    policies = [{"type": "Pods", "value": 1, "periodSeconds": period}]
    if round(percent, 6) >= 1:
        share = {"type": "Percent", "value": min(2**31 - 1, int(round(percent, 6))), "periodSeconds": period}
        policies.append(share)
    return {
        "stabilizationWindowSeconds": min(_LONGEST_STABILIZATION, math.ceil(stabilization)),
        "selectPolicy": "Max",
        "policies": policies,
    }


def _target(spec: APISpec) -> Mapping[str, str]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": spec.name}


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
