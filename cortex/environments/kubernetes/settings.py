"""What ``cortex env configure`` knows of a cluster: the string settings of an environment, checked."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

import cortex
from cortex.errors import UserError

_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "a name of lower case letters, digits and dashes"
_GATEWAY = r"([a-z0-9][-a-z0-9]*/)?[a-z0-9][-a-z0-9]*", "NAME or NAMESPACE/NAME, in lower case"
_URL = r"https?://[^\s]+", "a URL like http://prometheus.monitoring:9090"
_REGISTRY = r"[A-Za-z0-9][A-Za-z0-9._:/-]*", "a registry like registry.example.com/team"
_HOST = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", "a host like api.example.com"


def _setting(pattern: str = "(?s).*", words: str = "", default: str = "") -> str:
    """Declare a setting: what it must match, and what a person is told that it must be."""
    return dataclasses.field(default=default, metadata={"pattern": re.compile(pattern), "words": words})


@dataclass(frozen=True)
class Settings:
    """One cluster. Empty text is "not set"."""

    context: str = _setting()
    """Of the kubeconfig; its current one when not set."""
    namespace: str = _setting(*_NAME, default="default")
    registry: str = _setting(*_REGISTRY)
    """Before the names of images, and where deploy pushes the images that it builds."""
    local_models: str = _setting("node", "node, or left out")
    """``node``: models that the yaml gives as local paths are on the disk of every node, under the same path."""
    gateway: str = _setting(*_GATEWAY)
    """``NAMESPACE/NAME`` of a Gateway: endpoints are HTTPRoutes of it, and no Ingress is made."""
    ingress_class: str = _setting(*_NAME)
    host: str = _setting(*_HOST)
    """The name under which the endpoints are reached; any when not set."""
    prometheus: str = _setting(*_URL)
    """URL of the Prometheus that KEDA asks: replicas are chosen by a ScaledObject. Without it, by an autoscaler."""
    service_monitor: str = _setting("true|false", "true or false")
    """``true``: the cluster has the Prometheus Operator, so that `render` shows a ServiceMonitor. `deploy` looks."""
    service_account: str = _setting(*_NAME)
    """Of the pods, which is how a cloud gives them the right to read models."""
    model_secret: str = _setting(*_NAME)
    """A Secret whose keys are environment variables of the container that downloads models."""
    pull_secret: str = _setting(*_NAME)

    @property
    def monitored(self) -> bool:
        return self.service_monitor == "true"

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> "Settings":
        """Check the settings of an environment. UserError for one that there is not, or that cannot be."""
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name, value in settings.items():
            if name not in known:
                raise UserError(f"a kubernetes environment has no setting {name!r} (there is: {', '.join(known)})")
            rule = known[name].metadata
            if value and not rule["pattern"].fullmatch(value):
                raise UserError(f"{name}: {value!r} must be {rule['words']}")
        return cls(**{name: value for name, value in settings.items() if value})

    def image(self, name: str) -> str:
        """Return the full name of an image in the registry."""
        return f"{self.registry.rstrip('/')}/{name}" if self.registry else name

    def own_image(self, name: str) -> str:
        """Return the full name of one of our images."""
        return self.image(f"cortex-{name}:{cortex.__version__}")
