"""PredictionService and ModelService, asked by a client of TF Serving's stubs, on every engine."""

import time
from typing import Any

import grpc
import numpy as np
import pytest

from cortex.protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    predict_pb2,
    types_pb2,
)
from tests.model_server.harness import Server, arrays, failure, predict_request

ZETA = np.array([[1, 2, 3, 4], [0, 0, 0, 1]], np.float32)
ALPHA = np.ones((2, 3), np.float32)
PRODUCT = ZETA @ np.arange(12, dtype=np.float32).reshape(4, 3)
TWO = {"zeta": ZETA, "alpha": ALPHA}
X = {"x": np.ones((1, 1), np.float32)}


def test_inputs_and_outputs_go_by_name(server: Server) -> None:
    """Two inputs whose order is not alphabetical, and three outputs, meet by name."""
    got = arrays(server.prediction.Predict(predict_request("two_inputs", TWO)))
    np.testing.assert_allclose(got["sum"], PRODUCT + ALPHA)
    np.testing.assert_allclose(got["difference"], PRODUCT - ALPHA)
    np.testing.assert_array_equal(got["class"], PRODUCT.argmax(1))
    assert got["class"].dtype == np.int32


def test_the_model_spec_is_echoed_resolved(server: Server) -> None:
    """The answer names the model, the version and the signature that answered."""
    spec = server.prediction.Predict(predict_request("two_inputs", TWO)).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("two_inputs", 1, "serving_default")


def test_another_signature(server: Server) -> None:
    """A signature that is not the default one is served too."""
    response = server.prediction.Predict(predict_request("two_inputs", {"q": ZETA}, signature_name="doubled"))
    np.testing.assert_allclose(arrays(response)["doubled"], PRODUCT * 2)
    assert response.model_spec.signature_name == "doubled"


def test_outputs_are_typed_fields(server: Server) -> None:
    """Values come in float_val, not in tensor_content, unless the flag asks for it."""
    output = server.prediction.Predict(predict_request("half_plus", X)).outputs["y"]
    assert list(output.float_val) == [3.5]
    assert output.tensor_content == b""


def test_both_encodings_and_broadcasting_come_in(server: Server) -> None:
    """An input is raw content, a value each, or one value for all."""
    for values in (None, [1.0, 2.0], [3.0]):
        request = predict_request("half_plus", {"x": np.array([[1], [2]], np.float32)})
        if values:
            request.inputs["x"].ClearField("tensor_content")
            request.inputs["x"].float_val.extend(values)
        want = np.array([values or [1.0, 2.0]], np.float32).T / 2 + 3
        np.testing.assert_allclose(arrays(server.prediction.Predict(request))["y"], np.broadcast_to(want, (2, 1)))


def test_a_rank_one_tensor_is_accepted_where_a_column_is_declared(server: Server) -> None:
    """TF Serving's clients send [n] for an input declared [-1, 1]."""
    got = arrays(server.prediction.Predict(predict_request("half_plus", {"x": np.array([1, 2], np.float32)})))["y"]
    assert got.ravel().tolist() == [3.5, 4.0]


def test_every_dtype_comes_back_as_it_is(server: Server) -> None:
    """float32, int32, uint8, bool and float16 keep their dtype."""
    sent = {
        "f": np.array([1.5], np.float32),
        "i": np.array([-7], np.int32),
        "u": np.array([7], np.uint8),
        "b": np.array([True]),
        "h": np.array([0.5], np.float16),
    }
    got = arrays(server.prediction.Predict(predict_request("types", sent)))
    assert {name: (array.dtype.name, array.tolist()) for name, array in got.items()} == {
        "f": ("float32", [2.5]),
        "i": ("int32", [-6]),
        "u": ("uint8", [8]),
        "b": ("bool", [False]),
        "h": ("float16", [1.5]),
    }


def test_int64_and_strings(reference: Server) -> None:
    """int64 beyond 32 bits, strings, a lookup table from an asset: what only TensorFlow runs."""
    words = np.array([b"dog", b"\xff", "é".encode()], np.object_)
    sent = {"word": words, "number": np.array([2**40, -1, 5], np.int64)}
    got = arrays(reference.prediction.Predict(predict_request("mixed", sent)))
    assert got["id"].tolist() == [1, -1, -1]
    assert got["next"].tolist() == [2**40 + 1, 0, 6]
    assert got["text"].tolist() == [b"dog!", b"\xff!", "é!".encode()]


def test_output_filter(server: Server) -> None:
    """Only the outputs asked for come back."""
    response = server.prediction.Predict(predict_request("two_inputs", TWO, ["sum"]))
    assert set(response.outputs) == {"sum"}


def test_large_messages_have_no_cap(server: Server) -> None:
    """gRPC's 4 MB limit does not hold in either direction."""
    rows = np.ones((2_000_000, 1), np.float32)
    assert arrays(server.prediction.Predict(predict_request("half_plus", {"x": rows})))["y"].shape == rows.shape


def _spoiled(**fields: Any) -> predict_pb2.PredictRequest:
    request = predict_request("half_plus", {"x": np.ones((1, 1), np.float32)})
    for name, value in fields.items():
        if name == "dim":
            request.inputs["x"].tensor_shape.dim[0].size = value
        else:
            setattr(request.inputs["x"], name, value)
    return request


INVALID, PRECONDITION, MISSING = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
)
REFUSED = [
    (predict_pb2.PredictRequest(), INVALID, "Missing ModelSpec"),
    (predict_request("", X), INVALID, "ModelSpec has no name specified."),
    (predict_request("nope", X), MISSING, "Servable not found for request: Latest(nope)"),
    (predict_request("half_plus", X, version=9), MISSING, "Servable not found for request: Specific(half_plus, 9)"),
    (predict_request("half_plus", X, version_label="l"), INVALID, "Unrecognized servable version label: l"),
    (predict_request("half_plus", X, signature_name="s"), PRECONDITION, 'Serving signature key "s" not found.'),
    (
        predict_request("two_inputs", TWO, signature_name="__saved_model_init_op"),
        PRECONDITION,
        'Serving signature key "__saved_model_init_op" not found.',
    ),
    (
        predict_request("two_inputs", {}),
        INVALID,
        "input size does not match signature: 0!=2 len({}) != len({alpha,zeta}). "
        "Sent extra: {}. Missing but required: {alpha,zeta}.",
    ),
    (
        predict_request("two_inputs", TWO | {"beta": ALPHA}),
        INVALID,
        "input size does not match signature: 3!=2 len({alpha,beta,zeta}) != len({alpha,zeta}). "
        "Sent extra: {beta}. Missing but required: {}.",
    ),
    (
        predict_request("half_plus", {"z": [[1.0]]}),
        INVALID,
        "input tensor alias not found in signature: z. Inputs expected to be in the set {x}.",
    ),
    (
        predict_request("half_plus", X, ["q"]),
        INVALID,
        "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
    ),
    (predict_request("half_plus", X, ["y", "y"]), INVALID, "duplicate output tensor alias: y"),
    (
        predict_request("half_plus", {"x": np.ones((1, 1))}),
        INVALID,
        "Expects arg[0] to be float but double is provided",
    ),
    (_spoiled(dtype=999), INVALID, "Expects arg[0] to be float but unknown dtype enum (999) is provided"),
    (_spoiled(dtype=types_pb2.DT_RESOURCE), INVALID, "Expects arg[0] to be float but resource is provided"),
    (_spoiled(dim=-5), INVALID, "negative dimension"),
    (_spoiled(dim=2**40), INVALID, "announces more than"),
    (_spoiled(dim=3), INVALID, "tensor_content has 4 bytes"),
    (_spoiled(tensor_content=b"123"), INVALID, "tensor_content has 3 bytes"),
]


@pytest.mark.parametrize(("request_", "code", "text"), REFUSED, ids=[text[:40] for _, _, text in REFUSED])
def test_refusals_have_tf_servings_code_and_text(
    server: Server, request_: predict_pb2.PredictRequest, code: grpc.StatusCode, text: str
) -> None:
    """A request that cannot be answered ends in TF Serving's code and text, and the next one is answered."""
    got_code, got_text = failure(server.prediction.Predict, request_)
    assert got_code is code
    assert text in got_text
    assert server.prediction.Predict(predict_request("half_plus", X)).outputs["y"].float_val == [3.5]


@pytest.mark.parametrize("shape", [(1, 5), (4, 1, 1), (2, 2, 2), (), (3,)])
def test_a_shape_the_model_refuses_is_an_invalid_argument(server: Server, shape: tuple[int, ...]) -> None:
    """An input of another shape is refused by every engine with INVALID_ARGUMENT."""
    sent = {"zeta": np.ones(shape, np.float32), "alpha": ALPHA}
    code, _ = failure(server.prediction.Predict, predict_request("two_inputs", sent))
    assert code is INVALID


@pytest.mark.parametrize(("letter", "size"), [("n", 1024), ("\U0001f600", 1023)])
def test_long_texts_are_cut(server: Server, letter: str, size: int) -> None:
    """A message is at most 1024 bytes, and says when it was cut; in any alphabet it is not too long for gRPC."""
    code, text = failure(server.prediction.Predict, predict_request(letter * 1000, X))
    assert code is grpc.StatusCode.NOT_FOUND
    assert len(text.encode()) == size + len("...TRUNCATED")
    assert text.endswith("...TRUNCATED")


def test_a_deadline_may_be_weeks_away(server: Server) -> None:
    """A deadline that is far off is none that an engine could stumble over."""
    answer = server.prediction.Predict(predict_request("half_plus", X), timeout=2_500_000)
    assert arrays(answer)["y"].item() == 3.5


def test_a_deadline_is_kept(server: Server) -> None:
    """A run that outlives its deadline ends in DEADLINE_EXCEEDED, and the server goes on."""
    rows = np.ones((4000, 800), np.float32)
    started = time.monotonic()
    code, _ = failure(server.prediction.Predict, predict_request("slow", {"x": rows}), timeout=0.1)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 5
    assert server.prediction.Predict(predict_request("slow", {"x": rows[:1]}), timeout=30).outputs["y"].float_val


def test_metadata_is_the_signatures(server: Server) -> None:
    """GetModelMetadata packs every signature; its own signature_name is empty."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "two_inputs"
    response = server.prediction.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "doubled"} <= set(signatures.signature_def)
    zeta = signatures.signature_def["serving_default"].inputs["zeta"]
    assert [dim.size for dim in zeta.tensor_shape.dim] == [-1, 4]
    assert (response.model_spec.name, response.model_spec.version.value) == ("two_inputs", 1)
    assert response.model_spec.signature_name == ""


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["signature_def", "x"], "Metadata field x is not supported"),
    ],
)
def test_other_metadata_is_refused(server: Server, fields: list[str], text: str) -> None:
    """Only the field signature_def exists."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    assert failure(server.prediction.GetModelMetadata, request) == (INVALID, text)


def _status_request(name: str, version: int | None = None) -> get_model_status_pb2.GetModelStatusRequest:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


def test_status(server: Server) -> None:
    """GetModelStatus tells the state of all versions, or of one."""
    for version in (None, 2):
        (entry,) = server.model.GetModelStatus(_status_request("half_plus", version)).model_version_status
        assert (entry.version, entry.state, entry.status.error_code) == (2, 30, 0)


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (get_model_status_pb2.GetModelStatusRequest(), INVALID, "Missing ModelSpec"),
        (_status_request("nope"), MISSING, "Could not find any versions of model nope"),
        (_status_request("half_plus", 9), MISSING, "Could not find version 9 of model half_plus"),
    ],
)
def test_status_of_what_is_not_there(
    server: Server, request_: get_model_status_pb2.GetModelStatusRequest, code: grpc.StatusCode, text: str
) -> None:
    """A model or version that is unknown is NOT_FOUND."""
    assert failure(server.model.GetModelStatus, request_) == (code, text)


def test_only_a_list_of_models_can_be_reloaded(server: Server) -> None:
    """A config of another kind is refused."""
    text = "type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    request = model_management_pb2.ReloadConfigRequest()
    assert failure(server.model.HandleReloadConfigRequest, request) == (INVALID, f"ServerModelConfig {text}")


def test_a_path_that_no_file_system_knows_is_refused(server: Server) -> None:
    """A null character in a base path is an error of the request, and changes nothing."""
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="m", base_path="/a\0b", model_platform="tensorflow")
    text = "Model m has a path with a null character in it, which no file system knows"
    assert failure(server.model.HandleReloadConfigRequest, request) == (INVALID, text)
    assert server.prediction.Predict(predict_request("half_plus", X)).model_spec.version.value == 2


def test_bytes_that_are_no_message_are_refused(server: Server) -> None:
    """Garbage instead of a request ends in a status."""
    call = server.channel().unary_unary("/tensorflow.serving.PredictionService/Predict")
    code, _ = failure(call, b"\xff" * 100)
    assert code is not grpc.StatusCode.OK
    assert server.prediction.Predict(predict_request("half_plus", X)).outputs["y"].float_val == [3.5]
