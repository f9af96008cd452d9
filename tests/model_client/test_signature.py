"""Which signature of a model is called, and how its inputs are described."""

import pytest

from cortex.errors import UserError
from cortex.model_client.signature import Input, choose_signature
from cortex.protos import meta_graph_pb2, types_pb2


def definitions(*keys):
    found = {}
    for key in keys:
        found[key] = meta_graph_pb2.SignatureDef()
        if not key.startswith("__"):
            found[key].inputs["x"].dtype = types_pb2.DT_FLOAT
    return found


@pytest.mark.parametrize(
    ("keys", "configured", "chosen"),
    [
        (["a"], None, "a"),
        (["a", "predict"], None, "predict"),
        (["a", "predict", "serving_default"], None, "predict"),
        (["serve", "serving_default"], None, "serving_default"),
        (["a", "b"], "b", "b"),
        (["serving_default", "__saved_model_init_op"], None, "serving_default"),
    ],
)
def test_choice(keys, configured, chosen):
    """The configured one, else the only one that can be called, else ``predict``, else TF Serving's own."""
    assert choose_signature(definitions(*keys), configured, "m").key == chosen


@pytest.mark.parametrize(
    ("keys", "configured", "message"),
    [
        (
            ["a", "b"],
            "x",
            "signature_key 'x' was not found in signature def map for model 'm', "
            "but found the following keys: 'a', 'b'",
        ),
        (
            ["a"],
            "x",
            "signature_key 'x' was not found in signature def map for model 'm', but found the following key: 'a'",
        ),
        (
            ["a", "b"],
            None,
            "signature_key was not configured by user, please specify one the following keys 'a, b' "
            "for model 'm' (found in the signature def map)",
        ),
        (["__saved_model_init_op"], None, "unable to find signature defs in model 'm'"),
        ([], None, "unable to find signature defs in model 'm'"),
    ],
)
def test_refusals(keys, configured, message):
    """What cannot be chosen is refused in Cortex's words."""
    with pytest.raises(UserError) as caught:
        choose_signature(definitions(*keys), configured, "m")
    assert str(caught.value) == message


def test_a_signature_without_inputs_is_refused():
    """A signature that takes nothing cannot be called by name of its inputs."""
    with pytest.raises(UserError, match="unable to find 'inputs' in signature def 'a' for model 'm'"):
        choose_signature({"a": meta_graph_pb2.SignatureDef()}, None, "m")


@pytest.mark.parametrize(
    ("shape", "described", "expectation"),
    [
        ((-1, 224, 3), [-1, 224, 3], "expected shape [-1, 224, 3]"),
        ((), ["scalar"], "expected to be a scalar"),
        (None, ["unknown"], "can be of any rank and shape"),
    ],
)
def test_description(shape, described, expectation):
    """Shapes are shown as Cortex 0.20 showed them."""
    tensor = Input(types_pb2.DT_FLOAT, shape)
    assert tensor.describe() == {"shape": described, "type": "float32"}
    assert tensor.expectation == expectation
