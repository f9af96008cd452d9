"""numpy arrays to TensorProto and back."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cortex import tensors
from cortex.protos import tensor_pb2, types_pb2

FIELDS = {
    np.float32: "float_val",
    np.float64: "double_val",
    np.int32: "int_val",
    np.uint8: "int_val",
    np.int64: "int64_val",
    np.bool_: "bool_val",
    np.float16: "half_val",
    ml_dtypes.bfloat16: "half_val",
    np.complex64: "scomplex_val",
    np.complex128: "dcomplex_val",
}


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("count", [0, 1, 15, 16, 31, 32, 2047, 2048, 300_000])
def test_typed_values_stand_in_their_field(kind: type, count: int) -> None:
    """Each value is in the field of its dtype, at every length of the field's header, and comes back unchanged."""
    array = (np.arange(count) % 101).astype(kind).reshape(count, 1)
    proto = tensors.to_proto(array, typed=True)
    per_value = 2 if np.dtype(kind).kind == "c" else 1
    assert len(getattr(proto, FIELDS[kind])) == count * per_value
    assert not proto.tensor_content
    back = tensors.to_array(type(proto).FromString(proto.SerializeToString()))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_typed_decimals_keep_every_bit() -> None:
    """NaN with its sign, infinities, subnormals and negative zero are the same bytes afterwards."""
    array = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38], np.float32)
    back = tensors.to_array(tensors.to_proto(array, typed=True))
    assert back.tobytes() == array.tobytes()
    assert list(tensors.to_proto(array[2:], typed=True).float_val) == array[2:].tolist()


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0]])
def test_a_few_values_do_not_take_all_memory(values: list[float]) -> None:
    """A shape repeats them, or the zero that none stands for, to some millions and no more."""
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=values)
    proto.tensor_shape.dim.add(size=2**22)
    assert tensors.to_array(proto)[-1] == sum(values[-1:])
    assert tensors.to_array(proto)[: len(values)].tolist() == values
    proto.tensor_shape.dim.add(size=8)
    with pytest.raises(ValueError, match="repeats a few values to 33554432 elements, more than 16777216"):
        tensors.to_array(proto)


def _proto(dtype: int, *sizes: int, unknown_rank: bool = False, **values: Any) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=dtype, **values)
    proto.tensor_shape.unknown_rank = unknown_rank
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "text"),
    [
        (_proto(types_pb2.DT_FLOAT, unknown_rank=True, float_val=[1]), "tensor has a shape of unknown rank"),
        (_proto(types_pb2.DT_FLOAT, -1, float_val=[1]), r"tensor shape \[-1\] has a negative dimension"),
        (_proto(types_pb2.DT_FLOAT, *[1] * 33, float_val=[1]), "tensor has 33 dimensions, more than 32"),
        (_proto(types_pb2.DT_FLOAT, 2**29, float_val=[1]), r"\[536870912\] announces more than 2147483647 bytes"),
        (_proto(types_pb2.DT_FLOAT, 2, tensor_content=b"1234"), "tensor_content has 4 bytes, but shape .* needs 8"),
        (_proto(types_pb2.DT_STRING, tensor_content=b"a"), "string tensors must use string_val, not tensor_content"),
        (_proto(types_pb2.DT_FLOAT, 2, float_val=[1, 2, 3]), r"float_val has 3 values, but shape \[2\] holds only 2"),
        (_proto(types_pb2.DT_RESOURCE), "tensor dtype DT_RESOURCE is not supported"),
        (_proto(99), "tensor dtype 99 is not supported"),
    ],
)
def test_what_is_no_tensor(proto: tensor_pb2.TensorProto, text: str) -> None:
    """A shape, a length and a type that do not hold together are told apart."""
    with pytest.raises(ValueError, match=text):
        tensors.to_array(proto)


def test_a_tensor_of_as_many_dimensions_as_there_can_be() -> None:
    """32 are taken: it is more that numpy could not hold."""
    assert tensors.to_array(_proto(types_pb2.DT_FLOAT, *[1] * 32, float_val=[5])).item() == 5


def test_an_array_that_is_no_tensor() -> None:
    """TensorFlow has no dates: the array is named by its type, before anything is written."""
    with pytest.raises(ValueError, match=r"numpy dtype datetime64\[D\] has no TensorFlow dtype"):
        tensors.to_proto(np.array(["2020-01-01"], "datetime64[D]"))
