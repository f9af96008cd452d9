"""What a cluster says of an API, in the words of `cortex get`. Pure: from the cluster's JSON to values."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cortex.environments.base import API, ProcessStatus
from cortex.errors import UserError
from cortex.spec import APISpec

_UNPULLED = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
_HOPELESS = frozenset(
    {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError"}
)
_OUR_IMAGE = "; build it from the source, as the Dockerfiles in deploy/ say, and push it to the environment's registry"
_RUNS = ("Deployment", "ReplicaSet")
_CRASHES = 2
"""Restarts in a row after which a container that still crashes is not waited for."""

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """The objects of one API at one moment."""

    deployment: Object
    others: Sequence[Object] = ()
    warnings: Sequence[Object] = ()

    @property
    def name(self) -> str:
        return str(self.deployment["metadata"]["name"])

    @property
    def revision(self) -> str:
        """The revision that the cluster was last told to run."""
        return str(_template(self.deployment)["labels"].get("cortex/revision", ""))

    @property
    def pods(self) -> tuple[Object, ...]:
        """The pods of that revision, less those that are being removed."""
        return tuple(
            pod
            for pod in self.others
            if pod["kind"] == "Pod"
            and pod["metadata"]["labels"].get("cortex/revision") == self.revision
            and "deletionTimestamp" not in pod["metadata"]
        )

    @property
    def manifest(self) -> Object:
        """The Deployment as it can be applied again."""
        metadata = self.deployment["metadata"]
        kept = {key: metadata[key] for key in ("name", "namespace", "labels") if key in metadata}
        kind = {key: self.deployment[key] for key in ("apiVersion", "kind")}
        return {**kind, "metadata": kept, "spec": self.deployment["spec"]}

    @property
    def files(self) -> set[str]:
        """``KIND/NAME`` of what has the files of every revision that the cluster keeps: `kubectl rollout undo` asks
        for them.
        """
        templates = (row["spec"]["template"] for row in (self.deployment, *self.others) if row["kind"] in _RUNS)
        volumes = [volume for each in templates for volume in each["spec"].get("volumes", ())]
        maps = {f"ConfigMap/{volume['configMap']['name']}" for volume in volumes if "configMap" in volume}
        return maps | {f"Secret/{volume['secret']['secretName']}" for volume in volumes if "secret" in volume}

    @property
    def complete(self) -> bool:
        """Tell whether every replica runs that revision, and answers."""
        status, wanted = self.deployment.get("status", {}), self.deployment["spec"].get("replicas", 1)
        current = status.get("observedGeneration", 0) >= self.deployment["metadata"].get("generation", 0)
        counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
        return current and all(count == wanted for count in counts)

    def waiting_for(self) -> str:
        """Say in one line what is not ready yet, and why; empty when there is nothing to say."""
        found = dict.fromkeys([*self._refused(), *(text for pod in self.pods for text in self._pod_waits(pod))])
        status, wanted = self.deployment.get("status", {}), self.deployment["spec"].get("replicas", 1)
        ready = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0), wanted)
        return f"{ready} of {wanted} replicas ready" + (f": {'; '.join(found)}" if found else "")

    def failure(self) -> str:
        """Return why the revision will not come to run; empty while it still may."""
        for text in self._refused():
            return text
        for pod in self.pods:
            for row in _containers(pod):
                if text := _hopeless(row):
                    return text
        for condition in self.deployment.get("status", {}).get("conditions", []):
            if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
                return f"it took too long ({self.waiting_for()})"
        return ""

    def crashed(self) -> tuple[str, str] | None:
        """Return pod and container of one that crashes, whose last words may tell why."""
        for pod in self.pods:
            for row in _containers(pod):
                if row.get("restartCount", 0) and "waiting" in row.get("state", {}):
                    return pod["metadata"]["name"], row["name"]
        return None

    def _refused(self) -> Iterator[str]:
        """Yield why the cluster would not even make pods: a quota, a policy."""
        for row in self.others:
            if row["kind"] != "ReplicaSet" or _template(row)["labels"].get("cortex/revision") != self.revision:
                continue
            for condition in row.get("status", {}).get("conditions", []):
                if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                    yield f"pods are refused: {condition.get('message', '')}"

    def _pod_waits(self, pod: Object) -> Iterator[str]:
        for condition in pod.get("status", {}).get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield f"unschedulable: {condition.get('message', '')}"
                return
        waits = [text for row in _containers(pod) if (text := _waits(row))]
        events = [row for row in self.warnings if row["involvedObject"].get("name") == pod["metadata"]["name"]]
        if events and not _containers_started(pod):
            yield f"{events[-1].get('reason', '')}: {events[-1].get('message', '')}"
        yield from waits


def spec_of(seen: Seen) -> APISpec:
    """Return the spec that the cluster was last told to run. UserError when somebody changed what says that."""
    try:
        return APISpec.model_validate_json(_template(seen.deployment)["annotations"]["cortex/spec"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{seen.name}: its Deployment does not tell its spec any more; deploy it again") from error


def describe(seen: Seen, endpoint: str) -> API:
    """Return an API as `cortex get` shows it."""
    template = _template(seen.deployment)["annotations"]
    failure = "" if seen.complete else seen.failure()
    return API(
        spec=spec_of(seen),
        api_id=seen.revision,
        status=_status(seen, failure),
        endpoint=endpoint,
        last_updated=_when(seen),
        reason="" if seen.complete else failure or seen.waiting_for(),
        notices=(*json.loads(template.get("cortex/notices", "[]")), *_unscaled(seen.others)),
        processes=tuple(_process(pod, row) for pod in seen.pods for row in _containers(pod)),
    )


def _status(seen: Seen, failure: str) -> str:
    if seen.complete:
        return "live"
    if not failure:
        return "updating"
    killed = any(_terminated(row).get("reason") == "OOMKilled" for pod in seen.pods for row in _containers(pod))
    return "error (out of memory)" if killed else "error"


def _unscaled(objects: Iterable[Object]) -> Iterator[str]:
    """Yield why the autoscaler does nothing."""
    for row in objects:
        for condition in row.get("status", {}).get("conditions", []) if row["kind"].endswith("Autoscaler") else []:
            if condition["type"] == "ScalingActive" and condition["status"] == "False":
                yield f"the number of replicas stays as it is: {condition.get('message', '')}"


def _hopeless(row: Object) -> str:
    """Return why a container will not start, however long one waits."""
    reason = _waiting(row).get("reason", "")
    if reason in _HOPELESS or (reason == "CrashLoopBackOff" and row.get("restartCount", 0) >= _CRASHES):
        return _waits(row)
    return ""


def _waits(row: Object) -> str:
    """Say why a container does not run."""
    waiting, name = _waiting(row), row["name"]
    reason, message = waiting.get("reason", ""), " ".join(waiting.get("message", "").split())
    if reason in _UNPULLED:
        image = str(row.get("image", ""))
        ours = image.rpartition("/")[2].startswith(("cortex-api:", "cortex-model-server"))
        return f"{name}: the image {image} cannot be pulled: {message or reason}{_OUR_IMAGE if ours else ''}"
    if reason == "CrashLoopBackOff":
        last = _terminated(row)
        how = "out of memory" if last.get("reason") == "OOMKilled" else f"exit code {last.get('exitCode', '?')}"
        return f"{name} crashes ({how}, {row.get('restartCount', 0)} restarts)"
    if reason and reason not in ("ContainerCreating", "PodInitializing"):
        return f"{name}: {reason}{f': {message}' if message else ''}"
    if "running" in row.get("state", {}) and not row.get("ready", False):
        return f"{name} starts"
    return ""


def _process(pod: Object, row: Object) -> ProcessStatus:
    state = "ready" if row.get("ready") else "starting"
    if _waiting(row).get("reason") == "CrashLoopBackOff":
        state = "waiting to restart"
    return ProcessStatus(f"{pod['metadata']['name']}/{row['name']}", None, state, row.get("restartCount", 0))


def _containers(pod: Object) -> list[Object]:
    """Return the state of every container, less those that have done their work."""
    status = pod.get("status", {})
    rows = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return [row for row in rows if row.get("state", {}).get("terminated", {}).get("exitCode") != 0]


def _containers_started(pod: Object) -> bool:
    return any("running" in row.get("state", {}) for row in _containers(pod))


def _waiting(row: Object) -> Mapping[str, Any]:
    waiting: Mapping[str, Any] = row.get("state", {}).get("waiting", {})
    return waiting


def _terminated(row: Object) -> Mapping[str, Any]:
    ended: Mapping[str, Any] = row.get("lastState", {}).get("terminated", {})
    return ended


def _template(row: Object) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = row["spec"]["template"]["metadata"]
    return metadata


def _when(seen: Seen) -> float:
    """Return when the API last came to be available."""
    conditions = seen.deployment.get("status", {}).get("conditions", [])
    times = [row["lastUpdateTime"] for row in conditions if row["type"] == "Progressing" and "lastUpdateTime" in row]
    stamp = (times or [seen.deployment["metadata"].get("creationTimestamp", "1970-01-01T00:00:00Z")])[0]
    return datetime.fromisoformat(stamp).timestamp()
