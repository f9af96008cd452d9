"""A value becomes the tensor that TensorFlow's own make_tensor_proto would make of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cortex.model_client.inputs import fill_tensor
from cortex.protos import tensor_pb2, types_pb2
from cortex.tensors import to_array

VALUES = [
    "1",
    "1.5",
    "True",
    "'text'",
    "b'bytes\\0'",
    "None",
    "[]",
    "[[]]",
    "[1, 2]",
    "[1, 2.5]",
    "[True, False]",
    "[True, 2]",
    "[1.0, True]",
    "['a', 'bc']",
    "[['a'], ['b']]",
    "[['a'], ['b', 'c']]",
    "['a', 1]",
    "[b'x', 'y']",
    "[[1, 2], [3]]",
    "[[1, 2], 3]",
    "(1, 2)",
    "[(1, 2), (3, 4)]",
    "[1, None]",
    "[1, 'a']",
    "[300]",
    "[-1]",
    "2**40",
    "2**70",
    "1+2j",
    "[1, 2j]",
    "float('nan')",
    "{'a': 1}",
    "np.array([1, 2], np.uint8)",
    "np.array([[1.7, -2.2]])",
    "np.array(3.5)",
    "np.float32(2.5)",
    "np.int64(7)",
    "np.array(['a', 'bc'])",
    "np.array([b'a', b'bc'])",
    "np.array(['a', 1], object)",
    "np.array([True, False])",
    "np.zeros((2, 0), np.float32)",
    "np.arange(12).reshape(3, 4)[:, ::2]",
    "[np.float32(1), np.float64(2)]",
    "[np.zeros(2, np.float32), np.ones(2, np.float32)]",
    "[np.zeros(2, np.float32), np.ones(3, np.float32)]",
    "[np.int32(3)]",
    "bytearray(b'ab')",
    "memoryview(b'ab')",
    "[[[1]], [[2]]]",
    "range(3)",
    "[np.bool_(True), np.bool_(False)]",
]
MORE_THAN_TENSORFLOW = (
    "[np.zeros(2, np.float32), np.ones(2, np.float32)]",
    "range(3)",
    "[np.bool_(True), np.bool_(False)]",
)
DTYPES = ["float", "double", "half", "bfloat16", "int32", "int64", "uint8", "int8", "uint64", "bool", "string"]
DTYPES += ["complex64"]

REFERENCE = """
import json, sys, warnings
import numpy as np
import tensorflow as tf
values, dtypes = json.load(sys.stdin)
warnings.simplefilter("ignore")
answers = {}
for dtype in dtypes:
    for value in values:
        try:
            proto = tf.compat.v1.make_tensor_proto(eval(value), dtype=tf.dtypes.as_dtype(dtype))
            answers[f"{dtype} {value}"] = proto.SerializeToString().hex()
        except Exception as error:
            answers[f"{dtype} {value}"] = None
print(json.dumps(answers))
"""


def to_tensor(value: Any, dtype: int) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto()
    fill_tensor(proto, value, dtype)
    return proto


@pytest.fixture(scope="module")
def reference():
    answer = subprocess.run(
        [sys.executable, "-c", REFERENCE],
        input=json.dumps([VALUES, DTYPES]),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_as_tensorflow(reference, dtype):
    """Each value is refused exactly where TensorFlow refuses it, and is otherwise the same tensor."""
    number = types_pb2.DataType.Value(f"DT_{dtype.upper()}")
    different = {}
    for value in VALUES:
        expected = reference[f"{dtype} {value}"]
        try:
            mine = to_tensor(eval(value, {"np": np}), number)
        except (TypeError, ValueError, OverflowError) as error:
            if expected is not None:
                different[value] = f"refused: {error}"
            continue
        if expected is None and value in MORE_THAN_TENSORFLOW:
            continue
        if expected is None:
            different[value] = "accepted, but TensorFlow refuses it"
        elif not _equal(to_array(mine), to_array(tensor_pb2.TensorProto.FromString(bytes.fromhex(expected)))):
            different[value] = "another tensor"
    assert different == {}


def _equal(one, other):
    if one.dtype == ml_dtypes.bfloat16:
        one, other = one.view(np.uint16), other.view(np.uint16)
    return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other, equal_nan=_has_nan(one))


def _has_nan(array):
    return array.dtype.kind in "fc"


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        ([1, 2.5], "DT_INT32", "Expected int32, but got 2.5 of type 'float'."),
        (["a"], "DT_FLOAT", "Expected float32, but got a of type 'str'."),
        (None, "DT_FLOAT", "None values not supported."),
        ([1], "DT_STRING", "Expected string, but got 1 of type 'int'."),
        ([[1], [2, 3]], "DT_FLOAT", "inhomogeneous shape"),
        ([1], "DT_QINT8", "tensor dtype DT_QINT8 is not supported"),
    ],
)
def test_refusals_say_what_is_wrong(value, dtype, message):
    """The message names the value and what was expected of it."""
    with pytest.raises((TypeError, ValueError), match=message.replace(".", r"\.")):
        to_tensor(value, types_pb2.DataType.Value(dtype))


def test_a_tensor_stays_as_it_is():
    """A value that is a TensorProto already is sent unchanged, whatever the signature says."""
    proto = to_tensor([1.0], types_pb2.DT_FLOAT)
    assert to_tensor(proto, types_pb2.DT_INT32) == proto
