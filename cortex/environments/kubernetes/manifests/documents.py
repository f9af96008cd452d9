"""One API as Kubernetes manifests. Pure: nothing is asked, made or downloaded."""

from typing import Any

from cortex.environments.kubernetes.manifests.files import files
from cortex.environments.kubernetes.manifests.needs import ANNOTATION, needs
from cortex.environments.kubernetes.manifests.network import networking
from cortex.environments.kubernetes.manifests.pod import START_SECONDS, config_files, pod
from cortex.environments.kubernetes.manifests.release import Release
from cortex.environments.kubernetes.manifests.scaling import autoscaler, disruption_budget, scaled
from cortex.spec import APISpec

_KEPT_REPLICA_SETS = 3


def manifests(release: Release) -> tuple[dict[str, Any], ...]:
    """Return the manifests of a release, in the order in which they are to be applied."""
    rows = [*files(release, config_files(release)), _deployment(release)]
    return (*(_labelled(row, release) for row in rows), *surroundings(release))


def surroundings(release: Release) -> tuple[dict[str, Any], ...]:
    """Return what leads requests to the pods of a release, and what chooses their number."""
    rows = [*networking(release.spec, release.settings), disruption_budget(release.spec)]
    if scaled(release.spec):
        rows.append(autoscaler(release.spec, release.settings, release.version))
    return tuple(_labelled(row, release) for row in rows)


def _deployment(release: Release) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": release.name},
        "spec": {
            "replicas": release.replicas,
            "revisionHistoryLimit": _KEPT_REPLICA_SETS,
            "progressDeadlineSeconds": START_SECONDS + 60,
            "selector": {"matchLabels": {"cortex/api": release.name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _strategy(release.spec)},
            "template": pod(release),
        },
    }


def _strategy(spec: APISpec) -> dict[str, int | str]:
    """Return how pods are replaced: as the yaml says.

    Where it says nothing of ``max_surge``, a pod with a device is stopped before its successor starts. The successor
    would wait for the device for ever where no other one is free.
    """
    update = spec.update_strategy
    holds_device = bool(spec.compute.gpu or spec.compute.inf)
    surge = 0 if holds_device and "max_surge" not in update.model_fields_set else update.max_surge
    # both are zero after rounding for one replica: Kubernetes then takes one away
    unavailable = update.max_unavailable
    if surge in (0, "0%") and unavailable in (0, "0%"):
        unavailable = 1
    return {"maxSurge": surge, "maxUnavailable": unavailable}


def _labelled(row: dict[str, Any], release: Release) -> dict[str, Any]:
    """Give an object its namespace, labels, which lead back to the API, and what it needs of the cluster."""
    metadata = {**row["metadata"], "namespace": release.settings.namespace, "labels": release.labels}
    if needed := needs(row, release):
        metadata["annotations"] = {**metadata.get("annotations", {}), ANNOTATION: needed}
    return {**row, "metadata": metadata}
