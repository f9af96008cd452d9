"""A request against a signature."""

import numpy as np
import pytest

from cortex import tensors
from cortex.model_server import call
from cortex.model_server.status import StatusError
from cortex.protos import meta_graph_pb2, types_pb2
from tests.model_server.harness import predict_request

X = np.array([1.0, 2.0], np.float32)


@pytest.fixture
def signatures() -> dict[str, meta_graph_pb2.SignatureDef]:
    """What TensorFlow writes of ``def scaled(x, by=tf.constant(3.0))``."""
    signature = meta_graph_pb2.SignatureDef()
    for alias in ("x", "by"):
        signature.inputs[alias].name = f"serving_default_{alias}:0"
        signature.inputs[alias].dtype = types_pb2.DT_FLOAT
    signature.outputs["y"].dtype = types_pb2.DT_FLOAT
    signature.defaults["by"].CopyFrom(tensors.to_proto(np.array(3.0, np.float32)))
    return {"serving_default": signature}


@pytest.mark.parametrize(("sent", "want"), [({}, 3.0), ({"by": np.array(5.0, np.float32)}, 5.0)])
def test_an_input_with_a_default_may_be_left_out(
    signatures: dict[str, meta_graph_pb2.SignatureDef], sent: dict[str, object], want: float
) -> None:
    """As in TF Serving; what is sent counts."""
    found = call.parse(signatures, predict_request("m", {"x": X, **sent}))
    assert sorted(found.inputs) == ["by", "x"]
    assert found.inputs["by"] == want
    assert found.inputs["x"].tolist() == X.tolist()


@pytest.mark.parametrize(
    ("aliases", "text"),
    [
        (
            ["by"],
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value "
            "provided. Inputs expected to be in the request {by}, or default input alias set: by",
        ),
        (["z"], "input tensor alias not found in signature: z. Inputs expected to be in the set {by,x}."),
        (["x", "by", "z"], "input size does not match signature: 3!=2 "),
    ],
)
def test_defaults_stand_for_no_other_input(
    signatures: dict[str, meta_graph_pb2.SignatureDef], aliases: list[str], text: str
) -> None:
    """In TF Serving's words."""
    with pytest.raises(StatusError) as caught:
        call.parse(signatures, predict_request("m", dict.fromkeys(aliases, X)))
    assert caught.value.message.startswith(text)
