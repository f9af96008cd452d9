"""The manifests of the three shipped yamls, by golden files, by Kubernetes' own schemas, and by what must agree.

``UPDATE_GOLDEN=1 pytest tests/environments/test_manifests.py`` writes the golden files anew.
"""

import base64
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import cortex
from cortex import revision
from cortex.environments.kubernetes.environment import KubernetesEnvironment
from cortex.environments.kubernetes.manifests.keys import key_of, lay_out, name_of
from cortex.environments.kubernetes.manifests.pod import DRAIN_SECONDS, STOP_SECONDS, UNROUTED_SECONDS
from cortex.environments.kubernetes.manifests.scaling import autoscaler, behavior, query
from cortex.environments.kubernetes.settings import Settings
from cortex.errors import UserError
from cortex.model_server import flags
from cortex.spec import APISpec, Autoscaling
from cortex.spec.config import read

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "manifests"
VERSIONS = ("1.29", "1.33", "1.37")
CLUSTERS: Mapping[str, Mapping[str, str]] = {
    "cpu": {},
    "gpu": {"registry": "registry.example.com/team", "namespace": "models", "host": "api.example.com"},
    "accelerator": {
        "registry": "registry.example.com/team",
        "prometheus": "http://prometheus.monitoring:9090",
        "gateway": "infra/public",
        "service_monitor": "true",
        "service_account": "models",
    },
}
Render = Callable[..., tuple[Mapping[str, Any], ...]]


@pytest.fixture
def render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Render:
    """Render a yaml that stands in a project of one small predictor."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project/predictor.py").write_text("class TensorFlowPredictor: ...\n")

    def rendered(text: str, **settings: str) -> tuple[Mapping[str, Any], ...]:
        config = tmp_path / "project/cortex.yaml"
        config.write_text(text)
        return KubernetesEnvironment(tmp_path / "home", settings).render(read(config))

    return rendered


def _one(documents: tuple[Mapping[str, Any], ...], kind: str) -> Mapping[str, Any]:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def _pod(documents: tuple[Mapping[str, Any], ...]) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = _one(documents, "Deployment")["spec"]["template"]["spec"]
    return spec


def _container(documents: tuple[Mapping[str, Any], ...], name: str) -> Mapping[str, Any]:
    pod = _pod(documents)
    (found,) = [row for row in (*pod.get("initContainers", ()), *pod["containers"]) if row["name"] == name]
    return found  # type: ignore[no-any-return]  # the manifests are plain data


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(documents: tuple[Mapping[str, Any], ...], project: Path) -> str:
    """Return manifests as text that is the same on every machine and in every version."""
    plain = json.loads(json.dumps(documents).replace(str(project), "/PROJECT"))
    text = yaml.dump_all(plain, Dumper=_Plain, sort_keys=False, width=120)
    text = text.replace(f":{cortex.__version__}\n", ":VERSION\n")
    text = re.sub(r"(-config-|-project-)[0-9a-f]{10}", r"\1DIGEST", text)
    return re.sub(r"\b[0-9a-f]{16}\b", "REVISION", text)


@pytest.mark.parametrize("target", CLUSTERS)
def test_the_shipped_yamls_give_these_manifests(target: str, render: Render, tmp_path: Path) -> None:
    documents = render((ROOT / f"cortex_{target}.yaml").read_text(), **CLUSTERS[target])
    text, file = _text(documents, tmp_path / "project"), GOLDEN / f"{target}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


REMOTE = """
- name: many
  predictor:
    type: tensorflow
    path: predictor.py
    processes_per_replica: 2
    models:
      - {name: cats, model_path: "s3://bucket/cats#sha256=%s"}
      - {name: dogs, model_path: "pvc://claim/dogs/3"}
      - {name: cows, model_path: models/cows}
    server_side_batching: {max_batch_size: 2, batch_interval: 5ms}
  compute: {cpu: 3, mem: 2Gi}
  autoscaling: {min_replicas: 2, max_replicas: 50, init_replicas: 3, target_replica_concurrency: 1.5}
  update_strategy: {max_surge: 1, max_unavailable: 0}
- name: plain
  predictor: {type: python, path: predictor.py}
  networking: {api_gateway: none}
  autoscaling: {max_replicas: 1}
""" % ("0" * 64)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_keep_to_kubernetes_schemas(version: str, render: Render) -> None:
    """Strictly: no field that this version does not know. Kinds of others have no published schema to ask."""
    import kubernetes_validate

    yamls = [(ROOT / f"cortex_{target}.yaml").read_text() for target in CLUSTERS]
    cases = [*zip(yamls, CLUSTERS.values(), strict=True), (REMOTE, {"model_secret": "keys", "pull_secret": "pull"})]
    checked = set()
    for text, settings in cases:
        for document in render(text, **settings):
            if document["apiVersion"].split("/")[0] not in (
                "monitoring.coreos.com",
                "keda.sh",
                "gateway.networking.k8s.io",
            ):
                kubernetes_validate.validate(document, version, strict=True)
                checked.add(document["kind"])
    assert checked >= {"ConfigMap", "Deployment", "Service", "Ingress", "NetworkPolicy", "HorizontalPodAutoscaler"}


def test_models_come_from_where_they_are(render: Render) -> None:
    """A URL by the init container, a volume by its claim, a path of this machine as on a node that has it."""
    documents = tuple(row for row in render(REMOTE) if row["metadata"]["name"].startswith("many"))
    pod, server = _pod(documents), _container(documents, "model-server-0")
    mounts = {row["mountPath"]: row for row in server["volumeMounts"]}
    assert mounts["/models"]["readOnly"]
    assert mounts["/models/dogs/3"] == {
        "name": "model-1",
        "mountPath": "/models/dogs/3",
        "readOnly": True,
        "subPath": "dogs/3",
    }
    volumes = {row["name"]: row for row in pod["volumes"]}
    assert volumes["model-1"]["persistentVolumeClaim"] == {"claimName": "claim", "readOnly": True}
    assert volumes["model-2"]["hostPath"]["path"].endswith("project/models/cows")
    assert _container(documents, "models")["command"][-4:] == ["--spec", "/cortex/spec.json", "--models", "/models"]
    (config,) = [row["data"] for row in documents if "-config-" in row["metadata"]["name"]]
    resolved = APISpec.model_validate_json(config["resolved.json"])
    assert [model.path for model in resolved.predictor.models] == ["/models/cats", "/models/dogs", "/models/cows"]
    assert 'base_path: "/models/dogs"' in config["models.config"]
    assert "max_batch_size { value: 2 }" in config["batching.config"]


def test_a_registry_s_image_brings_local_models(render: Render) -> None:
    documents = tuple(
        row for row in render(REMOTE, registry="r.example.com/t") if row["metadata"]["name"].startswith("many")
    )
    bundle = _container(documents, "bundle")
    assert re.fullmatch(r"r\.example\.com/t/cortex-bundle-many:[0-9a-f]{16}", bundle["image"])
    assert bundle["volumeMounts"] == [{"name": "models", "mountPath": "/data/models"}]
    assert not [row for row in _pod(documents)["volumes"] if "hostPath" in row]


def test_every_container_is_locked_in(render: Render) -> None:
    documents = render(REMOTE, registry="r.example.com/t")[:8]
    pod = _pod(tuple(row for row in documents if row["metadata"]["name"].startswith("many")))
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_a_pod_s_end_agrees_with_the_drain(render: Render) -> None:
    """The pod may take as long as its parts: routers first, then the workers' drain, then the model server."""
    assert (DRAIN_SECONDS, STOP_SECONDS) == (revision.DRAIN_SECONDS, revision.BACK_SECONDS)
    documents = render((ROOT / "cortex_cpu.yaml").read_text())
    assert _pod(documents)["terminationGracePeriodSeconds"] == UNROUTED_SECONDS + DRAIN_SECONDS + STOP_SECONDS
    waits = _container(documents, "model-server-0")["lifecycle"]["preStop"]["exec"]["command"]
    assert waits == ["flock", "-w", str(UNROUTED_SECONDS + DRAIN_SECONDS), "/run/cortex/api.lock", "true"]


@pytest.mark.parametrize(
    ("compute", "api", "server"),
    [
        ("{}", {"requests": {"cpu": "100m"}}, {"requests": {"cpu": "100m"}}),
        (
            "{cpu: 3, mem: 2Gi}",
            {"requests": {"cpu": "1500m", "memory": "1024Mi"}, "limits": {"memory": "2Gi"}},
            {"requests": {"cpu": "1500m", "memory": "1024Mi"}, "limits": {"memory": "2Gi"}},
        ),
        ("{cpu: 2, gpu: 2}", {"requests": {"cpu": "1"}}, {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": "2"}}),
        (
            "{inf: 1}",
            {"requests": {"cpu": "100m"}},
            {"requests": {"cpu": "100m"}, "limits": {"aws.amazon.com/neuron": "1"}},
        ),
    ],
)
def test_resources_are_those_of_compute(
    compute: str, api: Mapping[str, Any], server: Mapping[str, Any], render: Render
) -> None:
    documents = render(_api(f"compute: {compute}"))
    assert _container(documents, "api")["resources"] == api
    assert _container(documents, "model-server-0")["resources"] == server


def _api(*sections: str, predictor: str = "") -> str:
    model = f"{{type: tensorflow, path: predictor.py, model_path: 's3://b/m'{predictor}}}"
    return "\n".join([f"- name: api\n  predictor: {model}", *(f"  {section}" for section in sections)])


@pytest.mark.parametrize("value", ["$", "$$", "a$b", "$1$$hash", "$(HOME)", "$$(HOME)", "$$$(HOME) $(", "${HOME}"])
def test_a_variable_has_the_value_of_the_yaml(value: str, render: Render) -> None:
    """Kubernetes puts one $ for two, and a variable for $(NAME)."""
    row = {"name": "a", "predictor": {"type": "python", "path": "predictor.py", "env": {"A": value}}}
    (written,) = [row["value"] for row in _container(render(json.dumps([row])), "api")["env"] if row["name"] == "A"]
    read_by_kubernetes = re.sub(r"\$(\$|\([^)]*\))", lambda match: "$" if match[1] == "$" else "a variable", written)
    assert read_by_kubernetes == value


@pytest.mark.parametrize(
    ("section", "strategy"),
    [
        ("{}", {"maxSurge": "25%", "maxUnavailable": "25%"}),
        ("update_strategy: {max_surge: 0, max_unavailable: 2}", {"maxSurge": 0, "maxUnavailable": 2}),
        ("compute: {gpu: 1}", {"maxSurge": 0, "maxUnavailable": "25%"}),
        ("compute: {inf: 1}", {"maxSurge": 0, "maxUnavailable": "25%"}),
    ],
)
def test_the_yaml_says_how_pods_are_replaced(section: str, strategy: Mapping[str, Any], render: Render) -> None:
    """Where it says nothing, a pod that holds a device goes before its successor comes."""
    documents = render(_api(*([] if section == "{}" else [section])))
    assert _one(documents, "Deployment")["spec"]["strategy"]["rollingUpdate"] == strategy


def test_a_surge_that_is_written_is_kept_with_a_device(render: Render) -> None:
    documents = render(_api("compute: {gpu: 1}", "update_strategy: {max_surge: 1}"))
    assert _one(documents, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 1


@pytest.mark.parametrize(("unavailable", "allowed"), [("0", 1), ("25%", "25%"), ("3", 3)])
def test_a_node_can_always_be_drained(unavailable: str, allowed: int | str, render: Render) -> None:
    documents = render(_api(f"update_strategy: {{max_surge: 1, max_unavailable: {unavailable}}}"))
    assert _one(documents, "PodDisruptionBudget")["spec"]["maxUnavailable"] == allowed


def test_tensorflow_serving_is_given_only_flags_that_it_knows(render: Render) -> None:
    for predictor, image in (
        (", model_server: tensorflow_model_server", "tensorflow/serving"),
        (", tensorflow_serving_image: 'mine/serving:1'", "mine/serving:1"),
    ):
        server = _container(render(_api("compute: {cpu: 2}", predictor=predictor)), "model-server-0")
        assert server["image"].startswith(image)
        assert server["command"][0] == "tensorflow_model_server"
        assert not [flag for flag in server["command"] if flag.startswith(("--engine", "--precision", "--inference"))]


def _rules(**changed: float) -> Autoscaling:
    return Autoscaling.model_validate(changed)


@pytest.mark.parametrize(
    ("changed", "direction", "expected"),
    [
        ({}, "scaleUp", (60, {("Pods", 1, 70), ("Percent", 50, 70)})),
        ({}, "scaleDown", (300, {("Pods", 1, 310), ("Percent", 25, 310)})),
        ({"max_upscale_factor": 10.0}, "scaleUp", (60, {("Pods", 1, 70), ("Percent", 900, 70)})),
        ({"max_upscale_factor": 1.001}, "scaleUp", (60, {("Pods", 1, 70)})),
        ({"max_downscale_factor": 0.0}, "scaleDown", (300, {("Pods", 1, 310), ("Percent", 100, 310)})),
        ({"upscale_stabilization_period": 0.0}, "scaleUp", (0, {("Pods", 1, 10), ("Percent", 50, 10)})),
        ({"downscale_stabilization_period": 7200.0}, "scaleDown", (3600, {("Pods", 1, 1800), ("Percent", 25, 1800)})),
    ],
)
def test_cortex_s_rules_in_kubernetes_words(
    changed: Mapping[str, float], direction: str, expected: tuple[int, set[tuple[str, int, int]]]
) -> None:
    found = behavior(_rules(**changed))[direction]
    policies = {(row["type"], row["value"], row["periodSeconds"]) for row in found["policies"]}
    assert (found["stabilizationWindowSeconds"], policies, found["selectPolicy"]) == (*expected, "Max")


def test_replicas_are_chosen_by_requests_in_flight(render: Render) -> None:
    documents = tuple(row for row in render(REMOTE) if row["metadata"]["name"].startswith("many"))
    scaler = _one(documents, "HorizontalPodAutoscaler")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 50)
    assert scaler["metrics"][0]["pods"]["target"] == {"type": "AverageValue", "averageValue": "1500m"}
    assert _one(documents, "Deployment")["spec"]["replicas"] == 3


def test_tolerances_are_given_to_clusters_that_know_them() -> None:
    import kubernetes_validate

    values = {
        "name": "a",
        "predictor": {"type": "python", "path": "p.py"},
        "autoscaling": _rules(upscale_tolerance=0.2),
    }
    spec = APISpec.model_validate(values)
    scaler = autoscaler(spec, Settings(), (1, 33))
    assert scaler["spec"]["behavior"]["scaleUp"]["tolerance"] == "0.2"
    assert scaler["spec"]["behavior"]["scaleDown"]["tolerance"] == "0.05"
    kubernetes_validate.validate(scaler, "1.33", strict=True)
    assert "tolerance" not in autoscaler(spec, Settings(), (1, 32))["spec"]["behavior"]["scaleUp"]


def test_keda_asks_prometheus_for_cortex_s_average(render: Render) -> None:
    documents = render(_api(), prometheus="http://p:9090", namespace="ns")
    (trigger,) = _one(documents, "ScaledObject")["spec"]["triggers"]
    series = 'cortex_in_flight_requests{namespace="ns",service="api"}[60s]'
    assert trigger["metadata"]["query"] == f"sum(sum_over_time({series})) / max(count_over_time({series}))"
    assert (trigger["metricType"], trigger["metadata"]["threshold"]) == ("AverageValue", "1")
    assert not [row for row in documents if row["kind"] == "HorizontalPodAutoscaler"]


def test_one_replica_needs_no_autoscaler_and_a_private_api_no_ingress(render: Render) -> None:
    kinds = {row["kind"] for row in render(REMOTE) if row["metadata"]["name"].startswith("plain")}
    assert kinds == {"ConfigMap", "Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"}


def test_what_is_rendered_applies_to_a_bare_cluster(render: Render) -> None:
    """Nothing is of a kind that Kubernetes itself does not have, unless a setting asks for it."""
    groups = {row["apiVersion"].rpartition("/")[0] for row in render(REMOTE)}
    assert groups == {"", "apps", "networking.k8s.io", "policy", "autoscaling"}
    asked = render(REMOTE, service_monitor="true", prometheus="http://p:9090", gateway="infra/public")
    assert {row["kind"] for row in asked} >= {"ServiceMonitor", "ScaledObject", "HTTPRoute"}


def test_each_manifest_says_what_the_cluster_must_have(render: Render) -> None:
    """In plain words, where it needs more than Kubernetes: who reads the yaml sees why replicas would not change."""
    settings = {"service_monitor": "true", "prometheus": "http://p:9090", "gateway": "infra/public"}
    documents = [*render(REMOTE), *render(REMOTE, **settings), *render(_api("compute: {gpu: 1}"))]
    needs: dict[str, set[str]] = {}
    for row in documents:
        needs.setdefault(row["kind"], set()).add(row["metadata"].get("annotations", {}).get("cortex/needs", ""))
    assert {kind for kind, said in needs.items() if said == {""}} == {"ConfigMap", "Service", "PodDisruptionBudget"}
    (autoscaler_needs,) = needs["HorizontalPodAutoscaler"]
    assert "pods/cortex_in_flight_requests, from Prometheus and Prometheus Adapter" in autoscaler_needs
    assert "without it the number of replicas stays as it is" in autoscaler_needs
    assert needs["ScaledObject"] == {"KEDA, and Prometheus at http://p:9090"}
    assert needs["HTTPRoute"] == {"the Gateway API, and the Gateway infra/public"}
    assert any("NVIDIA's device plugin" in said for said in needs["Deployment"])
    assert any("/project/models/cows on every node" in said for said in needs["Deployment"])


def test_the_engine_on_a_gpu_follows_the_artifact(render: Render, tmp_path: Path) -> None:
    """An ONNX graph that is here runs in ONNX Runtime; of models elsewhere nobody knows, and that is a notice."""
    version = tmp_path / "project/models/m/1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"\x08\x08")
    here = render(_api("compute: {gpu: 1}").replace("'s3://b/m'", "models/m"), registry="r.io/x")
    assert "--engine=onnxruntime" in _container(here, "model-server-0")["command"]
    assert "predictor.engine" not in str(_notices(here))
    there = render(_api("compute: {gpu: 1}"))
    assert "--engine=tensorflow" in _container(there, "model-server-0")["command"]
    assert "set predictor.engine: onnxruntime for those of `python -m export gpu`" in str(_notices(there))
    told = render(_api("compute: {gpu: 1}", predictor=", engine: onnxruntime"))
    assert "--engine=onnxruntime" in _container(told, "model-server-0")["command"]
    assert "predictor.engine" not in str(_notices(told))


def test_what_is_not_installed_is_a_notice(render: Render, tmp_path: Path) -> None:
    """Nothing of a project is run in a pod before its API; an image of the user's own has what it needs."""
    for name in ("requirements.txt", "conda-packages.txt"):
        (tmp_path / "project" / name).touch()
    told = str(_notices(render(_api())))
    assert "requirements.txt is not installed: name an image" in told
    assert "conda-packages.txt: not run here; name an image" in told
    assert _notices(render(_api(predictor=", image: 'r.io/own:1'"))) == "[]"


def _notices(documents: tuple[Mapping[str, Any], ...]) -> Any:
    return _one(documents, "Deployment")["spec"]["template"]["metadata"]["annotations"]["cortex/notices"]


def test_the_project_lies_in_the_pod_under_its_own_names(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "src/deep").mkdir(parents=True)
    (project / "src/deep/a b.py").write_text("x = 1\n")
    (project / "labels.bin").write_bytes(b"\xff\x00")
    (project / "tool.sh").write_text("#!/bin/sh\n")
    (project / "tool.sh").chmod(0o755)
    (project / "\udcff.txt").write_text("a name in another encoding\n")
    documents = render(_api())
    (holder,) = [row for row in documents if "-project-" in row["metadata"]["name"]]
    (volume,) = [row["configMap"] for row in _pod(documents)["volumes"] if row["name"] == "files"]
    assert volume["name"] == holder["metadata"]["name"]
    mounted, laid_out = tmp_path / "mounted", tmp_path / "laid-out"
    mounted.mkdir()
    (mounted / "..data").symlink_to(mounted)  # as the cluster has it
    for key, text in holder["data"].items():
        (mounted / key).write_text(text)
    for key, text in holder["binaryData"].items():
        (mounted / key).write_bytes(base64.b64decode(text))
    for item in volume["items"]:
        (mounted / item["key"]).chmod(item["mode"])
    lay_out(mounted, laid_out)
    assert [path.name for path in laid_out.rglob("*") if path.is_file() and os.access(path, os.X_OK)] == ["tool.sh"]
    files = {path.relative_to(laid_out).as_posix(): path.read_bytes() for path in laid_out.rglob("*") if path.is_file()}
    assert files == {path.relative_to(project).as_posix(): path.read_bytes() for path in project.rglob("*.[!y]*")}
    (project / ".env").write_text("TOKEN=1\n")
    documents = render(_api())
    secret = _one(documents, "Secret")
    assert secret["type"] == "Opaque"
    held = {name_of(key): base64.b64decode(text) for key, text in secret["data"].items()}
    assert held == {**files, ".env": b"TOKEN=1\n"}
    (volume,) = [row["secret"] for row in _pod(documents)["volumes"] if row["name"] == "files"]
    assert volume["secretName"] == secret["metadata"]["name"]


@pytest.mark.parametrize("name", ["predictor.py", "src/a_b/c d.py", "..x", ".env", "\u00e4/_2f", "a-b.C", "\udcff.txt"])
def test_a_key_is_one_that_kubernetes_takes_and_leads_back_to_the_name(name: str) -> None:
    assert re.fullmatch(r"(?!\.\.)[-._a-zA-Z0-9]+", key_of(name))
    assert name_of(key_of(name)) == name


def test_a_name_that_no_key_holds() -> None:
    """A path is refused here, with its name, rather than by the cluster with its key."""
    assert key_of("a" * 253)
    with pytest.raises(UserError, match=r"^weights/ä+: the path is too long for Kubernetes"):
        key_of("weights/" + "ä" * 50)


def test_a_project_that_is_too_large_is_an_error_or_an_image(render: Render, tmp_path: Path) -> None:
    (tmp_path / "project/weights.bin").write_bytes(os.urandom(1_000_000))
    with pytest.raises(
        UserError, match=r"largest are weights\.bin .*name what the API does not need in .*--registry R"
    ):
        render(_api())
    documents = render(_api(), registry="r.example.com/t")
    assert _container(documents, "bundle")["volumeMounts"] == [{"name": "project", "mountPath": "/data/project"}]
    assert {"name": "project", "emptyDir": {}} in _pod(documents)["volumes"]


def test_every_change_of_content_is_another_revision(render: Render, tmp_path: Path) -> None:
    def revision_of(text: str, **settings: str) -> str:
        labels = _one(render(text, **settings), "Deployment")["spec"]["template"]["metadata"]["labels"]
        return str(labels["cortex/revision"])

    first = revision_of(_api())
    assert revision_of(_api()) == first
    others = [revision_of(_api("compute: {cpu: 1}")), revision_of(_api(), registry="r.example.com/t")]
    (tmp_path / "project/predictor.py").write_text("# changed\n")
    assert len({first, *others, revision_of(_api())}) == 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"colour": "red"}, "has no setting 'colour' (there is: context, namespace, registry,"),
        ({"namespace": "Not One"}, "namespace: 'Not One' must be a name of lower case letters, digits and dashes"),
        ({"local_models": "yes"}, "local_models: 'yes' must be node, or left out"),
        ({"prometheus": "prom:9090"}, "prometheus: 'prom:9090' must be a URL like http://"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(settings: Mapping[str, str], said: str) -> None:
    """It says what may stand there."""
    with pytest.raises(UserError, match=re.escape(said)):
        Settings.of(settings)


def test_kserve_s_runtime_starts_our_server_with_flags_that_it_has() -> None:
    """Also: the image is that of this version, and the ports are those that KServe expects."""
    (document,) = yaml.safe_load_all((ROOT / "deploy/kserve-cortex-model-server.yaml").read_text())
    (container,) = document["spec"]["containers"]
    line = flags.parse(container["args"])
    assert (line.unknown, line.not_in_effect) == ((), [])
    assert (line.flags.rest_api_port, line.flags.port, line.flags.model_base_path) == (8080, 9000, "/mnt/models")
    assert container["image"] == f"cortex-model-server:{cortex.__version__}"


def test_the_average_is_over_the_window() -> None:
    text = _rules(window=120.0)
    spec = APISpec.model_validate({"name": "a", "predictor": {"type": "python", "path": "p.py"}, "autoscaling": text})
    assert "[120s]" in query(spec, "default")
