"""How many replicas an API gets: Cortex's autoscaler, as a pure function of what it has seen.

Every 10 seconds: the requests in flight at all replicas, averaged over ``window``, divided by
``target_replica_concurrency`` and rounded up; then held inside the tolerances, the factors and the bounds. That is the
recommendation. Replicas are added up to the lowest one of the upscale period, and taken away down to the highest one of
the downscale period; neither before its period has passed once.

Nothing here runs in a cluster: Kubernetes' own autoscaler does, by the rules that `kubernetes.manifests.scaling` makes
of the same values. This module says what those rules are to come to.

Source: Cortex 0.18 to 0.23, ``docs/deployments/autoscaling.md``. Its operator did not quite do what that says: until
0.27 the ceiling of the upscale period also cut off what the downscale period wanted to keep. We do what it says.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cortex.environments.kubernetes.manifests.scaling import TICK_SECONDS
from cortex.spec import Autoscaling


@dataclass(frozen=True)
class Autoscaler:
    """One API's autoscaler between two ticks. `after` returns it as it is one tick later."""

    rules: Autoscaling
    replicas: int
    samples: tuple[float, ...] = ()
    """Requests in flight at all replicas, newest last: as many as the window holds."""
    recommendations: tuple[int, ...] = ()
    """Newest last: as many as the longer stabilization period holds."""
    ticks: int = 0

    def after(self, in_flight: float) -> "Autoscaler":
        """Take the requests that are in flight now at all replicas together, and decide."""
        samples = (*self.samples, in_flight)[-round(self.rules.window / TICK_SECONDS) :]
        recommendation = recommend(self.rules, self.replicas, sum(samples) / len(samples))
        longest = max(
            _ticks(self.rules.downscale_stabilization_period), _ticks(self.rules.upscale_stabilization_period)
        )
        recommendations = (*self.recommendations, recommendation)[-longest - 1 :]
        later = replace(self, samples=samples, recommendations=recommendations)
        return replace(later, replicas=later._stable(), ticks=self.ticks + 1)

    def _stable(self) -> int:
        """Move towards the present recommendation as far as those before it let one."""
        down, up = self.rules.downscale_stabilization_period, self.rules.upscale_stabilization_period
        highest = max(self._since(down)) if self._has_run(down) else self.replicas
        lowest = min(self._since(up)) if self._has_run(up) else 0
        return min(max(self.replicas, lowest), max(highest, lowest))

    def _since(self, seconds: float) -> tuple[int, ...]:
        return self.recommendations[-_ticks(seconds) - 1 :]

    def _has_run(self, seconds: float) -> bool:
        return self.ticks * TICK_SECONDS >= seconds


def recommend(rules: Autoscaling, replicas: int, in_flight: float) -> int:
    """Return how many replicas are wanted for an average of ``in_flight`` requests, without regard to the past.

    A step always may be one replica, whatever the factors say.
    """
    raw = in_flight / (rules.target_replica_concurrency or 1)
    wanted = math.ceil(raw)
    if replicas * (1 - rules.downscale_tolerance) < raw < replicas * (1 + rules.upscale_tolerance):
        wanted = replicas
    fewest = min(replicas - 1, math.ceil(replicas * rules.max_downscale_factor))
    most = max(replicas + 1, math.ceil(replicas * rules.max_upscale_factor))
    return max(rules.min_replicas, min(rules.max_replicas, max(fewest, min(most, wanted))))


def simulate(rules: Autoscaling, load: Iterable[float]) -> Iterator[int]:
    """Yield the number of replicas after each tick of a load, which is the requests in flight at each tick."""
    autoscaler = Autoscaler(rules, rules.init_replicas or rules.min_replicas)
    for in_flight in load:
        autoscaler = autoscaler.after(in_flight)
        yield autoscaler.replicas


def _ticks(seconds: float) -> int:
    """Return how many ticks of the past a period holds, besides the present one."""
    return int(seconds // TICK_SECONDS)
