import json
from typing import Any

import numpy as np
import pytest

from cortex import tensors
from cortex.model_server import json_document, json_examples, json_syntax
from cortex.model_server.codec import Format, decode, format_of
from cortex.model_server.status import Code, StatusError
from cortex.protos import meta_graph_pb2, model_pb2, types_pb2

ONE_INT = {"x": "DT_INT32"}
TWO = {"ints": "DT_INT32", "words": "DT_STRING"}


def _decode(body: str | bytes, inputs: dict[str, str]) -> tuple[dict[str, Any], Format]:
    infos = {name: meta_graph_pb2.TensorInfo(dtype=getattr(types_pb2, kind)) for name, kind in inputs.items()}
    raw = body.encode() if isinstance(body, str) else body
    document = json_document.parse(raw)
    request = decode(document, model_pb2.ModelSpec(name="m"), lambda spec: infos)
    return {name: tensors.to_array(proto) for name, proto in request.inputs.items()}, format_of(document)


@pytest.mark.parametrize(
    ("kind", "value", "want"),
    [
        ("DT_INT32", "[[1,2],[3,4],[5,6]]", np.array([[1, 2], [3, 4], [5, 6]], np.int32)),
        ("DT_FLOAT", "[1, 2.0, -3.5e2]", np.array([1, 2, -350], np.float32)),
        ("DT_FLOAT", "[NaN, Infinity, -Infinity]", np.array([np.nan, np.inf, -np.inf], np.float32)),
        ("DT_FLOAT", "[Inf, -Inf]", np.array([np.inf, -np.inf], np.float32)),
        ("DT_FLOAT", "[-NaN, 1]", np.array([np.nan, 1], np.float32)),
        ("DT_FLOAT", "[16777215]", np.array([16777215], np.float32)),
        ("DT_DOUBLE", "[0.1, 2]", np.array([0.1, 2], np.float64)),
        ("DT_UINT8", "[[0, 255]]", np.array([[0, 255]], np.uint8)),
        ("DT_INT64", "[9223372036854775807]", np.array([2**63 - 1], np.int64)),
        ("DT_UINT64", "[18446744073709551615]", np.array([2**64 - 1], np.uint64)),
        ("DT_BOOL", "[true, false]", np.array([True, False])),
        ("DT_STRING", '["a", {"b64": "aGVsbG8="}, "é"]', np.array([b"a", b"hello", "é".encode()], np.object_)),
        ("DT_STRING", '[{"b64": "aGVsbG8"}]', np.array([b"hello"], np.object_)),
        ("DT_STRING", '["Inf"]', np.array([b"Inf"], np.object_)),
        ("DT_STRING", '["-NaN"]', np.array([b"-NaN"], np.object_)),
        ("DT_INT32", "[[], []]", np.empty((2, 0), np.int32)),
        ("DT_FLOAT", "[100000000000000000000]", np.array([1e20], np.float32)),
    ],
)
@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_plain_values(kind: str, value: str, want: Any, key: str) -> None:
    """One input takes a plain list in either form: every number kind, strings and base64."""
    got, form = _decode(f'{{"{key}": {value}}}', {"x": kind})
    np.testing.assert_array_equal(got["x"], want)
    assert got["x"].dtype == want.dtype
    assert form.value == key


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        ("DT_INT8", -(2**7), 2**7 - 1),
        ("DT_UINT8", 0, 2**8 - 1),
        ("DT_INT16", -(2**15), 2**15 - 1),
        ("DT_INT32", -(2**31), 2**31 - 1),
        ("DT_UINT32", 0, 2**32 - 1),
        ("DT_INT64", -(2**63), 2**63 - 1),
        ("DT_UINT64", 0, 2**64 - 1),
        ("DT_FLOAT", 1 - 2**24, 2**24 - 1),
        ("DT_DOUBLE", 1 - 2**53, 2**53 - 1),
    ],
)
def test_whole_numbers_up_to_the_limits_of_a_type(kind: str, least: int, most: int) -> None:
    """Each of them arrives as it is, and the next one on either side is refused, not wrapped or rounded."""
    assert _decode(f'{{"inputs": [{least}, {most}]}}', {"x": kind})[0]["x"].tolist() == [least, most]
    for beyond in (least - 1, most + 1):
        with pytest.raises(StatusError) as caught:
            _decode(f'{{"inputs": [{beyond}]}}', {"x": kind})
        assert caught.value.code is Code.INVALID_ARGUMENT


def test_rows_of_several_inputs() -> None:
    """Row form with several inputs is a list of objects; each input gets one row per object."""
    got, _ = _decode('{"instances": [{"ints": [1,2], "words": "a"}, {"words": "b", "ints": [3,4]}]}', TWO)
    assert got["ints"].tolist() == [[1, 2], [3, 4]]
    assert got["words"].tolist() == [b"a", b"b"]


def test_columns_need_no_common_size() -> None:
    """Columnar form takes each input as it stands, a scalar too."""
    got, _ = _decode('{"inputs": {"ints": [[1,2,3]], "words": {"b64": "YQ=="}}}', TWO)
    assert got["ints"].shape == (1, 3)
    assert got["words"].shape == ()
    assert got["words"].item() == b"a"


def test_what_follows_the_object_is_ignored() -> None:
    """TF Serving stops at the end of the object."""
    assert _decode('  {"instances": [1]} trailing', ONE_INT)[0]["x"].tolist() == [1]


ERRORS = [
    ("", ONE_INT, "JSON Parse error: The document is empty"),
    ("[1]", ONE_INT, "JSON Value: [\n    1\n] Is not object"),
    ("{}", ONE_INT, "Missing 'inputs' or 'instances' key"),
    ('{"instances": 1}', ONE_INT, "Excepting 'instances' to be an list/array"),
    ('{"instances": []}', ONE_INT, "No values in 'instances' array"),
    ('{"instances": [1], "inputs": [1]}', ONE_INT, "expecting only one of 'inputs' or 'instances' keys to exist"),
    ('{"signature_name": 5, "instances": [1]}', ONE_INT, "'signature_name' key must be a string value."),
    (
        '{"instances": [[1,2],[3,4,5]]}',
        ONE_INT,
        "Failed to process element: 1 of 'instances' list. "
        "Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 3",
    ),
    (
        '{"instances": [[1,2],[[5,6]]]}',
        ONE_INT,
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [2] but got: [1,2]",
    ),
    (
        '{"instances": [1.5]}',
        ONE_INT,
        "Failed to process element: 0 of 'instances' list. "
        "Error: INVALID_ARGUMENT: JSON Value: 1.5 Type: Number is not of expected type: int32",
    ),
    ('{"inputs": [true]}', ONE_INT, "JSON Value: true Type: True is not of expected type: int32"),
    ('{"inputs": ["a"]}', ONE_INT, 'JSON Value: "a" Type: String is not of expected type: int32'),
    ('{"inputs": [null]}', ONE_INT, "JSON Value: null Type: Null is not of expected type: int32"),
    ('{"inputs": [256]}', {"x": "DT_UINT8"}, "JSON Value: 256 Type: Number is not of expected type: uint8"),
    ('{"inputs": [1, 256]}', {"x": "DT_UINT8"}, "JSON Value: 256 Type: Number is not of expected type: uint8"),
    ('{"inputs": [1, -1]}', {"x": "DT_UINT8"}, "JSON Value: -1 Type: Number is not of expected type: uint8"),
    ('{"inputs": ["1"]}', {"x": "DT_FLOAT"}, 'JSON Value: "1" Type: String is not of expected type: float'),
    (
        '{"inputs": [[1], 2]}',
        ONE_INT,
        "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    ('{"inputs": [1, [2]]}', ONE_INT, "Encountered list at unexpected level: 1 expected < 1"),
    (
        '{"inputs": [[1], [2, 3]]}',
        ONE_INT,
        "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
    ),
    ('{"inputs": [16777217]}', {"x": "DT_FLOAT"}, "Cannot convert JSON value: 16777217 to float without loss"),
    ('{"inputs": [1e39]}', {"x": "DT_FLOAT"}, "Cannot convert JSON value: 1e+39 to float without loss of precision."),
    ('{"inputs": [9007199254740993]}', {"x": "DT_DOUBLE"}, "to double without loss of precision."),
    ('{"inputs": [{"b64": "*"}]}', {"x": "DT_STRING"}, "Unable to base64 decode"),
    ('{"inputs": [{"b64": 1}]}', {"x": "DT_STRING"}, "not formatted correctly for base64 data"),
    ('{"instances": [1]}', TWO, "instances is a plain list, but expecting list of objects"),
    ('{"inputs": [1]}', TWO, "inputs is a plain value/list, but expecting an object"),
    ('{"inputs": {"ints": 1}}', TWO, "Missing named input: words in 'inputs' object."),
    ('{"instances": [{"ints": 1, "words": "a"}, 2]}', TWO, "Expecting object but got list at item 1 of input list"),
    ('{"instances": [1, {"x": 2}]}', ONE_INT, "Expecting value/list but got object at item 1 of input list"),
    ('{"instances": [{"ints": 1, "wards": "a"}]}', TWO, "JSON object: does not have named input: wards"),
    (
        '{"instances": [{"b64": "YQ=="}]}',
        TWO,
        "Failed to process element: 0 of 'instances' list. "
        'Error: INVALID_ARGUMENT: JSON Value: {\n    "b64": "YQ=="\n} '
        "Type: Object is not of expected type: int32",
    ),
    ('{"instances": [{"ints": 1}]}', TWO, "must only have keys: ints,words"),
    (
        '{"instances": [{"ints": 1, "words": 2}]}',
        TWO,
        "Failed to process element: 0 key: words of 'instances' list. "
        "Error: INVALID_ARGUMENT: JSON Value: 2 Type: Number is not of expected type: string",
    ),
]


@pytest.mark.parametrize(("body", "inputs", "text"), ERRORS)
def test_errors_are_tf_servings(body: str, inputs: dict[str, str], text: str) -> None:
    """A malformed request is INVALID_ARGUMENT, in TF Serving's words."""
    with pytest.raises(StatusError) as caught:
        _decode(body, inputs)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert text in caught.value.message


@pytest.mark.parametrize(("kind", "name"), [("DT_BFLOAT16", "bfloat16"), ("DT_HALF", "half"), ("DT_UINT16", "uint16")])
def test_types_that_json_lacks_are_unimplemented(kind: str, name: str) -> None:
    """TF Serving reads no half, bfloat16 or uint16 from JSON."""
    text = f"UNIMPLEMENTED: Conversion of JSON Value: 1.5 to type: {name}"
    with pytest.raises(StatusError) as caught:
        _decode('{"inputs": [1.5]}', {"x": kind})
    assert str(caught.value) == text
    with pytest.raises(StatusError) as caught:
        _decode('{"instances": [1.5]}', {"x": kind})
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.message == f"Failed to process element: 0 of 'instances' list. Error: {text}"


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": ' + b"[" * 100_000,
        b'{"instances": ' + b"[" * 100 + b"1" + b"]" * 100 + b"}",
        b'{"instances": [' + b"9" * 10_000 + b"]}",
        b'\xff\xfe{"instances": [1]}',
        b'{"instances": [Infin]}',
        b'{"instances": [1,]}',
        b'{"instances": [1e]}',
        b"{'instances': [1]}",
        b'{"instances": [1]',
        b"\x00" * 100,
    ],
)
def test_hostile_bodies_are_refused(body: bytes) -> None:
    """Depth, digits, encodings and broken syntax end in a status."""
    with pytest.raises(StatusError) as caught:
        _decode(body, ONE_INT)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_large_value_is_quoted_in_part() -> None:
    """A message quotes at most 256 bytes of the request."""
    with pytest.raises(StatusError) as caught:
        _decode(json.dumps({"text": "é" * 5000}), ONE_INT)
    assert len(caught.value.message.encode()) < 400


@pytest.mark.parametrize("empty", [b"[]", b"{}"])
def test_a_document_of_very_many_empty_values_is_refused_unread(empty: bytes) -> None:
    """Two bytes of JSON can be fifty in memory, so lists and objects are counted before they are made."""
    body = b'{"instances": [' + b",".join([empty] * 1000) + b"]}"
    with pytest.raises(StatusError, match="more than 1000 lists and objects"):
        json_document.parse(body, 1000)
    assert len(json_document.parse(body, 1002)["instances"]) == 1000


def test_lists_as_deep_as_the_parser_goes_are_refused() -> None:
    """A ragged value near the parser's own limit is a bad request, not a fault of the server."""
    depth = 900
    with pytest.raises(StatusError) as caught:
        _decode(b'{"instances": [' + b"[" * depth + b"]" * depth + b", 1]}", ONE_INT)
    assert caught.value.code is Code.INVALID_ARGUMENT


SYNTAX = [
    (b" ", "The document is empty. at offset: 1"),
    (b"{", "Missing a name for object member. at offset: 1"),
    (b'{"a": 1,}', "Missing a name for object member. at offset: 8"),
    (b'{"a"}', "Missing a colon after a name of object member. at offset: 4"),
    (b'{"]": ["}" 1', "Missing a comma or ] after an array element. at offset: 11"),
    (b'{"]": "}" 1', "Missing a comma or } after an object member. at offset: 10"),
    (b'{"a": [1] 1', "Missing a comma or } after an object member. at offset: 10"),
    (b"[1, ", "Invalid value. at offset: 4"),
    (b"[1,]", "Invalid value. at offset: 3"),
    (b"[1 , ]", "Invalid value. at offset: 5"),
    (b"[nul]", "Invalid value. at offset: 4"),
    (b"nul", "Invalid value. at offset: 3"),
    (b"[-]", "Invalid value. at offset: 2"),
    (b"[1.]", "Miss fraction part in number. at offset: 3"),
    (b"[1e+]", "Miss exponent in number. at offset: 4"),
    (b"[01]", "Missing a comma or ] after an array element. at offset: 2"),
    (b'{"a', "Missing a closing quotation mark in string. at offset: 3"),
    (b'["\\x"]', "Invalid escape character in string. at offset: 2"),
    (b'["\\u12x4"]', "Incorrect hex digit after \\u escape in string. at offset: 2"),
    (b'["\\ud800"]', "The surrogate pair in string is invalid. at offset: 2"),
    (b'["\\ud800\\ud800"]', "The surrogate pair in string is invalid. at offset: 2"),
    (b'["\\udc00"]', "The surrogate pair in string is invalid. at offset: 2"),
    (b'["\x01"]', "Invalid encoding in string. at offset: 2"),
    ("\N{ZERO WIDTH NO-BREAK SPACE}[é]".encode(), "Invalid value. at offset: 4"),
]


@pytest.mark.parametrize(("body", "text"), SYNTAX)
def test_broken_syntax_is_told_as_rapidjson_tells_it(body: bytes, text: str) -> None:
    """The reason, and the byte of the body where the parser gave up."""
    with pytest.raises(StatusError) as caught:
        json_document.parse(body)
    assert caught.value.message == f"JSON Parse error: {text}"


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [("[1 , ]", "array", "Invalid value."), ('{"a":1, }', "object", "Missing a name for object member.")],
)
def test_a_trailing_comma_is_told_alike_whatever_python_says(text: str, kind: str, reason: str) -> None:
    """Python 3.13 has a message of its own for it, with the place of the comma."""
    error = json.JSONDecodeError(f"Illegal trailing comma before end of {kind}", text, text.index(","))
    assert json_syntax.explain(text, error) == (reason, len(text) - 1)


def test_a_name_that_stands_twice() -> None:
    """The first of several counts, as RapidJSON finds it; a base64 object has one member only."""
    body = '{"instances": [1], "signature_name": "a", "instances": "x", "signature_name": 5}'
    assert _decode(body, ONE_INT)[0]["x"].tolist() == [1]
    assert json_document.signature_name(json_document.parse(body.encode())) == "a"
    assert _decode('{"inputs": {"x": [1, 2], "x": "a"}}', ONE_INT)[0]["x"].tolist() == [1, 2]
    with pytest.raises(StatusError, match="not formatted correctly for base64 data"):
        _decode('{"inputs": [{"b64": "YQ==", "b64": "YQ=="}]}', {"x": "DT_STRING"})


def test_a_name_that_stands_twice_in_a_row() -> None:
    """All its values are put one after the other, and as many as there are rows are taken; all of them are checked."""
    assert _decode('{"instances": [{"x": 1, "x": 2}]}', ONE_INT)[0]["x"].tolist() == [1]
    assert _decode('{"instances": [{"x": [1], "x": [2]}, {"x": [3]}]}', ONE_INT)[0]["x"].tolist() == [[1], [2]]
    for second, text in (
        ("[2, 3]", "Expecting tensor size: 1 but got: 2"),
        ('"a"', 'JSON Value: "a" Type: String is not of expected type: int32'),
    ):
        with pytest.raises(StatusError) as caught:
            _decode(f'{{"instances": [{{"x": [1], "x": {second}}}]}}', ONE_INT)
        expected = f"Failed to process element: 0 key: x of 'instances' list. Error: INVALID_ARGUMENT: {text}"
        assert caught.value.message == expected


def test_the_first_thing_that_is_wrong_is_told() -> None:
    """Rows are read one by one, and names in the order they stand in."""
    for body, inputs, text in (
        ('[{"ints": "a", "words": 1}, 3]', TWO, "element: 0 key: ints of"),
        ('[{"words": 1, "ints": "a"}, 3]', TWO, "element: 0 key: words of"),
        ('[{"ints": 1}, {"wards": 1}]', TWO, "element: 0 of 'instances' list. JSON object: "),
        ('["a", {"x": 1}]', ONE_INT, "element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: "),
    ):
        with pytest.raises(StatusError, match=text):
            _decode(f'{{"instances": {body}}}', inputs)


LARGE = [
    ('{"instances": [1, 1e400]}', 18),
    ('{"a": "1e400,", "b": -1e309 }', 21),
    ("[1E+309]", 1),
    ("1e309", 0),
    ("[0e0309]", 1),
    ("[1.5e310]", 1),
    ("[1e99999999999999999999]", 1),
    ("[10." + "0" * 17 + "e325]", 1),
    ('["é", 1e400, nul', 7),
    ("[" + "9" * 5000 + "]", 1),
    ('{"inputs": [-' + "9" * 309 + "]}", 12),
    ('{"inputs": [1], "a": ' + "1" * 310 + "}", 21),
]


@pytest.mark.parametrize(("body", "offset"), LARGE)
def test_a_number_too_large_for_a_double_is_refused(body: str, offset: int) -> None:
    """RapidJSON goes by the exponent, and tells where the number begins."""
    with pytest.raises(StatusError) as caught:
        json_document.parse(body.encode())
    assert caught.value.message == f"JSON Parse error: Number too big to be stored in double. at offset: {offset}"


def test_what_is_not_too_large() -> None:
    """The digits of a fraction make room for the exponent; a product just beyond is infinite."""
    body = '{"instances": [0.001e310, 1e-400, 9e308, 1e308], "a": "1e400 ", "b": "\\" 1e400 "} 1e400 '
    assert _decode(body, {"x": "DT_DOUBLE"})[0]["x"].tolist() == [1e307, 0.0, float("inf"), 1e308]
    zeros = "0" * 20
    body = f'{{"instances": [1.{zeros}e325, 0.{zeros}1e329]}}'
    assert _decode(body, {"x": "DT_DOUBLE"})[0]["x"].tolist() == [float("inf"), 1e308]
    digits = "1" * 309
    body = f'{{"instances": [{digits}, 0.{digits}], "a": "{digits}0"}}'
    assert _decode(body, {"x": "DT_DOUBLE"})[0]["x"].tolist() == [float(digits), 1 / 9]


def test_the_last_feature_of_a_name_counts() -> None:
    """An Example's features are set one after the other, so the last one stays; all of them are checked."""
    decoded = json_examples.decode(json_document.parse(b'{"examples": [{"a": ["x", "y"], "b": 3e38, "a": 1}]}'))
    (example,) = decoded.example_list.examples
    assert example.features.feature["a"].int64_list.value == [1]
    for broken in (b'{"examples": [{"a": null, "a": 1}]}', b'{"examples": [{"a": {"b64": "", "b64": ""}}]}'):
        with pytest.raises(StatusError, match="Feature: a has element with unexpected JSON type"):
            json_examples.decode(json_document.parse(broken))


def test_an_integer_beyond_64_bits_is_a_decimal() -> None:
    """RapidJSON makes a double of it: a Feature is a float list, and a float tensor takes it."""
    decoded = json_examples.decode(json_document.parse(b'{"examples": [{"a": 100000000000000000000, "b": -1}]}'))
    assert decoded.example_list.examples[0].features.feature["b"].int64_list.value == [-1]
    assert decoded.example_list.examples[0].features.feature["a"].float_list.value == [np.float32(1e20)]
    with pytest.raises(StatusError, match="has uint64 element"):
        json_examples.decode(json_document.parse(b'{"examples": [{"a": 18446744073709551615}]}'))
    with pytest.raises(StatusError, match="to float without loss of precision"):
        _decode('{"inputs": [16777217, 100000000000000000000]}', {"x": "DT_FLOAT"})


def test_strings_are_bytes() -> None:
    """TF Serving does not validate encodings: a string tensor holds the bytes that were sent."""
    body = b'{"inputs": ["\xff\x80", "\\ud83d\\ude00", "\xc3\xa9"]}'
    got = _decode(body, {"x": "DT_STRING"})[0]["x"].tolist()
    assert got == [b"\xff\x80", "\N{GRINNING FACE}".encode(), "é".encode()]
