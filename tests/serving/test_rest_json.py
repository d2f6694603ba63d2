"""JSON to arrays and back, without a server."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings, strategies as st
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.calls.examples import Classes, Examples, classify
from keraslight_serving.server.rest import _text
from keraslight_serving.server.rest._examples import read_examples
from keraslight_serving.server.rest._json import error_body, parse, quote
from keraslight_serving.server.rest._tensors import decode_base64, read_inputs, read_instances
from keraslight_serving.server.running.signatures import Declared, Signature
from keraslight_serving.wire import serving_pb2 as pb

from tests.serving.helpers import refused


def infos(**dtypes):
    return {name: Declared(dtype, ()) for name, dtype in dtypes.items()}


def rows(text, booleans=False, **dtypes):
    return read_instances(json.loads(text), infos(**dtypes), has_booleans=booleans)


def columns(text, booleans=False, **dtypes):
    return read_inputs(json.loads(text), infos(**dtypes), has_booleans=booleans)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("dtype", "text", "expected"),
    [
        (pb.DT_FLOAT, "[1, 2.0, 5.003, NaN, Infinity, -Infinity]", np.float32([1, 2, 5.003, np.nan, np.inf, -np.inf])),
        (pb.DT_FLOAT, "[1435774380]", np.float32([1435774380])),
        (pb.DT_FLOAT, "[1.7e308, -1.7e308, 2.3e-308]", np.float32([np.inf, -np.inf, 0])),
        (pb.DT_DOUBLE, "[1, 0.662, 1e999]", np.array([1, 0.662, np.inf])),
        (pb.DT_INT8, "[-128, 127]", np.int8([-128, 127])),
        (pb.DT_INT16, "[-32768, 32767]", np.int16([-32768, 32767])),
        (pb.DT_INT32, "[[1, 2], [3, 4]]", np.int32([[1, 2], [3, 4]])),
        (pb.DT_INT64, "[-9223372036854775808, 9223372036854775807]", np.int64([-(2**63), 2**63 - 1])),
        (pb.DT_UINT8, "[0, 255]", np.uint8([0, 255])),
        (pb.DT_UINT32, "[4294967295]", np.uint32([2**32 - 1])),
        (pb.DT_UINT64, "[1, 18446744073709551615]", np.uint64([1, 2**64 - 1])),
        (pb.DT_BOOL, "[true, false]", np.array([True, False])),
        (pb.DT_STRING, '["a", {"b64": "/w=="}, "é"]', np.array([b"a", b"\xff", "é".encode()], object)),
        (pb.DT_INT32, "[[], []]", np.empty((2, 0), np.int32)),
        (pb.DT_STRING, "[[], []]", np.empty((2, 0), object)),
    ],
)
def test_each_type(dtype, text, expected):
    for found in (rows(text, x=dtype, booleans="true" in text)["x"], columns(text, x=dtype, booleans=True)["x"]):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_rows_of_several_inputs():
    text = """[{"i": [[1, 2], [3, 4]], "s": ["foo", "bar"], "f": [1.0, NaN]},
               {"i": [[5, 6], [7, 8]], "s": ["baz", "bat"], "f": [2.0, Infinity]}]"""
    found = rows(text, i=pb.DT_INT32, s=pb.DT_STRING, f=pb.DT_FLOAT)
    np.testing.assert_array_equal(found["i"], np.arange(1, 9, dtype=np.int32).reshape(2, 2, 2))
    assert found["s"].tolist() == [[b"foo", b"bar"], [b"baz", b"bat"]]
    np.testing.assert_array_equal(found["f"], np.float32([[1, np.nan], [2, np.inf]]))


def test_rows_of_bytes():
    assert rows('[{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]', x=pb.DT_STRING)["x"].tolist() == [b"hello", b"world"]
    assert rows('[{"x": [{"b64": "aGVsbG8="}]}]', x=pb.DT_STRING)["x"].tolist() == [[b"hello"]]


def test_columns_of_several_inputs():
    found = columns('{"i": [[1, 2]], "s": "foo", "b": {"b64": "aGVsbG8="}, "more": 1}', i=3, s=7, b=7)
    assert {name: (array.shape, array.tolist()) for name, array in found.items()} == {
        "i": ((1, 2), [[1, 2]]),
        "s": ((), b"foo"),
        "b": ((), b"hello"),
    }


def failure(function, *arguments, **options):
    with pytest.raises(StatusError) as caught:
        function(*arguments, **options)
    return f"{caught.value.code.name}: {caught.value.text}"


ELEMENT = "INVALID_ARGUMENT: Failed to process element: {} of 'instances' list. Error: "


@pytest.mark.parametrize(
    ("text", "dtypes", "expected"),
    [
        ('["a"]', {"x": 1}, ELEMENT.format(0) + 'INVALID_ARGUMENT: JSON Value: "a" Type: String is not of expected '
         "type: float"),
        ("[1, 1.5]", {"x": 3}, ELEMENT.format(1) + "INVALID_ARGUMENT: JSON Value: 1.5 Type: Number is not of expected "
         "type: int32"),
        ("[1.0]", {"x": 9}, ELEMENT.format(0) + "INVALID_ARGUMENT: JSON Value: 1.0 Type: Number is not of expected "
         "type: int64"),
        ("[255, 256]", {"x": 4}, ELEMENT.format(1) + "INVALID_ARGUMENT: JSON Value: 256 Type: Number is not of "
         "expected type: uint8"),
        ("[true]", {"x": 1}, ELEMENT.format(0) + "INVALID_ARGUMENT: JSON Value: true Type: True is not of expected "
         "type: float"),
        ("[1, false]", {"x": 3}, ELEMENT.format(1) + "INVALID_ARGUMENT: JSON Value: false Type: False is not of "
         "expected type: int32"),
        ("[0]", {"x": 10}, ELEMENT.format(0) + "INVALID_ARGUMENT: JSON Value: 0 Type: Number is not of expected "
         "type: bool"),
        ("[null]", {"x": 7}, ELEMENT.format(0) + "INVALID_ARGUMENT: JSON Value: null Type: Null is not of expected "
         "type: string"),
        ('[{"b64": 1}]', {"b64": 7}, "INVALID_ARGUMENT: Failed to process element: 0 key: b64 of 'instances' list. "
         "Error: INVALID_ARGUMENT: JSON Value: 1 Type: Number is not of expected type: string"),
        ('[{"b64": "!"}]', {"x": 7}, ELEMENT.format(0) + "INVALID_ARGUMENT: Unable to base64 decode"),
        ('[[{"b": 1}]]', {"x": 7}, ELEMENT.format(0) + 'INVALID_ARGUMENT: JSON Value: {\n    "b": 1\n} not formatted '
         "correctly for base64 data"),
        ('[[{"b": 1}]]', {"x": 1}, ELEMENT.format(0) + 'INVALID_ARGUMENT: JSON Value: {\n    "b": 1\n} Type: Object '
         "is not of expected type: float"),
        ("[1]", {"x": 17}, ELEMENT.format(0) + "UNIMPLEMENTED: Conversion of JSON Value: 1 to type: uint16"),
        ("[1]", {"x": 19}, ELEMENT.format(0) + "UNIMPLEMENTED: Conversion of JSON Value: 1 to type: half"),
        ("[[1, 2], [3, 4], [5, 6, 7]]", {"x": 3}, ELEMENT.format(2) + "INVALID_ARGUMENT: Expecting tensor size: 2 but "
         "got: 3"),
        ("[[1, 2], [3, 4], [[5, 6]]]", {"x": 3}, ELEMENT.format(2) + "INVALID_ARGUMENT: Expecting shape [2] but got: "
         "[1,2]"),
        ("[1, [1]]", {"x": 3}, ELEMENT.format(1) + "INVALID_ARGUMENT: Expecting shape [] but got: [1]"),
        ("[[[1, 2], [3]]]", {"x": 1}, ELEMENT.format(0) + "INVALID_ARGUMENT: Encountered list at unexpected size: 1 "
         "at level: 1 expected size: 2"),
        ("[[[1], 2]]", {"x": 1}, ELEMENT.format(0) + "INVALID_ARGUMENT: JSON Value: 2 found at incorrect level: 2 in "
         "the JSON DOM. Expected at level: 2"),
        ("[[1, [2]]]", {"x": 1}, ELEMENT.format(0) + "INVALID_ARGUMENT: Encountered list at unexpected level: 1 "
         "expected < 1"),
        ("[1]", {"x": 1, "y": 1}, "INVALID_ARGUMENT: instances is a plain list, but expecting list of objects as "
         "multiple input tensors required as per tensorinfo_map"),
        ('[{"x": 1}, [2]]', {"x": 1}, "INVALID_ARGUMENT: Expecting object but got list at item 1 of input list"),
        ('[1, {"x": 1}]', {"x": 1}, "INVALID_ARGUMENT: Expecting value/list but got object at item 1 of input list"),
        ('[{"x": 1, "z": 2}]', {"x": 1}, "INVALID_ARGUMENT: Failed to process element: 0 key: z of 'instances' list. "
         "Error: INVALID_ARGUMENT: JSON object: does not have named input: z"),
        ('[{"x": 1}]', {"x": 1, "y": 1}, "INVALID_ARGUMENT: Failed to process element: 0 of 'instances' list. JSON "
         'object: {\n    "x": 1\n} keys must be equal to: x,y'),
        ("[" * 70 + "]" * 70, {"x": 1}, "A tensor must have less than 64 dimensions. Received: more"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit(text, dtypes, expected):
    assert expected in failure(rows, text, booleans="true" in text or "false" in text, **dtypes)


@pytest.mark.parametrize(
    ("text", "dtypes", "expected"),
    [
        ("1", {"x": 1, "y": 1}, "inputs is a plain value/list, but expecting an object as multiple input tensors"),
        ('{"x": 1}', {"x": 1, "y": 1}, "INVALID_ARGUMENT: Missing named input: y in 'inputs' object."),
        ("[[1], [2, 3]]", {"x": 1}, "INVALID_ARGUMENT: Encountered list at unexpected size: 2 at level: 1 expected "
         "size: 1"),
        ("[1, [2]]", {"x": 1}, "INVALID_ARGUMENT: Encountered list at unexpected level: 1 expected < 1"),
        ('"a"', {"x": 1}, 'INVALID_ARGUMENT: JSON Value: "a" Type: String is not of expected type: float'),
        ("1" + "0" * 400, {"x": 1}, "INVALID_ARGUMENT: JSON Parse error: Number too big to be stored in double."),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit(text, dtypes, expected):
    assert expected in failure(columns, text, **dtypes)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "INVALID_ARGUMENT: JSON Parse error: The document is empty"),
        (b'{"a": }', "INVALID_ARGUMENT: JSON Parse error: Expecting value at offset: 6"),
        (b"[1]", "INVALID_ARGUMENT: JSON Value: [1] Is not object"),
        (b'{"a": "\xff"}', "JSON Parse error: Invalid encoding in string. at offset: 7"),
        (b'{"a": "\\ud800"}', "JSON Parse error: The surrogate pair in string is invalid."),
        (b'{"a": ' + b"[" * 100_000, "JSON Parse error: The document is nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "JSON Parse error: Exceeds the limit"),
        (b'{"a": 1} {}', "JSON Parse error: Extra data at offset: 9"),
        (
            b'{"a": [' + b"[]," * 2**22 + b"]}",
            "must have at most 8388608 values, lists and objects. Received: 8388610",
        ),
    ],
)
def test_bodies_that_are_no_json(body, expected):
    assert expected in failure(parse, body)


def test_a_pair_of_surrogates_is_a_character():
    assert parse(b'{"a": "\\ud83d\\ude00"}') == {"a": "\N{GRINNING FACE}"}


def test_quotes_are_cut():
    assert quote([1, "é", None, {"a": {}, "b": [True]}]) == (
        '[1, "é", null, {\n        "a": {},\n        "b": [true]\n    }]'
    )
    assert quote([0] * 1000) == "[" + ", ".join(["0"] * 85) + ", 0"


def test_base64_without_padding_and_with_line_ends():
    assert decode_base64({"b64": "aGVs\nbG8"}) == b"hello"
    assert decode_base64({"b64": ""}) == b""


def test_images_of_every_form_are_equal():
    pixels = np.random.default_rng(1).integers(0, 256, (2, 5, 4, 3))
    for image in (pixels.tolist(), (pixels / 1).tolist()):
        for found in (
            read_instances(image, infos(x=pb.DT_FLOAT), has_booleans=False),
            read_instances(image, infos(x=pb.DT_FLOAT), has_booleans=True),
            read_instances([{"x": one} for one in image], infos(x=pb.DT_FLOAT), has_booleans=False),
            read_inputs({"x": image}, infos(x=pb.DT_FLOAT), has_booleans=False),
        ):
            assert found["x"].dtype == np.float32
            np.testing.assert_array_equal(found["x"], pixels)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just({"b64": "AA=="}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=12,
)


@settings(derandomize=True, database=None, max_examples=300, deadline=None)
@given(VALUES, st.sampled_from(pb.DataType.values()), st.booleans())
def test_any_value_is_read_or_refused(value, dtype, two):
    expected = infos(x=dtype, y=pb.DT_STRING) if two else infos(x=dtype)
    for read, argument in ((read_inputs, value), (read_instances, [value]), (read_instances, [value, value])):
        try:
            found = read(argument, expected, has_booleans=True)
        except StatusError:
            continue
        assert set(found) <= set(expected)
        assert all(isinstance(array, np.ndarray) for array in found.values())


@settings(derandomize=True, database=None, max_examples=200, deadline=None)
@given(VALUES)
def test_the_fast_way_reads_what_the_exact_one_reads(value):
    for dtype in (pb.DT_FLOAT, pb.DT_UINT8, pb.DT_INT64):
        found = []
        for has_booleans in ("true" in json.dumps(value) or "false" in json.dumps(value), True):
            try:
                (array,) = read_instances([value, value], infos(x=dtype), has_booleans=has_booleans).values()
                found.append((array.dtype, array.shape, array.tobytes()))
            except StatusError as error:
                found.append(error.text)
        assert found[0] == found[1]


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (
            np.float32([9000000, 999999, 0.5, 0.0003, 0.00003, 555557.5]),
            ["9e+06", "999999.0", "0.5", "0.0003", "3e-05", "555557.5"],
        ),
        (np.float32([np.nan, np.inf, 3, -np.inf, -0.0]), ["NaN", "Infinity", "3.0", "-Infinity", "-0.0"]),
        (np.float32([0.2, 1 / 3]), ["0.2", "0.333333343"]),
        (np.array([1 / 3]), ["0.33333333333333331"]),
    ],
    ids=["six digits", "special values", "nine digits", "float64"],
)
def test_numbers(array, expected):
    """Pinned by TensorFlow Serving's tests, but for the last."""
    assert _text.decimals(array) == expected


@settings(derandomize=True, database=None, max_examples=100, deadline=None)
@given(st.lists(st.floats(width=32)), st.lists(st.floats()))
def test_numbers_can_be_read_back(single, double):
    for array in (np.array(single, np.float32), np.array(double, np.float64)):
        back = np.array(json.loads(f"[{','.join(_text.decimals(array))}]"), array.dtype)
        np.testing.assert_array_equal(back, array)


ROW_FORMS = {
    "a number per row": ({"y": np.float32([2.5, 3, 4.5])}, '{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'),
    "lists": (
        {"y": np.int32([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])},
        '{\n    "predictions": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]\n    ]\n}',
    ),
    "several outputs": (
        {"b": np.array([True, False]), "a": np.float32([[1, 2], [3, 4]])},
        """{
    "predictions": [
        {
            "a": [1.0, 2.0],
            "b": true
        },
        {
            "a": [3.0, 4.0],
            "b": false
        }
    ]
}""",
    ),
    "bytes": (
        {"y_bytes": np.array([b"hello", b"\xff"], object)},
        """{
    "predictions": [{
            "b64": "aGVsbG8="
        }, {
            "b64": "/w=="
        }
    ]
}""",
    ),
    "strings": (
        {"y": np.array([b'"', b"\xff", "é".encode()], object)},
        '{\n    "predictions": ["\\"", "\N{REPLACEMENT CHARACTER}", "é"\n    ]\n}',
    ),
    "no rows": ({"y": np.empty((0, 3), np.float32)}, '{\n    "predictions": []\n}'),
    "empty rows": ({"y": np.empty((2, 0), np.float32)}, '{\n    "predictions": [[], []\n    ]\n}'),
}


@pytest.mark.parametrize(("outputs", "expected"), ROW_FORMS.values(), ids=ROW_FORMS)
def test_the_row_form(outputs, expected):
    assert _text.predictions(outputs) == expected


COLUMN_FORMS = {
    "one output": (
        {"y": np.float32([[2.5], [3]])},
        """{
    "outputs": [
        [
            2.5
        ],
        [
            3.0
        ]
    ]
}""",
    ),
    "several outputs": (
        {"n": np.uint8([7]), "s_bytes": np.array(b"hello", object), "e": np.empty(0, bool)},
        """{
    "outputs": {
        "e": [],
        "n": [
            7
        ],
        "s_bytes": {
            "b64": "aGVsbG8="
        }
    }
}""",
    ),
    "a scalar": ({"y": np.float32(3)}, '{\n    "outputs": 3.0\n}'),
}


@pytest.mark.parametrize(("outputs", "expected"), COLUMN_FORMS.values(), ids=COLUMN_FORMS)
def test_the_column_form(outputs, expected):
    assert _text.outputs_by_name(outputs) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64", "uint8", "uint64", "bool"])
def test_all_shapes_can_be_read_back(dtype):
    for shape in ((), (1,), (3,), (2, 3), (2, 1, 3), (0,), (2, 0), (2, 3, 0, 2)):
        array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
        assert json.loads(_text.outputs_by_name({"y": array}))["outputs"] == array.tolist()
        assert json.loads(_text.outputs_by_name({"y": array, "z": array}))["outputs"]["z"] == array.tolist()
        if shape:
            assert json.loads(_text.predictions({"y": array}))["predictions"] == array.tolist()


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"y": np.float32(1)}, "INVALID_ARGUMENT: Tensor name: y has no shape information "),
        (
            {"y": np.zeros(2), "z": np.zeros(3)},
            "INVALID_ARGUMENT: Tensor name: z has inconsistent batch size: 3 expecting: 2",
        ),
    ],
    ids=["no rows", "rows that differ"],
)
def test_outputs_that_have_no_row_form(outputs, text):
    assert failure(_text.predictions, outputs) == text


@pytest.mark.parametrize("write", [_text.predictions, _text.outputs_by_name])
@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({}, "INVALID_ARGUMENT: Cannot convert empty tensor map to JSON"),
        ({"y": np.float16([1])}, "INVALID_ARGUMENT: Failed to write JSON value for tensor type: half"),
    ],
    ids=["none", "half"],
)
def test_outputs_that_can_not_be_written(write, outputs, text):
    assert failure(write, outputs) == text


def test_classes():
    classes = Classes(np.array([[b"a", b"b"], [b"b", b"a"]], object), np.float32([[0.75, 0.25], [1, 0]]))
    assert _text.classifications(classes) == (
        '{\n    "results": [[["a", 0.75], ["b", 0.25]], [["b", 1.0], ["a", 0.0]]\n    ]\n}'
    )


def test_values():
    assert _text.regressions(np.float32([3, 0.5])) == '{\n    "results": [3.0, 0.5]\n}'


def test_errors():
    assert error_body('a "b"\né') == '{\n    "error": "a \\"b\\"\\né"\n}'.encode()


# ---------------------------------------------------------------- tf.Example


def test_a_feature_of_an_example_counts_more_than_a_shared_one():
    def example(**features):
        given = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for name, v in features.items()}
        return tf.train.Example(features=tf.train.Features(feature=given)).SerializeToString()

    (joined,) = Examples([example(a=b"own")], example(a=b"shared", b=b"shared")).joined()
    found = tf.train.Example.FromString(joined).features.feature
    assert {name: feature.bytes_list.value[0] for name, feature in found.items()} == {"a": b"own", "b": b"shared"}


def test_classes_and_scores_of_different_widths_are_refused():
    definition = pb.SignatureDef()
    for infos, alias in (
        (definition.inputs, "inputs"),
        (definition.outputs, "classes"),
        (definition.outputs, "scores"),
    ):
        infos[alias].name = alias
    outputs = {"classes": np.array([[b"a", b"b"]], object), "scores": np.zeros((1, 3), np.float32)}
    servable = SimpleNamespace(
        signatures={"s": Signature.of(definition)}, check=lambda *_: None, run=lambda *_: outputs
    )
    error = refused(classify, servable, "s", Examples([b""]), Call())
    assert error == ("INVALID_ARGUMENT", "Tensors class and score should match in dim_size(1). Got 2 vs. 3")
    outputs["scores"] = outputs["scores"][:, :2]
    assert classify(servable, "s", Examples([b""]), Call()).scores.shape == (1, 2)


def test_examples_are_what_tensorflow_reads():
    document = json.loads(
        """{"context": {"c": "all"}, "examples": [
            {"i": [1, -2, true], "f": [1.5, 2.0], "b": ["é", {"b64": "/w=="}], "one": 7, "none": []},
            {}]}"""
    )
    document["examples"][0]["big"] = [1e40, float("-inf"), 10**400]
    sent = read_examples(document)
    assert tf.train.Example.FromString(sent.context) == tf.train.Example(
        features=tf.train.Features(feature={"c": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"all"]))})
    )
    first, second = (tf.train.Example.FromString(example) for example in sent.serialized)
    assert not second.features.feature
    features = first.features.feature
    assert list(features["i"].int64_list.value) == [1, -2, 1]
    assert list(features["f"].float_list.value) == [1.5, 2.0]
    assert list(features["b"].bytes_list.value) == ["é".encode(), b"\xff"]
    assert list(features["one"].int64_list.value) == [7]
    assert features["none"].WhichOneof("kind") is None
    assert list(features["big"].float_list.value) == [float("inf"), float("-inf"), float("inf")]
    alone = read_examples({"examples": [{"x": 1}]})
    assert (len(alone.serialized), alone.context) == (1, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        ('{"examples": 1}', "JSON Value: {\n    \"examples\": 1\n} Expecting 'examples' value to be an list/array"),
        ('{"examples": []}', "'examples' value is an empty array"),
        ('{"examples": [1]}', "Example must be JSON object but got JSON Number"),
        ('{"context": [], "examples": [{}]}', "Example must be JSON object but got JSON Array"),
        ('{"examples": [{"x": null}]}', "Feature: x has element with unexpected JSON type: Null"),
        ('{"examples": [{"x": [[1]]}]}', "Feature: x has element with unexpected JSON type: Array"),
        ('{"examples": [{"x": {"y": 1}}]}', "Feature: x has element with unexpected JSON type: Object"),
        ('{"examples": [{"x": [1.5, 1]}]}', "Unexpected element type in feature: x expecting type: float"),
        ('{"examples": [{"x": [1, "a"]}]}', "Unexpected element type in feature: x expecting type: int64"),
        ('{"examples": [{"x": 9223372036854775808}]}', "Feature: x has uint64_t element. Only int64_t is supported."),
    ],
)
def test_bad_examples(text, expected):
    assert failure(read_examples, json.loads(text)).endswith(expected)
