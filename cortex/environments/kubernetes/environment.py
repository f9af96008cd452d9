"""Run APIs in a Kubernetes cluster, through kubectl and the user's own credentials. The cluster does the scheduling.

All state is in the cluster: an API is what carries the label ``cortex/api``, and its spec is in its pods' template.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cortex.environments.base import API, Deployed, Progress, deploy_each, located
from cortex.environments.kubernetes import image as kubernetes_image
from cortex.environments.kubernetes.kubectl import MANAGER, Kubectl
from cortex.environments.kubernetes.manifests.documents import manifests, surroundings
from cortex.environments.kubernetes.manifests.release import Release
from cortex.environments.kubernetes.release import check_reachable, release
from cortex.environments.kubernetes.settings import Settings
from cortex.environments.kubernetes.status import Seen, describe, spec_of
from cortex.errors import UserError
from cortex.spec import APISpec
from cortex.spec.config import Config

POLL_SECONDS = 1.0
_OURS = f"app.kubernetes.io/managed-by={MANAGER}"
_SEEN = "deployments,replicasets,pods,ingresses,horizontalpodautoscalers"
_MADE = (
    "deployments,services,configmaps,secrets,ingresses,networkpolicies,poddisruptionbudgets,horizontalpodautoscalers"
)
_OPTIONAL = {
    "monitoring.coreos.com/v1": "servicemonitors.monitoring.coreos.com",
    "keda.sh/v1alpha1": "scaledobjects.keda.sh",
    "gateway.networking.k8s.io/v1": "httproutes.gateway.networking.k8s.io",
}
"""What a cluster may lack, by ``GROUP/VERSION``."""
_LAST_WORDS = 5


class Failed(UserError):
    """Say why a revision will not come to run."""


class KubernetesEnvironment:
    """Deploy to one namespace of one cluster."""

    provider = "kubernetes"

    def __init__(self, home: Path, settings: Mapping[str, str], name: str = "kubernetes") -> None:
        self.name = name
        self._home = home
        self._settings = Settings.of(settings)
        self._kubectl = Kubectl(self._settings.context, self._settings.namespace)

    def choose_front(self, choice: str) -> None:
        """See `Environment.choose_front`: that is the cluster's own."""
        raise UserError(
            f"--front {choice}: a cluster has an Ingress or Gateway of its own in front; choose it with `cortex env "
            f"configure {self.name} --provider kubernetes --set ingress_class=CLASS` (or gateway=NAMESPACE/NAME)"
        )

    def deploy(self, config: Config, *, force: bool, progress: Progress) -> Iterator[Deployed]:
        """See `Environment.deploy`. One API that fails does not keep the others from being deployed."""
        yield from deploy_each(config, partial(self._deploy, config, force=force, progress=progress), self._find)

    def render(self, config: Config, front: str | None = None) -> tuple[Mapping[str, Any], ...]:
        """See `Environment.render`. Models of this machine are shown as on a cluster whose nodes have them.

        No cluster is asked what it has: a kind that it may lack is there only when a setting asks for it, and each
        document says in ``cortex/needs`` what the cluster must have.
        """
        if front is not None:
            self.choose_front(front)  # which only refuses
        documents: list[dict[str, Any]] = []
        for spec in config.apis:
            with located(config, spec):
                documents += manifests(release(config, spec, self._settings, home=self._home))
        return tuple(row for row in documents if row["kind"] != "ServiceMonitor" or self._settings.monitored)

    def apis(self) -> tuple[API, ...]:
        """See `Environment.apis`."""
        objects = self._kubectl.get(_SEEN, _OURS)
        names = sorted(row["metadata"]["name"] for row in objects if row["kind"] == "Deployment")
        return tuple(self._describe(_seen(name, objects)) for name in names)

    def api(self, name: str) -> API:
        """See `Environment.api`."""
        return self._describe(self._see(name))

    def logs(self, name: str, *, follow: bool) -> Iterator[str]:
        """See `Environment.logs`. Each line begins with its pod and container."""
        self._see(name)
        command = ["logs", f"--selector=cortex/api={name}", "--all-containers", "--prefix", "--tail=-1"]
        command += ["--max-log-requests=1000", "--ignore-errors", "--timestamps"]
        if follow:
            yield from self._followed(name, command)
            return
        stamped = [_stamped(line) for line in self._kubectl.lines(*command)]
        yield from (line for _, line in sorted(stamped, key=lambda row: row[0]))

    def _followed(self, name: str, command: Sequence[str]) -> Iterator[str]:
        """Yield lines until an API is deleted: those of its pods, and when these have ended, of the pods after them."""
        told: dict[str, str] = {}
        while self._kubectl.find("deployment", name):
            before = dict(told)
            for line in self._kubectl.lines(*command, "--follow"):
                stamp, text = _stamped(line)
                container = text.partition("]")[0]
                if stamp > before.get(container, ""):
                    told[container] = stamp
                    yield text
            time.sleep(POLL_SECONDS)

    def refresh(self, name: str, *, force: bool, progress: Progress) -> Deployed:
        """See `Environment.refresh`."""
        before = self._see(name)
        if not before.complete and not force:
            raise UserError(f"{name} is updating (override with --force)")
        self._kubectl.run("rollout", "restart", f"deployment/{name}")
        self._watch(name, progress)
        api = self.api(name)
        return Deployed(name, f"updating {name} ({api.spec.kind})", api=api)

    def delete(self, name: str, *, keep_cache: bool) -> str:
        """See `Environment.delete`."""
        self._see(name)
        self._kubectl.delete(self._made(name))
        return f"deleting {name}"

    def _deploy(self, config: Config, spec: APISpec, *, force: bool, progress: Progress) -> Deployed:
        before = self._before(spec.name)
        title = f"{spec.name} ({spec.kind})"
        if before and not before.complete and not before.failure() and not force:
            raise UserError(f"{spec.name} is updating (override with --force)")
        made = release(config, spec, self._settings, home=self._home, version=self._kubectl.version)
        check_reachable(spec, made)
        if before and before.complete and before.revision == made.revision and not force:
            return Deployed(spec.name, f"{title} is up to date", api=self._describe(before))
        if before:
            made = dataclasses.replace(made, replicas=_kept_replicas(before, spec))
        kubernetes_image.provide(made, config, self._home, progress)
        documents = manifests(made)
        progress(f"applying {len(documents)} objects to the namespace {self._settings.namespace} ...")
        self._kubectl.apply([row for row in documents if self._can_have(row, progress)])
        if before:
            self._prune(made, documents)  # before the wait, which may be interrupted: what is left then would stay
        self._come_live(made, before, progress)
        return Deployed(spec.name, f"{'updating' if before else 'creating'} {title}", api=self._find(spec.name))

    def _come_live(self, made: Release, before: Seen | None, progress: Progress) -> None:
        """Wait for a release; when it fails, and not only kubectl, have its predecessor back."""
        try:
            self._watch(made.name, progress)
        except Failed as error:
            if before is None or not before.deployment.get("status", {}).get("availableReplicas"):
                raise
            self._put_back(before, made, progress)
            raise UserError(f"{error}; the revision before it goes on") from error

    def _put_back(self, before: Seen, made: Release, progress: Progress) -> None:
        """Have what was before a release.

        Not by `kubectl rollout undo`: what that sets is no more ours to remove, and it goes back by one revision also
        where the release is the one that ran before.
        """
        around = surroundings(dataclasses.replace(made, spec=spec_of(before)))
        documents = [before.manifest, *(row for row in around if self._can_have(row, progress))]
        self._kubectl.apply(documents)
        self._prune(made, documents)

    def _watch(self, name: str, progress: Progress) -> None:
        """Wait until every replica runs the newest revision, saying what is awaited. Failed when it will not be."""
        while not (seen := self._see(name, warnings=True)).complete:
            if failure := seen.failure():
                raise Failed(f"{name}: {failure}{self._last_words(seen)}")
            progress(f"{name}: {seen.waiting_for()}")
            time.sleep(POLL_SECONDS)

    def _last_words(self, seen: Seen) -> str:
        """Return what a container that crashes said last."""
        crashed = seen.crashed()
        if crashed is None:
            return ""
        with contextlib.suppress(UserError):
            pod, container = crashed
            said = self._kubectl.run("logs", pod, f"--container={container}", "--previous", f"--tail={_LAST_WORDS}")
            return f"\n{said.rstrip()}" if said.strip() else ""
        return ""

    def _before(self, name: str) -> Seen | None:
        """Return what runs under a name; UserError when that was not made by us."""
        deployment = self._kubectl.find("deployment", name)
        if deployment is None:
            return None
        if deployment["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") != MANAGER:
            raise UserError(
                f"the namespace {self._settings.namespace} has a Deployment {name} that cortex did not make; "
                "give the API another name, or the environment another namespace"
            )
        return self._see(name)

    def _see(self, name: str, *, warnings: bool = False) -> Seen:
        objects = self._kubectl.get(_SEEN, f"{_OURS},cortex/api={name}")
        seen = _seen(name, objects)
        return dataclasses.replace(seen, warnings=self._warnings()) if warnings and not seen.complete else seen

    def _warnings(self) -> Sequence[Mapping[str, Any]]:
        with contextlib.suppress(UserError):  # events explain; who may not read them does without
            return self._kubectl.warnings()
        return ()

    def _find(self, name: str) -> API | None:
        with contextlib.suppress(UserError):
            return self.api(name)
        return None

    def _describe(self, seen: Seen) -> API:
        return describe(seen, _endpoint(seen, self._settings))

    def _can_have(self, document: Mapping[str, Any], progress: Progress) -> bool:
        """Tell whether the cluster knows what a document is of; say so when it does not."""
        group = document["apiVersion"]
        if group not in _OPTIONAL or group in self._kubectl.groups:
            return True
        progress(f"no {document['kind']} is made: the cluster has no {group}")
        return False

    def _made(self, name: str) -> list[str]:
        """Return ``KIND/NAME`` of everything of an API that we made, and not another controller for us."""
        optional = [kind for group, kind in _OPTIONAL.items() if group in self._kubectl.groups]
        objects = self._kubectl.get(",".join([_MADE, *optional]), f"{_OURS},cortex/api={name}")
        return [_full_name(row) for row in objects if not row["metadata"].get("ownerReferences")]

    def _prune(self, made: Release, documents: Iterable[Mapping[str, Any]]) -> None:
        """Remove what earlier revisions had and this one has not, less the files of those that are kept."""
        keep = {_full_name(document) for document in documents} | self._see(made.name).files
        self._kubectl.delete([name for name in self._made(made.name) if name not in keep])


def _seen(name: str, objects: Sequence[Mapping[str, Any]]) -> Seen:
    """Return what belongs to one API. UserError ``NAME is not deployed`` when there is nothing."""
    mine = [row for row in objects if row["metadata"].get("labels", {}).get("cortex/api") == name]
    for row in mine:
        if row["kind"] == "Deployment":
            return Seen(row, tuple(other for other in mine if other is not row))
    raise UserError(f"{name} is not deployed")


def _full_name(document: Mapping[str, Any]) -> str:
    """Return ``KIND/NAME``."""
    return f"{document['kind']}/{document['metadata']['name']}"


def _kept_replicas(before: Seen, spec: APISpec) -> int:
    """Return as many replicas as there are, so that an update does not undo what the autoscaler did."""
    rules, now = spec.autoscaling, int(before.deployment["spec"].get("replicas", 1))
    return max(rules.min_replicas, min(rules.max_replicas, now))


def _endpoint(seen: Seen, settings: Settings) -> str:
    """Return where an API is reached: from outside where that is known, else inside the cluster."""
    for row in seen.others:
        if row["kind"] == "Ingress":
            rule = row["spec"]["rules"][0]
            balancers = row.get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
            host = rule.get("host") or balancers[0].get("hostname") or balancers[0].get("ip")
            if host:
                return f"http://{host}{rule['http']['paths'][0]['path']}"
    spec = spec_of(seen)
    if settings.gateway and settings.host and spec.networking.api_gateway == "public":
        return f"http://{settings.host}{spec.endpoint}"
    return f"http://{seen.name}.{settings.namespace}.svc"


def _stamped(line: str) -> tuple[str, str]:
    """Split ``[pod/NAME/CONTAINER] TIMESTAMP text`` into the timestamp and the line without it."""
    prefix, _, rest = line.partition("] ")
    stamp, _, text = rest.partition(" ")
    return stamp, f"{prefix}] {text}"
