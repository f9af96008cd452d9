"""TensorFlowClient against a model server that echoes its inputs."""

import json

import grpc
import numpy as np
import pytest

from cortex.errors import NotStarted, UserError
from cortex.model_client import TensorFlowClient
from cortex.protos import predict_pb2, types_pb2
from cortex.spec import SINGLE_MODEL, Model

F32, I32, I64, STR, U8 = (
    types_pb2.DT_FLOAT,
    types_pb2.DT_INT32,
    types_pb2.DT_INT64,
    types_pb2.DT_STRING,
    types_pb2.DT_UINT8,
)
ONE = {SINGLE_MODEL: {"versions": {"1": "AVAILABLE"}, "signatures": {"serving_default": {"x": [F32, [-1, 2]]}}}}
MANY = {
    "mixed": {
        "versions": {"3": "AVAILABLE", "12": "AVAILABLE"},
        "signatures": {
            "predict": {"ids": [I64, [-1]], "names": [STR, [-1]], "scale": [F32, []], "any": [F32, None]},
            "other": {"x": [F32, [-1]]},
        },
    },
    "bytes": {"versions": {"1": "AVAILABLE"}, "signatures": {"predict": {"image": [U8, [-1]]}}},
    "failing": {"versions": {"1": "AVAILABLE"}, "signatures": {"predict": {"fail": [I32, [-1]]}}},
    "large": {"versions": {"1": "AVAILABLE"}, "signatures": {"predict": {"x": [F32, [-1]]}}},
}
GOOD = {"ids": [2**60, 2], "names": ["a", b"\xff"], "scale": 2, "any": [[1, 2]]}


def connect(address, *names, progress=lambda line: None):
    return TensorFlowClient.connect(
        address, tuple(Model(name=name, path=f"/models/{name}") for name in names), progress
    )


@pytest.fixture(scope="module")
def single(start_model_server):
    client = connect(start_model_server(ONE), SINGLE_MODEL)
    yield client
    client.close()


@pytest.fixture(scope="module", params=["typed", "content"])
def many(start_model_server, request):
    client = connect(start_model_server(MANY, request.param), *MANY)
    yield client
    client.close()


def test_outputs_are_flat_lists(single):
    """The batch dimension and all others are gone, whatever the input's shape was."""
    assert single.predict({"x": np.array([[1, 2], [3, 4]], np.uint8)})["x"] == [1.0, 2.0, 3.0, 4.0]


def test_rank_is_not_checked(single):
    """A scalar for an input declared [-1, 2] reaches the model server, which decides."""
    assert single.predict({"x": 5})["x"] == [5.0]


def test_cortexs_types(many):
    """int64 comes back as strings, strings as base64."""
    answer = many.predict(GOOD, "mixed")
    assert answer["ids"] == [str(2**60), "2"]
    assert answer["names"] == ["YQ==", "/w=="]
    assert answer["scale"] == [2.0]


def test_arrays_keep_shape_and_type(many):
    """predict_numpy returns what the model computed: shapes, dtypes, bytes."""
    answer = many.predict_numpy(GOOD, "mixed")
    assert answer["any"].shape == (1, 2)
    assert answer["ids"].dtype == np.int64
    assert answer["ids"].tolist() == [2**60, 2]
    assert answer["names"].tolist() == [b"a", b"\xff"]
    assert many.predict_numpy({"image": [7]}, "bytes")["image"].dtype == np.uint8


def test_a_type_without_a_list_is_a_key_error(many):
    """uint8 has no list in Cortex."""
    with pytest.raises(KeyError, match="predict_numpy"):
        many.predict({"image": [1]}, "bytes")


def test_no_size_cap(many):
    """Tensors of more than gRPC's usual 4 MB pass both ways."""
    image = np.random.default_rng(0).random(3_000_000, np.float32)
    assert np.array_equal(many.predict_numpy({"x": image}, "large")["x"], image)


@pytest.mark.parametrize(("version", "sent"), [("latest", 12), ("3", 3), ("12", 12)])
def test_versions(many, version, sent):
    """The latest is the highest; a numeric string names one."""
    assert many.predict(GOOD, "mixed", version)["asked_version"] == [sent]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GOOD,), "model_name was not specified, choose one of the following: ['mixed', 'bytes', 'failing', 'large']"),
        (
            (GOOD, "x"),
            "'x' model wasn't found in the list of available models: ['mixed', 'bytes', 'failing', 'large']",
        ),
        ((GOOD, "mixed", "4"), "model 'mixed' has no version '4', choose one of the following: ['3', '12']"),
        ((GOOD, "mixed", "newest"), "model_version must be either a parse-able numeric value or 'latest'"),
        ((GOOD, "mixed", 3), "model_version must be either a parse-able numeric value or 'latest'"),
        (({}, "mixed"), "missing key 'any' for model 'mixed'"),
        (([1], "mixed"), "missing key 'any' for model 'mixed'"),
        (
            ({**GOOD, "ids": [1.5]}, "mixed"),
            "key \"ids\": expected shape [-1]: Expected int64, but got 1.5 of type 'float'.",
        ),
        (
            ({**GOOD, "scale": "a"}, "mixed"),
            "key \"scale\": expected to be a scalar: Expected float32, but got a of type 'str'.",
        ),
        (({**GOOD, "any": None}, "mixed"), 'key "any": can be of any rank and shape: None values not supported.'),
    ],
)
def test_refusals(many, arguments, message):
    """What cannot be sent is refused in Cortex's words."""
    with pytest.raises(UserError) as caught:
        many.predict(*arguments)
    assert str(caught.value) == message


def test_an_unknown_input_is_a_key_error(single):
    """An input that the signature does not have is a bare KeyError, as in Cortex."""
    with pytest.raises(KeyError, match=r"^'y'$"):
        single.predict({"x": [1, 2], "y": 1})


def test_a_single_model_ignores_the_name(single):
    """Without named models there is nothing to choose."""
    assert single.predict({"x": [1, 2]}, "whatever")["x"] == [1.0, 2.0]


def test_the_models_own_error_passes_through(many):
    """What the model server refuses is the RpcError it sent."""
    with pytest.raises(grpc.RpcError, match="the model said no"):
        many.predict({"fail": [1]}, "failing")


def test_descriptions(many, single):
    """Signatures and metadata have Cortex's form and survive JSON."""
    assert single.input_signatures == {SINGLE_MODEL: {"x": {"shape": [-1, 2], "type": "float32"}}}
    assert many.input_signatures["mixed"] == {
        "ids": {"shape": [-1], "type": "int64"},
        "names": {"shape": [-1], "type": "string"},
        "scale": {"shape": ["scalar"], "type": "float32"},
        "any": {"shape": ["unknown"], "type": "float32"},
    }
    metadata = json.loads(json.dumps(many.metadata))
    assert set(metadata) == {"mixed-3", "mixed-12", "bytes-1", "failing-1", "large-1"}
    assert metadata["mixed-3"]["disk_path"] == "/models/mixed/3"
    assert metadata["mixed-3"]["signature_key"] == "predict"
    assert set(metadata["mixed-3"]["signature_def"]) == {"predict", "other"}


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ('{"engine": "openvino", "threads": 2}', {"engine": "openvino", "threads": 2}),
        (None, {}),
        ("not JSON", {}),
        ("[1]", {}),
    ],
)
def test_what_runs_a_model_is_told_when_the_model_server_tells_it(start_model_server, sent, told):
    """Our own model server says what runs a version; another one says nothing, and that is no error."""
    config = {"m": {**MANY["large"], "versions": {"1": "AVAILABLE"}, "runtime": sent}}
    client = connect(start_model_server(config), "m")
    assert client.metadata["m-1"]["runtime"] == told
    client.close()


def test_stub(single):
    """The stub of the PredictionService is there for what the client does not do."""
    request = predict_pb2.PredictRequest()
    assert single.stub.Predict(request, timeout=10).outputs["asked_version"].int_val == [0]


def test_waits_until_the_models_are_loaded(start_model_server):
    """connect returns once every model is available, and says what it waits for until then."""
    lines = []
    slow = {"slow": {**MANY["bytes"], "versions": {"1": "LOADING:0.7"}}}
    client = connect(start_model_server(slow), "slow", progress=lines.append)
    assert lines[0] == "waiting for the model server"
    assert lines[-1] == "model(s) still loading: slow"
    assert client.healthy()
    client.close()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**MANY["bytes"], "versions": {"1": "END:the graph is broken"}}, "version 1: the graph is broken"),
        ({**MANY["bytes"], "signatures": {"a": {"x": [F32, []]}, "b": {"x": [F32, []]}}}, "please specify one"),
    ],
)
def test_gives_up_on_a_model_that_cannot_serve(start_model_server, config, message):
    """A model that failed to load, or lacks the signature, ends the wait with the reason."""
    with pytest.raises((NotStarted, UserError), match=message):
        connect(start_model_server({"m": config}), "m")


def test_a_broken_version_does_not_hide_a_good_one(start_model_server):
    """What is available is served, even when another version of the same model failed."""
    config = {"m": {**MANY["large"], "versions": {"1": "AVAILABLE", "2": "END:broken"}}}
    client = connect(start_model_server(config), "m")
    assert client.predict({"x": [1]}, "m")["x"] == [1.0]
    assert set(client.metadata) == {"m-1"}
    client.close()


def test_a_version_that_was_given_up_is_not_described(start_model_server, tmp_path):
    """The model server, which may have started again since, is asked what it serves."""
    config = {"m": {**MANY["large"], "versions": {"1": "AVAILABLE", "2": f"UNTIL:{tmp_path / 'gone'}"}}}
    client = connect(start_model_server(config), "m")
    assert set(client.metadata) == {"m-1", "m-2"}
    (tmp_path / "gone").touch()
    assert set(client.metadata) == {"m-1"}
    assert client.input_signatures == {"m": {"x": {"shape": [-1], "type": "float32"}}}
    client.close()


def test_the_version_before_one_that_was_given_up_is_asked_by_its_own_signature(start_model_server, tmp_path):
    """The latest is the highest that is served now, and may be called in another way; a number means itself."""
    versions = {"1": "AVAILABLE", "2": f"UNTIL:{tmp_path / 'gone'}"}
    old = {"serving_default": {"x": [U8, [-1]]}}
    config = {"m": {**MANY["large"], "versions": versions, "other_signatures": {"1": old}}}
    client = connect(start_model_server(config), "m")
    assert client.predict_numpy({"x": np.array([1.0])}, "m")["x"].dtype == np.float32
    (tmp_path / "gone").touch()
    answer = client.predict_numpy({"x": np.array([1.0])}, "m")
    assert (answer["asked_version"].tolist(), answer["x"].dtype) == ([1], np.uint8)
    with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Specific\(m, 2\)"):
        client.predict({"x": [1]}, "m", "2")
    client.close()


def test_a_client_whose_models_were_all_given_up_is_not_healthy(start_model_server, tmp_path):
    """Whoever asks whether to send requests is told not to: none could be answered."""
    config = {"m": {**MANY["large"], "versions": {"1": f"UNTIL:{tmp_path / 'gone'}"}}}
    client = connect(start_model_server(config), "m")
    assert client.healthy()
    (tmp_path / "gone").touch()
    assert not client.healthy()
    assert (client.metadata, client.input_signatures) == ({}, {})
    with pytest.raises(grpc.RpcError, match="Servable not found for request"):
        client.predict({"x": [1]}, "m")
    client.close()


@pytest.mark.parametrize("signature_key", [None, "predict"])
def test_an_old_version_without_the_signature_is_left_out(start_model_server, caplog, signature_key):
    """The highest version decides: a lower one that cannot be called as it is only costs itself, with a warning."""
    versions = {"1": "AVAILABLE", "2": "AVAILABLE", "10": "AVAILABLE"}
    old = {"a": {"x": [F32, [-1]]}, "b": {"x": [F32, [-1]]}}
    config = {"m": {**MANY["large"], "versions": versions, "other_signatures": {"1": old}}}
    models = (Model(name="m", path="/models/m", signature_key=signature_key),)
    client = TensorFlowClient.connect(start_model_server(config), models, lambda line: None)
    assert set(client.metadata) == {"m-2", "m-10"}
    assert client.predict({"x": [1]}, "m")["x"] == [1.0]
    assert "model 'm' is served without one of its versions: version 1: signature_key" in caplog.text
    client.close()


def test_the_highest_version_must_have_the_signature(start_model_server):
    """What would answer cannot be called: that is told, with the version that it is about."""
    old, new = MANY["large"]["signatures"], {"a": {"x": [F32, []]}, "b": {"x": [F32, []]}}
    versions = {"1": "AVAILABLE", "2": "AVAILABLE"}
    config = {"m": {"versions": versions, "signatures": old, "other_signatures": {"2": new}}}
    with pytest.raises(UserError, match=r"^version 2: signature_key was not configured by user"):
        connect(start_model_server(config), "m")
