"""Kubernetes' autoscaler, followed by its own rules as the manifests give them, beside Cortex's."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from cortex.environments.kubernetes.manifests.scaling import TICK_SECONDS, behavior
from cortex.spec import Autoscaling
from tests.environments.kubernetes.autoscaling import simulate

LOAD = [4.0] * 60 + [40.0] * 120 + [400.0] * 400 + [80.0] * 600 + [0.0] * 1500
"""Requests in flight every 10 seconds: a rise, a spike of more than an hour, a fall."""


def _limit(rules: Mapping[str, Any], now: int, current: int, events: list[tuple[int, int]]) -> int:
    """Return how far one direction's policies let it go: the farthest of them, from where its period began."""
    proposals = []
    up = rules["up"]
    for policy in rules["policies"]:
        start = current - sum(change for at, change in events if now - at < policy["periodSeconds"])
        share = start * (1 + policy["value"] / 100) if up else start * (1 - policy["value"] / 100)
        step = start + policy["value"] if up else start - policy["value"]
        proposals.append((math.ceil(share) if up else math.floor(share)) if policy["type"] == "Percent" else step)
    return max(proposals) if up else min(proposals)


def _kubernetes(spec: Autoscaling, load: list[float]) -> Iterator[int]:
    """Follow HorizontalPodAutoscaler (v2): recommend, stabilize, limit; here it looks every 10 seconds too."""
    speeds = behavior(spec)
    up, down = {**speeds["scaleUp"], "up": True}, {**speeds["scaleDown"], "up": False}
    current, told, events = spec.min_replicas, dict[int, int](), list[tuple[int, int]]()
    for tick in range(len(load)):
        now = tick * TICK_SECONDS
        window = load[max(0, tick + 1 - int(spec.window) // TICK_SECONDS) : tick + 1]
        raw = sum(window) / len(window) / (spec.target_replica_concurrency or 1)
        steady = 1 - spec.downscale_tolerance <= raw / current <= 1 + spec.upscale_tolerance
        told[now] = min(max(current if steady else math.ceil(raw), spec.min_replicas), spec.max_replicas)
        lowest = min(count for at, count in told.items() if now - at <= up["stabilizationWindowSeconds"])
        highest = max(count for at, count in told.items() if now - at <= down["stabilizationWindowSeconds"])
        wanted = min(max(current, lowest), highest)
        if wanted > current:
            wanted = min(wanted, max(_limit(up, now, current, events), current))
        elif wanted < current:
            wanted = max(wanted, min(_limit(down, now, current, events), current))
        if wanted != current:
            events.append((now, wanted - current))
        current = wanted
        yield current


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"max_replicas": 30},
        {"target_replica_concurrency": 0.4, "max_replicas": 1000},
        {"max_upscale_factor": 10.0, "max_downscale_factor": 0.5},
        {"upscale_stabilization_period": 0.0, "downscale_stabilization_period": 60.0, "window": 10.0},
    ],
)
def test_kubernetes_comes_to_cortex_s_counts_at_cortex_s_pace(changed: Mapping[str, float]) -> None:
    """Equal where the load has been steady, and never more than two of Cortex's steps apart on the way."""
    spec = Autoscaling.model_validate({"target_replica_concurrency": 4.0, **changed})
    ours, theirs = list(simulate(spec, LOAD)), list(_kubernetes(spec, LOAD))
    for end in (60, 180, 580, len(LOAD)):
        assert theirs[end - 1] == ours[end - 1]
    for now, then in zip(ours, theirs, strict=True):
        few, many = sorted((now, then))
        step = max(spec.max_upscale_factor, 1 / spec.max_downscale_factor)
        assert many <= math.ceil(math.ceil(few * step) * step) + 1
