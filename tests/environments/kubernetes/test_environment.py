"""Deploying to a cluster, by a kubectl that records what it is told and answers as a cluster would."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from cortex.environments.base import Deployed
from cortex.environments.kubernetes import environment as kubernetes
from cortex.environments.kubernetes.environment import Failed, KubernetesEnvironment
from cortex.environments.kubernetes.kubectl import explain
from cortex.errors import UserError
from cortex.spec.config import read

STAND_IN = Path(__file__).with_name("fake_kubectl.py")
YAML = """
- name: api
  predictor: {{type: tensorflow, path: predictor.py, model_path: "{model}"}}
  compute: {{cpu: {cpu}}}
  autoscaling: {{max_replicas: 5}}
"""
Program = Callable[[str, str], None]


class Cluster:
    """A project, a cluster, and what was said to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.lines: list[str] = []

    def environment(self, **settings: str) -> KubernetesEnvironment:
        return KubernetesEnvironment(self.root / "home", settings)

    def deploy(self, model: str = "s3://b/m", cpu: int = 1, *, force: bool = False, **settings: str) -> Deployed:
        config = self.root / "project/cortex.yaml"
        config.write_text(YAML.format(model=model, cpu=cpu))
        (deployed,) = self.environment(**settings).deploy(read(config), force=force, progress=self.lines.append)
        return deployed

    def fare(self, fate: str) -> None:
        (self.state / "looked").unlink(missing_ok=True)
        (self.state / "fate").write_text(fate)

    def said(self, first: str) -> list[list[str]]:
        """Return the command lines of one command."""
        lines = [json.loads(line) for line in (self.state / "said").read_text().splitlines()]
        return [line for line in lines if first in line]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the objects of the cluster by ``KIND/NAME``; of their annotations only those that count."""
        rows = [json.loads(line) for line in (self.state / "objects").read_text().splitlines()]
        for row in rows:
            row["metadata"].get("annotations", {}).pop("cortex/needs", None)
        return {f"{row['kind']}/{row['metadata']['name']}": row for row in rows}

    def objects(self) -> set[str]:
        return {*self.rows()}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Put a program of our own first on the PATH, which has nothing else but the shell."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    def put(name: str, text: str) -> None:
        file = tmp_path / "bin" / name
        file.write_text(text)
        file.chmod(0o755)

    return put


@pytest.fixture
def cluster(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    program("kubectl", f'#!/bin/sh\nexec "{sys.executable}" -I "{STAND_IN}" "$@"\n')
    for name in ("project", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "project/predictor.py").write_text("class TensorFlowPredictor: ...\n")
    monkeypatch.setenv("KUBECTL_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(kubernetes, "POLL_SECONDS", 0)
    return Cluster(tmp_path)


def test_an_api_is_created_then_up_to_date_then_updated(cluster: Cluster) -> None:
    created = cluster.deploy(context="prod", namespace="models")
    assert (created.message, created.error) == ("creating api (RealtimeAPI)", "")
    assert created.api is not None
    assert (created.api.status, created.api.endpoint) == ("live", "http://api.models.svc")
    assert [process.name for process in created.api.processes] == ["api-abc/api", "api-abc/model-server-0"]
    (apply,) = cluster.said("apply")
    assert apply[:2] == ["--context=prod", "--namespace=models"]
    assert apply[3:] == ["apply", "--server-side", "--field-manager=cortex", "--force-conflicts", "-f", "-"]
    assert cluster.deploy(context="prod", namespace="models").message == "api (RealtimeAPI) is up to date"
    assert cluster.deploy(cpu=2, context="prod", namespace="models").message == "updating api (RealtimeAPI)"
    assert len(cluster.said("apply")) == 2
    assert cluster.deploy(cpu=2, force=True, context="prod", namespace="models").message == "updating api (RealtimeAPI)"


def test_what_is_awaited_is_said_with_its_reason(cluster: Cluster) -> None:
    cluster.fare("unschedulable mount slow success")
    assert cluster.deploy().error == ""
    awaited = [line for line in cluster.lines if "replicas ready" in line]
    assert awaited == [
        "api: 0 of 1 replicas ready: unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        "api: 0 of 1 replicas ready: FailedMount: hostPath type check failed",
        "api: 0 of 1 replicas ready: api starts",
    ]


@pytest.mark.parametrize(
    ("fate", "status", "said"),
    [
        ("image", "error", "api: api: the image cortex-api:"),
        ("image", "error", 'cortex-api"; build it from the source, as the Dockerfiles in deploy/ say, and push it'),
        ("crash", "error", "api: api crashes (exit code 3, 2 restarts)\nTraceback (most recent call last):\nNameError"),
        ("memory", "error (out of memory)", "api: api crashes (out of memory, 4 restarts)"),
        ("quota", "error", 'pods are refused: pods "x-" is forbidden: exceeded quota: team'),
        ("late", "error", "it took too long (0 of 1 replicas ready)"),
    ],
)
def test_what_cannot_come_live_fails_with_the_reason(cluster: Cluster, fate: str, status: str, said: str) -> None:
    cluster.fare(fate)
    deployed = cluster.deploy()
    assert said in deployed.error
    assert deployed.api is not None
    assert deployed.api.status == status
    assert cluster.said("undo") == []


def test_a_revision_that_fails_gives_way_to_the_one_before_it(cluster: Cluster) -> None:
    """With its files, its endpoint, and nothing of the one that failed but what its replica set names."""
    cluster.deploy()
    before = cluster.rows()
    (cluster.state / "lived").touch()
    cluster.fare("success crash")
    config = cluster.root / "project/cortex.yaml"
    config.write_text(YAML.format(model="s3://b/m", cpu=2).replace("autoscaling", "networking: {endpoint: /x}\n  #"))
    (deployed,) = cluster.environment().deploy(read(config), force=False, progress=cluster.lines.append)
    assert deployed.error.endswith("is not defined; the revision before it goes on")
    after = cluster.rows()
    assert {name: after[name] for name in before} == before
    assert {name.partition("-")[0] for name in after.keys() - before.keys()} == {"ConfigMap/api"}
    assert cluster.said("undo") == [], "what that sets is not removed by server-side apply any more"


def test_an_update_that_runs_is_left_alone_unless_forced(cluster: Cluster) -> None:
    cluster.deploy()
    cluster.fare("slow")
    assert cluster.deploy(cpu=2).error == "api is updating (override with --force)"
    cluster.fare("slow success")
    assert cluster.deploy(cpu=2, force=True).error == ""


def test_what_a_yaml_no_longer_has_is_removed(cluster: Cluster) -> None:
    """An autoscaler when there is nothing left to choose, and the files of revisions that cannot be gone back to."""
    cluster.deploy()
    before = cluster.objects()
    config = cluster.root / "project/cortex.yaml"
    for cpu in range(1, 6):
        config.write_text(YAML.format(model="s3://b/m", cpu=cpu).replace("max_replicas: 5", "max_replicas: 1"))
        list(cluster.environment().deploy(read(config), force=False, progress=cluster.lines.append))
        assert before <= cluster.objects() | {"HorizontalPodAutoscaler/api"} or cpu > 3
    assert "HorizontalPodAutoscaler/api" in before - cluster.objects()
    assert len([name for name in cluster.objects() if name.startswith("ConfigMap/api-config-")]) == 4


@pytest.mark.parametrize("ended", [KeyboardInterrupt, UserError, Failed])
def test_an_api_that_is_no_longer_public_is_not_left_so(ended: type[BaseException], cluster: Cluster) -> None:
    """When the command is interrupted, or its way to the cluster, that goes on with the update; when the update fails,
    all is as before."""
    cluster.deploy()
    config = cluster.root / "project/cortex.yaml"
    config.write_text(YAML.format(model="s3://b/m", cpu=1) + "  networking: {api_gateway: none}\n")
    (cluster.state / "lived").touch()
    with pytest.MonkeyPatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(KubernetesEnvironment, "_watch", _raising(ended))
        list(cluster.environment().deploy(read(config), force=False, progress=cluster.lines.append))
    assert ("Ingress/api" in cluster.objects()) == (ended is Failed)


def _raising(error: type[BaseException]) -> Callable[..., None]:
    def ended(*_: object) -> None:
        raise error

    return ended


def test_an_update_keeps_as_many_replicas_as_there_are(cluster: Cluster) -> None:
    cluster.deploy()
    rows = [json.loads(line) for line in (cluster.state / "objects").read_text().splitlines()]
    for row in rows:
        if row["kind"] == "Deployment":
            row["spec"]["replicas"] = 4
    (cluster.state / "objects").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cluster.deploy(cpu=2)
    rows = [json.loads(line) for line in (cluster.state / "objects").read_text().splitlines()]
    (deployment,) = [row for row in rows if row["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 4


def test_kinds_that_the_cluster_does_not_know_are_left_out(cluster: Cluster) -> None:
    cluster.deploy()
    assert "ServiceMonitor/api" not in cluster.objects()
    assert "no ServiceMonitor is made: the cluster has no monitoring.coreos.com/v1" in cluster.lines
    (cluster.state / "monitoring").touch()
    cluster.deploy(cpu=2)
    assert "ServiceMonitor/api" in cluster.objects()


def test_a_deployment_of_others_is_not_taken_over(cluster: Cluster) -> None:
    row = {"kind": "Deployment", "metadata": {"name": "api", "labels": {}}, "spec": {"replicas": 1}}
    (cluster.state / "objects").write_text(json.dumps(row) + "\n")
    assert "has a Deployment api that cortex did not make" in cluster.deploy().error


def test_get_logs_refresh_delete(cluster: Cluster) -> None:
    environment = cluster.environment()
    assert environment.apis() == ()
    cluster.deploy()
    (api,) = environment.apis()
    assert (api, api.spec.predictor.models[0].path) == (environment.api("api"), "s3://b/m")
    assert list(environment.logs("api", follow=False)) == [
        "[pod/api-xyz/api] serving",
        "[pod/api-abc/api] 200 OK POST /",
    ]
    assert next(iter(environment.logs("api", follow=True))) == "[pod/api-abc/api] 200 OK POST /"
    assert (
        environment.refresh("api", force=False, progress=cluster.lines.append).message == "updating api (RealtimeAPI)"
    )
    assert cluster.said("restart")[0][-3:] == ["rollout", "restart", "deployment/api"]
    assert environment.delete("api", keep_cache=False) == "deleting api"
    assert cluster.objects() == set()
    with pytest.raises(UserError, match=r"^api is not deployed$"):
        environment.api("api")


def test_a_kubectl_that_complains_at_length_holds_up_no_log(cluster: Cluster) -> None:
    cluster.deploy()
    (cluster.state / "fate").write_text("loud")
    assert len(list(islice(cluster.environment().logs("api", follow=True), 2))) == 2


def test_kubectl_is_not_to_ask_anything(cluster: Cluster, program: Program) -> None:
    """Neither a person at the terminal, nor whatever else feeds a script that reads logs."""
    program("kubectl", "#!/bin/sh\nexec cat\n")
    script = "from cortex.environments.kubernetes.kubectl import Kubectl; print(*Kubectl('', 'n').lines('logs'))"
    done = subprocess.run([sys.executable, "-c", script], input="a line", capture_output=True, check=True, text=True)
    assert done.stdout == "\n"


def test_logs_are_followed_over_updates(cluster: Cluster) -> None:
    """kubectl ends with the pods that it began with; their successors are read on, and nothing is told twice."""
    cluster.deploy()
    lines = cluster.environment().logs("api", follow=True)
    assert list(islice(lines, 2)) == ["[pod/api-abc/api] 200 OK POST /", "[pod/api-xyz/api] serving"]
    (cluster.state / "log").write_text("[pod/api-new/api] 2026-01-01T00:00:03Z serving, too")
    assert next(lines) == "[pod/api-new/api] serving, too"
    cluster.environment().delete("api", keep_cache=False)
    assert list(lines) == []


@pytest.mark.parametrize(
    ("fate", "said"),
    [
        ("forbidden", "you (ann) may not get deployments in this namespace"),
        ("context", 'context "nowhere" does not exist; `kubectl config get-contexts` shows those there are'),
        ("none", "kubectl has no cluster to talk to"),
        ("down", "the cluster does not answer: The connection to the server 10.0.0.1:6443 was refused"),
        ("login", "the cluster does not know you"),
        ("namespace", 'namespaces "models" not found; make it with `kubectl create namespace`'),
    ],
)
def test_kubectl_s_complaints_become_plain_words(cluster: Cluster, fate: str, said: str) -> None:
    cluster.fare(fate)
    error = cluster.deploy().error
    assert said in error
    assert "\n" not in error


def test_what_kubectl_says_otherwise_is_passed_on() -> None:
    assert explain("error: something\nnew\n") == "kubectl: something new"
    assert explain("E1121 10:00:00.1 1 memcache.go:265] no\nerror: no\nerror: no\n") == "kubectl: no"
    assert explain("") == "kubectl failed and did not say why"


def test_a_missing_kubectl_is_one_sentence(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cluster.root))
    assert cluster.deploy().error.startswith("kubectl is not on the PATH; install it: https://kubernetes.io/")


def test_a_model_of_this_machine_is_refused_before_anything_is_done(cluster: Cluster) -> None:
    error = cluster.deploy(model="models/m").error
    assert error.startswith(f"{cluster.root}/project/cortex.yaml:3: api: predictor.model_path: {cluster.root}/project/")
    for way in ("s3://", "pvc://CLAIM/PATH", "--registry R", "local_models: node"):
        assert way in error
    assert cluster.said("apply") == []
    assert cluster.deploy(model="models/m", local_models="node").error == ""
    assert "must have the model as a directory" in cluster.deploy(model="models/m.zip", local_models="node").error


def test_a_registry_gets_an_image_with_the_model(
    cluster: Cluster, program: Program, write_saved_model: Callable[..., Path]
) -> None:
    """The context is what the pod's first container copies, and the image is pushed before it is named to anyone."""
    write_saved_model(cluster.root / "project/models/m/1")
    log = cluster.root / "docker.log"
    show = f'(cd "$4" && find . -type f | sort && cat Dockerfile) >>{log}'
    program("docker", f'#!/bin/sh\necho "$@" >>{log}\n[ "$1" = push ] || {show}\n')
    assert cluster.deploy(model="models/m", registry="r.example.com/t").error == ""
    text = log.read_text()
    assert "build --tag r.example.com/t/cortex-bundle-api:" in text
    assert "./bundle/models/_cortex_default/1/saved_model.pb" in text
    assert "FROM r.example.com/t/cortex-api:" in text
    assert text.splitlines()[-1].startswith("push r.example.com/t/cortex-bundle-api:")
    program("docker", "#!/bin/sh\necho denied: log in first >&2\nexit 1\n")
    assert cluster.deploy(model="models/m", cpu=2, registry="r.example.com/t").error == (
        "docker build failed: denied: log in first"
    )


def test_a_directory_of_models_is_read_where_it_is_rendered(cluster: Cluster) -> None:
    """The manifests name each model; where the directory is not, the error says what to do, and where."""
    config = cluster.root / "project/cortex.yaml"
    row = {"name": "api", "predictor": {"type": "tensorflow", "path": "predictor.py", "models": {"dir": "models"}}}
    config.write_text(json.dumps([row]))
    with pytest.raises(UserError, match=r"cortex.yaml:1: api: predictor.models.dir: models: .* predictor.models.paths"):
        cluster.environment().render(read(config))
    (cluster.root / "project/models/a").mkdir(parents=True)
    (deployment,) = (row for row in cluster.environment().render(read(config)) if row["kind"] == "Deployment")
    mounts = deployment["spec"]["template"]["spec"]["containers"][1]["volumeMounts"]
    assert "/models/a" in {mount["mountPath"] for mount in mounts}


def test_an_ingress_with_an_address_is_the_endpoint(cluster: Cluster) -> None:
    deployed = cluster.deploy(host="api.example.com")
    assert deployed.api is not None
    assert deployed.api.endpoint == "http://api.example.com/api"


def test_a_route_with_a_host_is_the_endpoint(cluster: Cluster) -> None:
    deployed = cluster.deploy(host="api.example.com", gateway="infra/public")
    assert deployed.api is not None
    assert deployed.api.endpoint == "http://api.example.com/api"
    assert "no HTTPRoute is made: the cluster has no gateway.networking.k8s.io/v1" in cluster.lines


def test_without_a_kubectl_anything_can_be_rendered(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    config = cluster.root / "project/cortex.yaml"
    config.write_text(YAML.format(model="models/not/there", cpu=1))
    assert {row["kind"] for row in cluster.environment().render(read(config))} >= {"Deployment", "Service"}
