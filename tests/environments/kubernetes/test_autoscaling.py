"""Cortex's replica counts, for the examples of its documentation."""

import pytest

from cortex.spec import Autoscaling
from tests.environments.kubernetes.autoscaling import recommend, simulate


def rules(**changed: object) -> Autoscaling:
    values = {"min_replicas": 1, "max_replicas": 1000, "target_replica_concurrency": 1.0, **changed}
    return Autoscaling.model_validate(values)


@pytest.mark.parametrize(
    ("changed", "replicas", "in_flight", "wanted"),
    [
        # desired replicas = in-flight requests / target_replica_concurrency, rounded up
        ({"target_replica_concurrency": 4.0}, 2, 5.0, 2),
        ({"target_replica_concurrency": 4.0}, 2, 9.0, 3),
        ({"target_replica_concurrency": 0.5}, 8, 4.4, 9),
        # max_downscale_factor 0.5 with 10 replicas: not fewer than 5
        ({"max_downscale_factor": 0.5}, 10, 1.0, 5),
        # max_upscale_factor 10 with 5 replicas: not more than 50
        ({"max_upscale_factor": 10.0}, 5, 400.0, 50),
        # downscale_tolerance 0.1 with 20 replicas: 19 is not acted on, and 18 neither while it is more than 18.0
        ({"downscale_tolerance": 0.1}, 20, 19.0, 20),
        ({"downscale_tolerance": 0.1}, 20, 18.01, 20),
        ({"downscale_tolerance": 0.1}, 20, 17.9, 18),
        # upscale_tolerance 0.1 with 20 replicas: 21 is not acted on, and 22 neither while it is less than 22.0
        ({"upscale_tolerance": 0.1}, 20, 21.0, 20),
        ({"upscale_tolerance": 0.1}, 20, 21.9, 20),
        ({"upscale_tolerance": 0.1}, 20, 22.5, 23),
        # one replica more or less is always allowed
        ({"max_upscale_factor": 1.01}, 3, 100.0, 4),
        ({"max_downscale_factor": 0.99}, 3, 0.0, 2),
        # the defaults: 0.75 and 1.5, rounded up
        ({}, 10, 0.0, 8),
        ({}, 10, 1000.0, 15),
        ({}, 1, 1000.0, 2),
        # bounds come last
        ({"min_replicas": 3}, 3, 0.0, 3),
        ({"max_replicas": 12}, 10, 1000.0, 12),
        ({}, 1, 0.0, 1),
        ({}, 1000, 5000.0, 1000),
    ],
)
def test_one_step_is_cortex_s(changed: dict[str, object], replicas: int, in_flight: float, wanted: int) -> None:
    assert recommend(rules(**changed), replicas, in_flight) == wanted


def test_a_spike_shorter_than_the_upscale_period_changes_nothing() -> None:
    """The lowest recommendation of the last minute decides, and one from before the spike is among them."""
    quiet, spike = [2.0] * 40, [50.0] * 6
    spec = rules(window=10.0, min_replicas=2)
    assert max(simulate(spec, quiet + spike + quiet)) == 2
    assert max(simulate(spec, [*quiet, *spike, 50.0, *quiet])) == 3


def test_a_dip_shorter_than_the_downscale_period_changes_nothing() -> None:
    busy, dip = [20.0] * 100, [0.0] * 30
    spec = rules(window=10.0, init_replicas=20)
    assert min(simulate(spec, busy + dip + busy)) == 20
    assert min(simulate(spec, [*busy, *dip, 0.0, *busy])) == 15


def test_nothing_happens_before_the_periods_have_passed_once() -> None:
    """A new autoscaler knows no past: the first minute adds nothing, the first five take nothing away."""
    assert list(simulate(rules(window=10.0), [9.0] * 7)) == [1] * 6 + [2]
    assert list(simulate(rules(window=10.0, init_replicas=4), [1.0] * 31)) == [4] * 30 + [3]
