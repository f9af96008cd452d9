"""numpy arrays to TensorProto and back."""

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
    proto.tensor_shape.dim.add(size=8)
    with pytest.raises(ValueError, match="repeats a few values to 33554432 elements, more than 16777216"):
        tensors.to_array(proto)
