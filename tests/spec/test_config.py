"""What a good file becomes: one form for both dialects, complete, and as JSON what it was."""

import pytest

from cortex.spec import (
    SINGLE_MODEL,
    APISpec,
    Autoscaling,
    Compute,
    Model,
    Networking,
    Predictor,
    ServerSideBatching,
    UpdateStrategy,
)

HEAD = "- name: a\n  predictor:\n    type: tensorflow\n    path: predictor.py\n"


def test_defaults(read) -> None:
    """Of the smallest API everything else is filled in, also what depends on other keys."""
    [api] = read(f"{HEAD}    model_path: m\n    processes_per_replica: 2\n    threads_per_process: 8\n").apis
    predictor = Predictor(
        type="tensorflow",
        path="predictor.py",
        processes_per_replica=2,
        threads_per_process=8,
        models=(Model(name=SINGLE_MODEL, path="m", signature_key=None),),
    )
    assert api == APISpec(
        name="a",
        predictor=predictor,
        networking=Networking(endpoint="/a", local_port=None, max_body_size="32Mi"),
        compute=Compute(cpu=None, mem=None, gpu=0, inf=0),
        autoscaling=Autoscaling(init_replicas=1, target_replica_concurrency=16.0, window=60.0),
        update_strategy=UpdateStrategy(max_surge="25%", max_unavailable="25%"),
    )
    assert api.networking.max_body_bytes == 32 * 1024 * 1024


A = Model(name="a", path="m", signature_key="s")
B = Model(name="b", path="n", signature_key="t")
DIALECTS = [
    ("model_path: m\n    signature_key: s", {"models": (Model(path="m", signature_key="s"),)}),
    (
        "models: [{name: a, model_path: m, signature_key: s}, {name: b, model_path: n, signature_key: t}]",
        {"models": (A, B)},
    ),
    (
        "models: {paths: [{name: a, model_path: m}, {name: b, model_path: n, signature_key: t}], signature_key: s}",
        {"models": (A, B)},
    ),
    ("signature_key: s\n    models: [{name: a, model_path: m}]", {"models": (A,)}),
    (
        "models: {dir: m, signature_key: s, cache_size: 1, disk_cache_size: 2}",
        {"models_dir": "m", "models_dir_signature_key": "s", "cache_size": 1, "disk_cache_size": 2},
    ),
]


@pytest.mark.parametrize(("written", "expected"), DIALECTS)
def test_both_dialects_become_one_form(read, written: str, expected: dict[str, object]) -> None:
    """Nothing that reads a spec needs to know which Cortex its yaml was written for."""
    [api] = read(f"{HEAD}    {written}\n").apis
    assert api.predictor == Predictor(type="tensorflow", path="predictor.py", **expected)


WRITTEN = f"""\
{HEAD}    model_path: m
    python_path: src
    threads_per_process: 16
    config: {{a: .nan, b: [1, {{c: null, d: -.inf}}], e: {{}}, f: "ü😀"}}
    env: {{A: "1"}}
    server_side_batching: {{max_batch_size: 16, batch_interval: 1h0.5ms}}
  kind: RealtimeAPI
  monitoring: {{model_type: regression}}
  networking: {{endpoint: x/y/, local_port: 9000, max_body_size: 1000}}
  compute: {{cpu: 0.5, mem: 1Gi, accelerator: 1}}
  autoscaling: {{window: 1m, max_upscale_factor: 3}}
  update_strategy: {{max_surge: 0}}
"""


def test_values_as_the_system_reads_them(read) -> None:
    """Durations are seconds; a quantity is text as it was written, also where it was written as a number."""
    [api] = read(WRITTEN).apis
    assert api.predictor.python_path == "src/"
    assert api.predictor.server_side_batching == ServerSideBatching(max_batch_size=16, batch_interval=3600.0005)
    assert (api.networking.endpoint, api.networking.max_body_size) == ("/x/y", "1000")
    assert (api.compute.cpu, api.compute.mem, api.compute.inf) == ("0.5", "1Gi", 1)
    assert (api.autoscaling.window, api.autoscaling.max_upscale_factor) == (60.0, 3.0)
    assert api.update_strategy.max_surge == 0


def test_json_keeps_everything(read) -> None:
    """A worker reads from JSON exactly the spec that was written to it, infinities included."""
    [api] = read(WRITTEN).apis
    text = api.model_dump_json()
    again = APISpec.model_validate_json(text)
    assert again.model_dump_json() == text
    assert again.model_copy(update={"predictor": None}) == api.model_copy(update={"predictor": None})
    assert str(again.predictor) == str(api.predictor)  # as text, because NaN is not equal to itself


def test_what_the_user_wrote_can_be_told_from_what_was_filled_in(read) -> None:
    """`model_fields_set` of a section has the user's keys alone, so that an environment can name what it ignores."""
    [api] = read(WRITTEN).apis
    assert api.autoscaling.model_fields_set == {"window", "max_upscale_factor"}
    assert api.networking.model_fields_set == {"endpoint", "local_port", "max_body_size"}
    [small] = read(f"{HEAD}    model_path: m\n").apis
    assert not small.networking.model_fields_set | small.autoscaling.model_fields_set


def test_a_spec_cannot_be_changed(read) -> None:
    """A spec is a value."""
    [api] = read(WRITTEN).apis
    with pytest.raises(ValueError, match="frozen"):
        api.name = "b"


PLACES = [
    ("model_path: m", "predictor.models[0].path", "5: a: predictor.model_path"),
    ("model_path: m", "predictor.model_path", "5: a: predictor.model_path"),
    ("models:\n    - {name: a, model_path: m}\n    - name: b\n      model_path: n", "predictor.models[1].path",
     "8: a: predictor.models[1].model_path"),
    ("models:\n      paths:\n      - name: a\n        model_path: m", "predictor.models[0].path",
     "8: a: predictor.models.paths[0].model_path"),
    ("models:\n      dir: m", "predictor.models_dir", "6: a: predictor.models.dir"),
    ("models:\n      dir: m", "predictor.models.dir", "6: a: predictor.models.dir"),
    ("models:\n      dir: m", "predictor.models[3].path", "6: a: predictor.models.dir"),
    ("model_path: m", "compute.inf", "1: a: compute.inf"),
    ("model_path: m", "predictor.engine", "2: a: predictor.engine"),
    ("model_path: m", "", "1: a"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "path", "expected"), PLACES)
def test_where_a_value_was_written(read, written: str, path: str, expected: str) -> None:
    """Whoever finds a fault later (a model that is not there) can say where the user has to look."""
    assert read(f"{HEAD}    {written}\n").where("a", path) == f"cortex.yaml:{expected}"


def test_where_in_the_second_api(read) -> None:
    """An API is found by its name."""
    text = "- name: a\n  predictor: {type: python, path: predictor.py}\n"
    assert read(text + text.replace("a\n", "b\n")).where("b", "predictor.path") == "cortex.yaml:4: b: predictor.path"
