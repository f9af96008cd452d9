"""What a cluster must have for a manifest to do its work, in words. What is not here works in any cluster."""

from collections.abc import Iterator, Mapping
from typing import Any

from cortex.environments.kubernetes.manifests.release import Release, is_local
from cortex.environments.kubernetes.manifests.scaling import IN_FLIGHT

ANNOTATION = "cortex/needs"


def needs(document: Mapping[str, Any], release: Release) -> str:
    """Return what a document needs beyond Kubernetes itself; empty when that is nothing."""
    by_kind = {
        "Deployment": "; ".join(_of_pods(release)),
        "HorizontalPodAutoscaler": (
            f"the metric pods/{IN_FLIGHT}, from Prometheus and Prometheus Adapter; without it the number of replicas "
            "stays as it is. With the environment's setting prometheus=URL KEDA does this instead"
        ),
        "ScaledObject": f"KEDA, and Prometheus at {release.settings.prometheus}",
        "ServiceMonitor": "the Prometheus Operator",
        "HTTPRoute": f"the Gateway API, and the Gateway {release.settings.gateway}",
        "Ingress": "an Ingress controller; that the API sees / and not its endpoint is asked of ingress-nginx",
        "NetworkPolicy": "a network plugin that keeps to it; others let everything in",
    }
    return by_kind.get(document["kind"], "")


def _of_pods(release: Release) -> Iterator[str]:
    if release.spec.compute.gpu:
        yield "nodes with NVIDIA's device plugin"
    if release.spec.compute.inf:
        yield "nodes with the Neuron device plugin"
    for model in release.models:
        if is_local(model) and not release.settings.registry:
            yield f"{model.path} on every node (or one of the other ways that `cortex deploy` names)"
