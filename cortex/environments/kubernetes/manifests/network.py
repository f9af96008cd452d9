"""How an API is reached: Service, Ingress or HTTPRoute, NetworkPolicy, ServiceMonitor."""

from typing import Any

from cortex.environments.kubernetes.settings import Settings
from cortex.spec import APISpec

PORT = 8888
"""Where the workers of a pod listen."""
_LONGEST_ANSWER = 300
"""Seconds that a front waits for an answer: Cortex's own limit for a prediction."""


def networking(spec: APISpec, settings: Settings) -> tuple[dict[str, Any], ...]:
    """Return what leads requests and scrapes to the pods of an API, and lets nothing else in."""
    fronts = () if spec.networking.api_gateway == "none" else (_front(spec, settings),)
    return (_service(spec), *fronts, _policy(spec), _monitor(spec))


def _service(spec: APISpec) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": spec.name},
        "spec": {
            "selector": {"cortex/api": spec.name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}],
        },
    }


def _front(spec: APISpec, settings: Settings) -> dict[str, Any]:
    return _route(spec, settings) if settings.gateway else _ingress(spec, settings)


def _ingress(spec: APISpec, settings: Settings) -> dict[str, Any]:
    """Return an Ingress. That the API sees ``/`` and not its endpoint is asked of ingress-nginx, by its annotations."""
    backend = {"service": {"name": spec.name, "port": {"name": "http"}}}
    rule: dict[str, Any] = {"http": {"paths": [{"path": spec.endpoint, "pathType": "Exact", "backend": backend}]}}
    annotations = {
        "nginx.ingress.kubernetes.io/rewrite-target": "/",
        "nginx.ingress.kubernetes.io/proxy-body-size": str(spec.networking.max_body_bytes),
        "nginx.ingress.kubernetes.io/proxy-read-timeout": str(_LONGEST_ANSWER),
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": spec.name, "annotations": annotations},
        "spec": {
            **({"ingressClassName": settings.ingress_class} if settings.ingress_class else {}),
            "rules": [{"host": settings.host, **rule} if settings.host else rule],
        },
    }


def _route(spec: APISpec, settings: Settings) -> dict[str, Any]:
    namespace, _, name = settings.gateway.rpartition("/")
    rewrite = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}}}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": spec.name},
        "spec": {
            "parentRefs": [{"name": name, **({"namespace": namespace} if namespace else {})}],
            **({"hostnames": [settings.host]} if settings.host else {}),
            "rules": [
                {
                    "matches": [{"path": {"type": "Exact", "value": spec.endpoint}}],
                    "filters": [rewrite],
                    "backendRefs": [{"name": spec.name, "port": 80}],
                    "timeouts": {"request": f"{_LONGEST_ANSWER}s"},
                }
            ],
        },
    }


def _policy(spec: APISpec) -> dict[str, Any]:
    """Return what shuts every port but the API's. What the pods call is their owner's affair."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": spec.name},
        "spec": {
            "podSelector": {"matchLabels": {"cortex/api": spec.name}},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": "http"}]}],
        },
    }


def _monitor(spec: APISpec) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": spec.name},
        "spec": {
            "selector": {"matchLabels": {"cortex/api": spec.name}},
            "endpoints": [{"port": "http", "path": "/metrics", "interval": "10s"}],
        },
    }
