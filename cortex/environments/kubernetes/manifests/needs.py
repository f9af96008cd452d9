"""What a cluster must have for a manifest to do its work, in words. What is not here works in any cluster."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cortex.environments.kubernetes.manifests.release import Release, is_local
from cortex.environments.kubernetes.manifests.scaling import IN_FLIGHT

ANNOTATION = "cortex/needs"


def needs(document: Mapping[str, Any], release: Release) -> str:
    """Return what a document needs beyond Kubernetes itself; empty when that is nothing."""
    say = _KINDS.get(document["kind"])
    return "; ".join(say(release)) if say else ""


def _deployment(release: Release) -> Iterator[str]:
    if release.spec.compute.gpu:
        yield "nodes with NVIDIA's device plugin"
    if release.spec.compute.inf:
        yield "nodes with the Neuron device plugin"
    for model in release.models:
        if is_local(model) and not release.settings.registry:
            yield f"{model.path} on every node (or one of the other ways that `cortex deploy` names)"


def _autoscaler(release: Release) -> Iterator[str]:
    yield (
        f"the metric pods/{IN_FLIGHT}, from Prometheus and Prometheus Adapter; without it the number of replicas stays "
        "as it is. With the environment's setting prometheus=URL KEDA does this instead"
    )


def _scaled_object(release: Release) -> Iterator[str]:
    yield f"KEDA, and Prometheus at {release.settings.prometheus}"


def _monitor(release: Release) -> Iterator[str]:
    yield "the Prometheus Operator"


def _route(release: Release) -> Iterator[str]:
    yield f"the Gateway API, and the Gateway {release.settings.gateway}"


def _ingress(release: Release) -> Iterator[str]:
    yield "an Ingress controller; that the API sees / and not its endpoint is asked of ingress-nginx"


def _policy(release: Release) -> Iterator[str]:
    yield "a network plugin that keeps to it; others let everything in"


_KINDS: Mapping[str, Callable[[Release], Iterator[str]]] = {
    "Deployment": _deployment,
    "HorizontalPodAutoscaler": _autoscaler,
    "ScaledObject": _scaled_object,
    "ServiceMonitor": _monitor,
    "HTTPRoute": _route,
    "Ingress": _ingress,
    "NetworkPolicy": _policy,
}
