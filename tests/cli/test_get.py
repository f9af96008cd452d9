"""What `cortex get` prints: tables, one API in full, JSON, and again and again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cortex import cli
from cortex.console.table import age, latency
from cortex.environments import processors
from cortex.environments.base import NetworkStats, ProcessStatus
from cortex.environments.processors import Processors
from cortex.spec import APISpec, Model, Monitoring, Networking, Predictor, ServerSideBatching
from cortex.spec.config import read

_SUMMARY = {"message": "...", "model_signatures": {"_cortex_default": {"x": {"shape": [-1, 4], "type": "float32"}}}}


def test_table_of_one_live_api(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    """Columns that hold nothing but zeros are left out; a zero in a column that stays is a dash."""
    world.apis = [fakes.api(stats=NetworkStats(code_2xx=1234, latency_ms=51.25))]
    ran = cortex("get")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "env     realtime api   status   last update   avg request   2XX\n"
        "local   iris           live     5m            51.25 ms      1234\n"
    )


def test_table_is_sorted_and_gives_reasons(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    """Rows are sorted; 5XX shows up when one API has some; below it, why an API is not live and what is to know."""
    world.apis = [
        fakes.api(
            fakes.IRIS.model_copy(update={"name": "wine"}),
            status="updating",
            reason="loading models/wine",
            last_updated=0.0,
        ),
        fakes.api(notices=("random weights",), stats=NetworkStats(1, 0, 7, 1500.0)),
    ]
    assert cortex("get", "--env", "local").out == (
        "env     realtime api   status     last update   avg request   2XX   5XX\n"
        "local   iris           live       5m            1.5 s         1     7\n"
        "local   wine           updating   -             -             -     -\n"
        "\n"
        "iris: warning: random weights\n"
        "wine: loading models/wine\n"
    )


def test_nothing_deployed(cortex: Callable[..., Any], world: Any) -> None:
    world.apis = []
    assert cortex("get").out == "no apis are deployed\n"
    assert json.loads(cortex("get", "-o", "json").out) == [{"env_name": "local", "apis": [], "error": ""}]


def test_all_environments_are_asked(cortex: Callable[..., Any], fakes: Any) -> None:
    """One that cannot answer is an error after the answers of the others."""
    cortex("env", "configure", "docker")
    fakes.FakeDocker.world.apis = [fakes.api(endpoint="http://localhost:80")]
    rows = cortex("get").out.splitlines()
    assert [row.split()[0] for row in rows] == ["env", "docker", "local"]
    fakes.FakeDocker.world.error = fakes.UserError("is docker running?")
    ran = cortex("get")
    assert (ran.code, ran.err) == (1, "error: docker: is docker running?\n")
    assert ran.out.splitlines()[1].startswith("local   iris")
    listed = json.loads(cortex("get", "-o", "json").out)
    assert [(each["env_name"], len(each["apis"]), each["error"]) for each in listed] == [
        ("docker", 0, "is docker running?"),
        ("local", 1, ""),
    ]
    assert cortex("get", "-e", "docker").out == ""


def test_what_is_to_know_is_told_with_its_environment(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    """Where there are APIs of several: the same one may be in each."""
    cortex("env", "configure", "docker")
    fakes.FakeDocker.world.apis = world.apis = [fakes.api(notices=("random weights",))]
    remarks = cortex("get").out.splitlines()[-3:]
    assert remarks == ["", "docker: iris: warning: random weights", "local: iris: warning: random weights"]


def test_one_api(cortex: Callable[..., Any], world: Any, fakes: Any, serve: Callable[..., Any]) -> None:
    """Table, notices, endpoint, model input, processes and the effective configuration of one API."""
    endpoint = serve(json.dumps(_SUMMARY), content_type="application/json")
    processes = (ProcessStatus("model server", 71, "ready"), ProcessStatus("worker 0", None, "waiting to restart", 3))
    world.apis = [fakes.api(endpoint=endpoint, processes=processes, notices=("random weights",))]
    assert cortex("get", "iris").out == (
        "status   last update   avg request   2XX\n"
        "live     5m            -             -\n"
        "\n"
        "warning: random weights\n"
        "\n"
        f"endpoint: {endpoint}\n"
        f'example curl: curl {endpoint} -X POST -H "Content-Type: application/json" -d @sample.json\n'
        "\n"
        "model input   type      shape\n"
        "x             float32   (-1, 4)\n"
        "\n"
        "process        pid   state                restarts\n"
        "model server   71    ready                -\n"
        "worker 0       -     waiting to restart   3\n"
        "\n"
        "configuration\n"
        "name: iris\n"
        "kind: RealtimeAPI\n"
        "predictor:\n"
        "  type: tensorflow\n"
        "  path: predictor.py\n"
        "  model_path: models/iris\n"
        "  processes_per_replica: 1\n"
        "  threads_per_process: 1\n"
        "  config: {}\n"
        "  env: {}\n"
        "  engine: auto\n"
        "  precision: auto\n"
        "  model_server: cortex\n"
        "networking:\n"
        f"  local_port: {endpoint.rpartition(':')[2]}\n"
        "  max_body_size: 32Mi\n"
        "compute:\n"
        "  cpu: null  # no limit\n"
        "  mem: null  # no limit\n"
        "  gpu: 0\n"
        "  inf: 0\n"
    )


def test_inputs_of_several_models_are_told_apart(
    cortex: Callable[..., Any], world: Any, fakes: Any, serve: Callable[..., Any]
) -> None:
    """Models and inputs are sorted; Cortex's words for a scalar and for any shape are shown as they are."""
    scalar, unknown = {"shape": ["scalar"], "type": "int64"}, {"shape": ["unknown"], "type": "string"}
    signatures = {"b": {"y": scalar, "x": unknown}, "a": {"x": {"shape": [2], "type": "float32"}}}
    world.apis = [fakes.api(endpoint=serve(json.dumps({"model_signatures": signatures})))]
    assert (
        "\n\nmodel name   model input   type      shape\n"
        "a            x             float32   (2)\n"
        "b            x             string    unknown\n"
        "b            y             int64     scalar\n\n"
    ) in cortex("get", "iris").out


_RUNTIME = {"engine": "openvino", "precision": "bf16", "threads": 2, "streams": 2}


@pytest.fixture
def xeon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this machine be of one kind."""
    monkeypatch.setattr(processors, "processors", lambda: Processors("Xeon", 2, 4, ("avx512", "amx")))


@pytest.mark.usefixtures("xeon")
@pytest.mark.parametrize(
    ("metadata", "shown"),
    [
        (
            {"m-1": {"runtime": _RUNTIME}},
            "\n\nrunning: openvino, bf16, 2 threads (2 streams under load)\nprocessor: Xeon (avx512, amx)\n\n",
        ),
        (
            {"b-1": {"runtime": {**_RUNTIME, "streams": 1}}, "a-2": {"runtime": {"engine": "tflite", "threads": 1}}},
            "\n\nrunning: a-2: tflite, 1 thread\nrunning: b-1: openvino, bf16, 2 threads\nprocessor: Xeon",
        ),
        ({"m-1": {"runtime": {"engine": "onnxruntime", "device": "cuda:0"}}}, "\n\nrunning: onnxruntime, cuda:0\n"),
    ],
)
def test_what_computes_the_models_is_told(
    metadata: dict[str, Any], shown: str, cortex: Callable[..., Any], world: Any, fakes: Any, serve: Callable[..., Any]
) -> None:
    """As the model server says it, with what the processor can, since that decides the precision."""
    world.apis = [fakes.api(endpoint=serve(json.dumps({**_SUMMARY, "model_metadata": metadata})))]
    assert shown in cortex("get", "iris").out
    (found,) = json.loads(cortex("get", "iris", "-o", "json").out)
    assert found["running"] == {name: row["runtime"] for name, row in metadata.items()}


def test_a_foreign_model_server_says_nothing(
    cortex: Callable[..., Any], world: Any, fakes: Any, serve: Callable[..., Any]
) -> None:
    metadata = {"m-1": {"runtime": {}}, "m-2": {}, "x": None}
    world.apis = [fakes.api(endpoint=serve(json.dumps({**_SUMMARY, "model_metadata": metadata})))]
    assert "running:" not in cortex("get", "iris").out


def test_the_front_is_shown(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    world.apis = [fakes.api(endpoint="http://127.0.0.1:9", front="http://localhost:8080/iris")]
    assert (
        "endpoint: http://127.0.0.1:9\nfront: http://localhost:8080/iris\nexample curl: " in cortex("get", "iris").out
    )


def test_no_schema_before_the_api_is_live(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    world.apis = [fakes.api(status="error", reason="worker 0 keeps crashing")]
    out = cortex("get", "iris").out
    assert "\n\nworker 0 keeps crashing\n\nendpoint: " in out
    assert "\n\nthe model's input schema will be available when the api is live\n\n" in out


@pytest.mark.parametrize("body", ["<html>", "[]", '{"model_signatures": {"m": {"x": {}}}}'])
def test_summary_that_makes_no_sense(
    body: str, cortex: Callable[..., Any], world: Any, fakes: Any, serve: Callable[..., Any]
) -> None:
    """What answers on the endpoint may be anything: the rest is still shown."""
    world.apis = [fakes.api(endpoint=serve(body))]
    ran = cortex("get", "iris")
    assert ran.code == 0
    assert "\nthe model's input schema is not available: iris: GET http://127.0.0.1:" in ran.out


def test_models_of_which_none_is_served(cortex: Callable[..., Any], world: Any, fakes: Any, serve: Any) -> None:
    """The model server gives up what ends it again and again; an API with nothing else left says so."""
    world.apis = [fakes.api(endpoint=serve(json.dumps({"model_metadata": {}})))]
    assert "\nno version of its models is served any more; `cortex logs iris` says why\n" in cortex("get", "iris").out


def test_python_predictor_has_no_schema(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    world.apis = [fakes.api(APISpec(name="iris", predictor=Predictor(type="python", path="predictor.py")))]
    assert "model" not in cortex("get", "iris").out.partition("configuration")[0]


def test_configuration_with_every_key(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    """--verbose shows the whole spec by the keys of a yaml; durations have units; the user's maps are left alone."""
    models = (Model(name="a", path="models/a", signature_key="predict"), Model(name="b", path="s3://b/b"))
    predictor = Predictor(
        type="tensorflow",
        path="predictor.py",
        models=models,
        config={"window": 3, "name": "Zoë", "cpu": None},
        env={"window": "a room"},
        server_side_batching=ServerSideBatching(max_batch_size=8, batch_interval=0.00005),
    )
    spec = APISpec(name="iris", predictor=predictor, networking=Networking(local_port=9000, endpoint="/iris"))
    world.apis = [fakes.api(spec, status="updating")]
    dump = cortex("get", "iris", "--verbose").out.partition("configuration\n")[2]
    assert (
        "  models:\n    paths:\n    - name: a\n      model_path: models/a\n      signature_key: predict\n"
        "    - name: b\n      model_path: s3://b/b\n" in dump
    )
    assert "  config:\n    window: 3\n    name: Zoë\n    cpu: null\n  env:\n    window: a room\n" in dump
    assert "  server_side_batching:\n    max_batch_size: 8\n    batch_interval: 0.00005s\n" in dump
    assert "networking:\n  endpoint: /iris\n  local_port: 9000\n  api_gateway: public\n" in dump
    assert "  window: 60s\n  downscale_stabilization_period: 300s\n" in dump
    assert "update_strategy:\n  max_surge: 25%\n" in dump


@pytest.mark.parametrize("endpoint", ["http://localhost:8080/iris", "http://localhost/iris", "http://iris.default.svc"])
def test_an_api_behind_a_front_has_no_port_of_its_own(
    endpoint: str, cortex: Callable[..., Any], world: Any, fakes: Any
) -> None:
    """The front's port, which all APIs share, is not shown as the port of one of them."""
    world.apis = [fakes.api(endpoint=endpoint, status="updating")]
    assert "\nnetworking:\n  max_body_size: 32Mi\n" in cortex("get", "iris").out


@pytest.mark.parametrize("verbose", [[], ["--verbose"]], ids=["brief", "verbose"])
@pytest.mark.parametrize("kind", ["python", "tensorflow", "onnx"])
def test_configuration_can_be_deployed(
    kind: Any, verbose: list[str], cortex: Callable[..., Any], world: Any, fakes: Any, tmp_path: Path
) -> None:
    """It is a yaml that is right, and says the same, also of an API without a port of its own."""
    models = () if kind == "python" else (Model(name="_cortex_default", path="m"),)
    predictor = Predictor(type=kind, path="predictor.py", models=models, env={"A": "1e3", "B": "08"})
    spec = APISpec(name="iris", predictor=predictor, monitoring=Monitoring(model_type="regression"))
    world.apis = [fakes.api(spec, status="updating", endpoint="http://cluster/iris")]
    dump = cortex("get", "iris", *verbose).out.partition("configuration\n")[2]
    (tmp_path / "predictor.py").touch()
    (tmp_path / "again.yaml").write_text("- " + dump.replace("\n", "\n  "))
    (again,) = read(tmp_path / "again.yaml").apis
    assert again.predictor == predictor


def test_configuration_of_a_models_directory(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    predictor = Predictor(
        type="tensorflow",
        path="p.py",
        models_dir="models",
        models_dir_signature_key="s",
        cache_size=1,
        disk_cache_size=2,
    )
    world.apis = [fakes.api(APISpec(name="iris", predictor=predictor), status="updating")]
    assert (
        "  models:\n    dir: models\n    signature_key: s\n    cache_size: 1\n    disk_cache_size: 2\n"
        in cortex("get", "iris").out
    )


@pytest.mark.usefixtures("xeon")
def test_json_of_one_api(cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    """Cortex's keys, and ours beside them."""
    process = ProcessStatus("worker 0", 71, "ready")
    stats = NetworkStats(5, 2, 1, 50.5)
    told = {"stats": stats, "processes": (process,), "notices": ("random weights",), "last_updated": 1600000000.7}
    world.apis = [fakes.api(endpoint="http://127.0.0.1:9", **told)]  # nobody answers there
    (found,) = json.loads(cortex("get", "iris", "-o", "json").out)
    spec = found.pop("spec")
    assert (spec["name"], spec["id"], spec["last_updated"]) == ("iris", "7f3c", 1600000000)
    assert spec["predictor"]["models"] == [{"name": "_cortex_default", "path": "models/iris", "signature_key": None}]
    zeros = {"initializing": 0, "ready": 0, "failed": 0, "killed_oom": 0}
    assert found == {
        "status": {
            "api_name": "iris",
            "api_id": "7f3c",
            "status_code": "status_live",
            "replica_counts": {"updated": {**zeros, "ready": 1}, "stale": zeros, "requested": 1},
        },
        "metrics": {
            "api_name": "iris",
            "network_stats": {"latency": 50.5, "code_2xx": 5, "code_4xx": 2, "code_5xx": 1, "total": 8},
        },
        "endpoint": "http://127.0.0.1:9",
        "front": "",
        "running": {},
        "processor": {"model": "Xeon", "features": ["avx512", "amx"]},
        "reason": "",
        "notices": ["random weights"],
        "processes": [{"name": "worker 0", "pid": 71, "state": "ready", "restarts": 0}],
    }


@pytest.mark.parametrize(
    ("status", "code"),
    [("updating", "status_updating"), ("error", "status_error"), ("error (out of memory)", "status_oom")],
)
def test_status_codes(status: str, code: str, cortex: Callable[..., Any], world: Any, fakes: Any) -> None:
    world.apis = [fakes.api(status=status, reason="why")]
    (listed,) = json.loads(cortex("get", "-o", "json").out)
    assert listed["apis"][0]["status"]["status_code"] == code
    assert listed["apis"][0]["reason"] == "why"


@pytest.mark.parametrize("output", ["pretty", "json"])
def test_api_that_is_not_deployed(output: str, cortex: Callable[..., Any]) -> None:
    ran = cortex("get", "nope", "-o", output)
    assert (ran.code, ran.out, ran.err) == (1, "", "error: nope is not deployed\n")


def test_watch_shows_it_again(cortex: Callable[..., Any], world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame is asked for anew, until Ctrl-C, which is silent."""
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        world.apis = []
        if len(waits) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli.time, "sleep", sleep)
    ran = cortex("get", "--watch")
    assert (ran.code, ran.err.strip(), waits) == (1, "", [2.0, 2.0])
    first, second = ran.out.split("\n\n")
    assert "iris" in first
    assert second == "no apis are deployed\n"


def test_watch_does_not_go_with_json(cortex: Callable[..., Any]) -> None:
    assert cortex("get", "-w", "-o", "json").code == 2


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86399, "23h"), (200000, "2d")],
)
def test_age(seconds: float, said: str) -> None:
    assert age(seconds) == said


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (None, "-"),
        (0.0, "-"),
        (0.5, "0.5 ms"),
        (51.1234567, "51.1235 ms"),
        (999.9, "999.9 ms"),
        (1234.5678, "1.23457 s"),
    ],
)
def test_latency(milliseconds: float | None, said: str) -> None:
    assert latency(milliseconds) == said
