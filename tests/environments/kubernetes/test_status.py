"""What a cluster says of an API, from its JSON."""

from typing import Any

import pytest

from cortex.environments.kubernetes.status import Seen, describe
from cortex.spec import APISpec, Predictor

SPEC = APISpec(name="iris", predictor=Predictor(type="python", path="predictor.py"))
CREATED = "2026-01-02T03:04:05Z"
LIVE = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


def _deployment(**status: Any) -> dict[str, Any]:
    template = {"labels": {"cortex/revision": "new"}, "annotations": {"cortex/spec": SPEC.model_dump_json()}}
    return {
        "kind": "Deployment",
        "metadata": {"name": "iris", "generation": 2, "creationTimestamp": CREATED},
        "spec": {"replicas": 2, "template": {"metadata": template}},
        "status": status,
    }


def _pod(*containers: dict[str, Any], name: str = "iris-1", revision: str = "new", **metadata: str) -> dict[str, Any]:
    labels = {"cortex/revision": revision}
    status = {"containerStatuses": [{"name": "api", "image": "mine:1", **row} for row in containers]}
    return {"kind": "Pod", "metadata": {"name": name, "labels": labels, **metadata}, "status": status}


def test_the_pods_of_a_revision() -> None:
    """Those of an earlier one that still drain, and those that are being removed, are not its own."""
    replica_set = {**_deployment(), "kind": "ReplicaSet"}
    replica_set["metadata"] = {"name": "iris-2", "labels": {"cortex/revision": "new"}}
    pods = [_pod(), _pod(name="iris-2", revision="old"), _pod(name="iris-3", deletionTimestamp=CREATED)]
    assert Seen(_deployment(), [replica_set, *pods]).pods == (pods[0],)


@pytest.mark.parametrize(
    ("changed", "complete"),
    [
        ({}, True),
        ({"observedGeneration": 1}, False),
        ({"replicas": 3}, False),
        ({"updatedReplicas": 1}, False),
        ({"availableReplicas": 1}, False),
    ],
)
def test_an_api_is_live_when_every_replica_runs_the_revision(changed: dict[str, int], complete: bool) -> None:
    """And when no other one runs any more, and the cluster has seen the last change at all."""
    seen = Seen(_deployment(**{**LIVE, **changed}))
    assert seen.complete is complete
    assert describe(seen, "").status == ("live" if complete else "updating")


def _waiting(reason: str, **more: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, **more}}}


CRASHED = {"lastState": {"terminated": {"exitCode": 3}}}
KILLED = {"lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}


@pytest.mark.parametrize(
    ("container", "waits", "hopeless", "status"),
    [
        (_waiting("ContainerCreating"), "", False, "updating"),
        (_waiting("PodInitializing"), "", False, "updating"),
        ({"state": {"running": {}}, "ready": False}, "api starts", False, "updating"),
        ({"state": {"running": {}}, "ready": True}, "", False, "updating"),
        (_waiting("Unknown"), "api: Unknown", False, "updating"),
        (
            {**_waiting("CrashLoopBackOff"), **CRASHED, "restartCount": 1},
            "api crashes (exit code 3, 1 restarts)",
            False,
            "updating",
        ),
        (
            {**_waiting("CrashLoopBackOff"), **CRASHED, "restartCount": 2},
            "api crashes (exit code 3, 2 restarts)",
            True,
            "error",
        ),
        (
            {**_waiting("CrashLoopBackOff"), **KILLED, "restartCount": 2},
            "api crashes (out of memory, 2 restarts)",
            True,
            "error (out of memory)",
        ),
        (
            _waiting("ErrImagePull"),
            "api: the image mine:1 cannot be pulled: ErrImagePull",
            False,
            "updating",
        ),
        (
            _waiting("ErrImageNeverPull", message="not\n present"),
            "api: the image mine:1 cannot be pulled: not present",
            True,
            "error",
        ),
        (
            _waiting("CreateContainerConfigError", message='secret "x" not found'),
            'api: CreateContainerConfigError: secret "x" not found',
            True,
            "error",
        ),
    ],
)
def test_what_a_container_waits_for(container: dict[str, Any], waits: str, hopeless: bool, status: str) -> None:
    """A first crash, and an image that is not there yet, may pass; what cannot is a failure in the same words."""
    seen = Seen(_deployment(**{**LIVE, "updatedReplicas": 1}), [_pod(container)])
    assert seen.waiting_for() == "1 of 2 replicas ready" + (f": {waits}" if waits else "")
    assert seen.failure() == (waits if hopeless else "")
    api = describe(seen, "http://iris")
    assert (api.status, api.reason) == (status, waits if hopeless else seen.waiting_for())


def test_a_container_that_has_done_its_work_is_no_process() -> None:
    """One that copied a model before the others start is not shown, and holds up nothing."""
    pod = _pod({"state": {"running": {}}, "ready": True, "restartCount": 1})
    pod["status"]["initContainerStatuses"] = [{"name": "models", "state": {"terminated": {"exitCode": 0}}}]
    [process] = describe(Seen(_deployment(**LIVE), [pod]), "").processes
    assert (process.name, process.state, process.restarts) == ("iris-1/api", "ready", 1)


def test_an_autoscaler_that_cannot_scale_is_told() -> None:
    """The API answers, but the number of its replicas is nobody's choice."""
    condition = {"type": "ScalingActive", "status": "False", "message": "no metrics"}
    free = {"type": "ScalingLimited", "status": "False", "message": "within the limits"}  # as it should be
    conditions = {"conditions": [free, condition]}
    scaler = {"kind": "HorizontalPodAutoscaler", "metadata": {"name": "iris"}, "status": conditions}
    for status, notices in (("False", ("the number of replicas stays as it is: no metrics",)), ("True", ())):
        condition["status"] = status
        assert describe(Seen(_deployment(**LIVE), [scaler]), "").notices == notices


@pytest.mark.parametrize(
    ("conditions", "seconds"),
    [
        ([{"type": "Progressing", "lastUpdateTime": "2026-01-02T03:05:05Z"}], 60),
        ([{"type": "Progressing"}], 0),
        ([], 0),
    ],
)
def test_when_an_api_was_updated(conditions: list[dict[str, str]], seconds: int) -> None:
    """It is when its replicas last came to be there, and before that when it was made."""
    made = describe(Seen(_deployment()), "").last_updated
    assert describe(Seen(_deployment(conditions=conditions)), "").last_updated == made + seconds
