"""An output becomes the flat list that Cortex read out of protobuf's JSON form."""

import math

import numpy as np
import pytest
from google.protobuf import json_format

from cortex.model_client.outputs import flat_list
from cortex.tensors import to_proto

FIELDS = {
    "float32": "floatVal",
    "float64": "doubleVal",
    "int32": "intVal",
    "int64": "int64Val",
    "bool": "boolVal",
    "object": "stringVal",
    "float16": "halfVal",
    "complex64": "scomplexVal",
    "complex128": "dcomplexVal",
}
ARRAYS = [
    np.array([[0.1, 2.0], [1e30, -3.5]], np.float32),
    np.array([0.1, 1 / 3]),
    np.array([1.0, np.nan, np.inf, -np.inf], np.float32),
    np.array([np.nan, -np.inf]),
    np.array(7.25, np.float32),
    np.array([[1], [2]], np.int32),
    np.array([2**53 + 1, -5], np.int64),
    np.array([True, False]),
    np.array([b"\xff\x00", b"text"], object),
    np.array([1.5, -2.0, np.nan], np.float16),
    np.array([1 + 2j, 3 - 4j], np.complex64),
    np.array([1 + 2j, complex(0, np.inf)], np.complex128),
]


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.size}")
def test_same_as_protobufs_json(array, typed):
    """The list equals the one of MessageToDict, from either encoding of the tensor; float32 to the float32."""
    cortex = json_format.MessageToDict(to_proto(array, typed=True))[FIELDS[str(array.dtype)]]
    mine = flat_list("output", to_proto(array, typed=typed))
    assert [type(value) for value in mine] == [type(value) for value in cortex]
    if array.dtype == np.float32:
        cortex = [value if isinstance(value, str) else float(np.float32(value)) for value in cortex]
    assert mine == cortex


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("typed", [True, False])
def test_other_types_are_a_key_error(dtype, typed):
    """An output of a type that Cortex had no list for is a KeyError that names the way out."""
    with pytest.raises(KeyError, match=f"{dtype}.*predict_numpy"):
        flat_list("output", to_proto(np.array([1], dtype), typed=typed))


@pytest.mark.parametrize("typed", [True, False])
def test_an_empty_output_is_a_key_error(typed):
    """An output without values is a KeyError, because Cortex found no field in it."""
    with pytest.raises(KeyError, match="empty"):
        flat_list("output", to_proto(np.zeros((0, 3), np.float32), typed=typed))


def test_values_are_plain_python():
    """Nothing in a list is a numpy value: user code puts them into JSON."""
    for array in ARRAYS:
        for value in flat_list("output", to_proto(array)):
            assert type(value) in (float, int, bool, str)
            assert not isinstance(value, float) or math.isfinite(value)
