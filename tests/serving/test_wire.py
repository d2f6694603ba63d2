"""Our messages against TensorFlow's."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from keraslight_serving.wire import _generate, methods, ranked, serving_pb2 as pb
from keraslight_serving.wire.dtypes import dtype_name, numpy_name
from keraslight_serving.wire.tensors import TensorError, to_array, to_tensor
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    prediction_service_pb2,
)

PAIRS = [
    (pb.TensorProto, tensor_pb2.TensorProto),
    (pb.TensorInfo, meta_graph_pb2.TensorInfo),
    (pb.SignatureDef, meta_graph_pb2.SignatureDef),
    (pb.SavedModel, saved_model_pb2.SavedModel),
    (pb.MetaGraphDef, meta_graph_pb2.MetaGraphDef),
    (pb.ModelSpec, model_pb2.ModelSpec),
    (pb.PredictRequest, predict_pb2.PredictRequest),
    (pb.PredictResponse, predict_pb2.PredictResponse),
    (pb.Input, input_pb2.Input),
    (pb.ClassificationRequest, classification_pb2.ClassificationRequest),
    (pb.ClassificationResponse, classification_pb2.ClassificationResponse),
    (pb.SignatureDefMap, get_model_metadata_pb2.SignatureDefMap),
    (pb.GetModelMetadataRequest, get_model_metadata_pb2.GetModelMetadataRequest),
    (pb.GetModelMetadataResponse, get_model_metadata_pb2.GetModelMetadataResponse),
    (pb.GetModelStatusRequest, get_model_status_pb2.GetModelStatusRequest),
    (pb.GetModelStatusResponse, get_model_status_pb2.GetModelStatusResponse),
]

# On the wire these look alike: an enum is an int32, and the examples stay bytes in ours.
SAME_ON_THE_WIRE = {(5, 14), (12, 11)}


def _compare(ours, theirs, seen):
    if ours.full_name in seen:
        return
    seen.add(ours.full_name)
    for field in ours.fields:
        twin = theirs.fields_by_number[field.number]
        assert field.name == twin.name, ours.full_name
        assert field.is_repeated == twin.is_repeated, field.full_name
        assert field.type == twin.type or (field.type, twin.type) in SAME_ON_THE_WIRE, field.full_name
        if field.message_type and twin.message_type:
            _compare(field.message_type, twin.message_type, seen)
        if field.enum_type and twin.enum_type:
            numbers = twin.enum_type.values_by_name
            assert {v.name: v.number for v in field.enum_type.values} == {
                v.name: numbers[v.name].number for v in field.enum_type.values
            }


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda m: m.DESCRIPTOR.full_name)
def test_fields_have_the_official_numbers_and_types(ours, theirs):
    _compare(ours.DESCRIPTOR, theirs.DESCRIPTOR, set())


def test_paths_are_those_of_the_official_services():
    service = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
    for method in (methods.PREDICT, methods.CLASSIFY, methods.GET_MODEL_METADATA):
        assert method.path == f"/{service.full_name}/{service.methods_by_name[method.name].name}"
    assert methods.GET_MODEL_STATUS.path == "/tensorflow.serving.ModelService/GetModelStatus"


def test_a_predict_request_survives_the_way_there_and_back():
    ours = pb.PredictRequest(output_filter=["scores"])
    ours.model_spec.name = "tiny"
    ours.model_spec.version.value = 3
    ours.model_spec.signature_name = "encoded"
    ours.inputs["image_bytes"].CopyFrom(to_tensor([b"one", b"two\0"]))
    ours.inputs["images"].CopyFrom(to_tensor(np.ones((1, 2, 2, 3), np.float32), content=True))
    theirs = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    assert theirs.model_spec.version.value == 3
    assert tf.make_ndarray(theirs.inputs["image_bytes"]).tolist() == [b"one", b"two\0"]
    assert tf.make_ndarray(theirs.inputs["images"]).shape == (1, 2, 2, 3)
    assert pb.PredictRequest.FromString(theirs.SerializeToString()) == ours


def test_examples_stay_the_bytes_of_the_official_messages():
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(b"data")
    theirs = input_pb2.Input()
    theirs.example_list_with_context.examples.append(example)
    theirs.example_list_with_context.context.CopyFrom(example)
    ours = pb.Input.FromString(theirs.SerializeToString())
    assert list(ours.example_list_with_context.examples) == [example.SerializeToString()]
    assert ours.example_list_with_context.context == example.SerializeToString()
    assert input_pb2.Input.FromString(ours.SerializeToString()) == theirs


def test_a_saved_model_gives_its_signatures(version_folder):
    saved_model = pb.SavedModel.FromString((version_folder / "saved_model.pb").read_bytes())
    (graph,) = saved_model.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    assert {"serving_default", "encoded", "classify"} <= set(graph.signature_def)
    assert graph.signature_def["classify"].method_name == "tensorflow/serving/classify"


def test_the_generated_code_is_what_the_proto_file_generates():
    # In a process of its own: protoc crashes where TensorFlow, with a protobuf of its own, is loaded.
    code = "import sys; from keraslight_serving.wire import _generate; sys.stdout.write(''.join(_generate.generate()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == _generate.CODE.read_text() + _generate.STUB.read_text()


ORDERS = [
    "import keraslight_serving.wire.methods; import tensorflow; import tensorflow_serving.apis.prediction_service_pb2",
    "import tensorflow_serving.apis.prediction_service_pb2; import tensorflow; import keraslight_serving.wire.methods",
]


@pytest.mark.parametrize("imports", [ORDERS[0], pytest.param(ORDERS[1], marks=pytest.mark.slow)])
def test_lives_next_to_tensorflow_in_either_import_order(imports):
    subprocess.run([sys.executable, "-c", imports], check=True, capture_output=True, timeout=120)


ARRAYS = [
    np.array([1.5, -2, 3e30], np.float32),
    np.array([[1.5], [np.inf]], np.float64),
    np.array([-128, 127], np.int8),
    np.array([-5, 300], np.int16),
    np.array([-(2**31)], np.int32),
    np.array([2**63 - 1, -1], np.int64),
    np.array([0, 255], np.uint8),
    np.array([65535], np.uint16),
    np.array([2**32 - 1], np.uint32),
    np.array([2**64 - 1], np.uint64),
    np.array([True, False, True]),
    np.array([1.5, -0.25, 65504], np.float16),
    np.array([b"a", b"", b"b\0"], object),
    np.array(7, np.float32),
    np.zeros((0, 3), np.float32),
]


@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_arrays_survive_the_official_tensor(array, content):
    theirs = tensor_pb2.TensorProto.FromString(to_tensor(array, content=content).SerializeToString())
    np.testing.assert_array_equal(tf.make_ndarray(theirs), array)
    back = to_array(pb.TensorProto.FromString(theirs.SerializeToString()))
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_reads_what_tensorflow_writes(array):
    theirs = tf.make_tensor_proto(array)
    np.testing.assert_array_equal(to_array(pb.TensorProto.FromString(theirs.SerializeToString())), array)


def test_numbers_are_written_as_lists_unless_asked_otherwise():
    assert list(to_tensor(np.float32([1, 2])).float_val) == [1, 2]
    assert list(to_tensor(np.array([True, False])).bool_val) == [True, False]
    assert to_tensor(np.float32([1, 2]), content=True).tensor_content == np.float32([1, 2]).tobytes()


def test_a_short_list_repeats_its_last_value_and_an_empty_one_means_zeros():
    tensor = pb.TensorProto(dtype=pb.DT_FLOAT, float_val=[1, 2])
    tensor.tensor_shape.dim.add(size=2)
    tensor.tensor_shape.dim.add(size=2)
    np.testing.assert_array_equal(to_array(tensor), [[1, 2], [2, 2]])
    np.testing.assert_array_equal(to_array(tensor), tf.make_ndarray(tensor_pb2.TensorProto.FromString(
        tensor.SerializeToString())))  # fmt: skip
    del tensor.float_val[:]
    np.testing.assert_array_equal(to_array(tensor), np.zeros((2, 2)))


def test_strings_are_read_from_tensor_content():
    tensor = pb.TensorProto(dtype=pb.DT_STRING, tensor_content=b"\x01\x00\xc8\x01" + b"a" + b"b" * 200)
    tensor.tensor_shape.dim.add(size=3)
    assert to_array(tensor).tolist() == [b"a", b"", b"b" * 200]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\x01\x00\xc8\x01" + b"a" + b"b" * 199, "must hold 201 bytes of strings. Received: 200 bytes"),
        (b"\x01", "must hold 3 strings. Received: 1 bytes"),
    ],
)
def test_tensor_content_without_all_strings(content, text):
    tensor = pb.TensorProto(dtype=pb.DT_STRING, tensor_content=content)
    tensor.tensor_shape.dim.add(size=3)
    with pytest.raises(TensorError, match=f"tensor_content {text}"):
        to_array(tensor)


def _shaped(*sizes, **fields):
    tensor = pb.TensorProto(dtype=pb.DT_FLOAT, **fields)
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (pb.TensorProto(), "dtype must be one of float, double, .* Received: invalid"),
        (pb.TensorProto(dtype=pb.DT_COMPLEX64), "Received: complex64"),
        (pb.TensorProto(dtype=99), "Received: unknown dtype enum 99"),
        (_shaped(-1), r"shape must be fully known. Received: \[-1\]"),
        (_shaped(2, tensor_content=b"1234"), "must hold 8 bytes, 2 x float32. Received: 4 bytes"),
        (_shaped(10**6, 10**6, float_val=[0]), r"must fit in 2147483647 bytes. Received: shape \[1000000,1000000\]"),
    ],
    ids=["no dtype", "complex", "unknown dtype", "negative size", "short content", "a petabyte in ten bytes"],
)
def test_tensors_that_describe_no_array(tensor, text):
    with pytest.raises(TensorError, match=text):
        to_array(tensor)


def test_the_limit_is_one_of_bytes():
    tensor = to_tensor(np.arange(5, dtype=np.float32))
    np.testing.assert_array_equal(to_array(tensor, max_bytes=20), np.arange(5))
    with pytest.raises(TensorError, match=r"must fit in 19 bytes. Received: shape \[5\]"):
        to_array(tensor, max_bytes=19)


def test_arrays_that_no_tensor_can_hold():
    with pytest.raises(TensorError, match=r"dtype must be one of .* Received: datetime64"):
        to_tensor(np.array(["2026-01-01"], "datetime64[D]"))
    with pytest.raises(TensorError, match=r"must hold bytes or str. Received: NoneType"):
        to_tensor(np.array([None], object))


def test_dtype_names():
    assert [dtype_name(e) for e in (pb.DT_FLOAT, pb.DT_HALF, pb.DT_STRING)] == ["float", "half", "string"]
    assert [numpy_name(e) for e in (pb.DT_FLOAT, pb.DT_HALF, pb.DT_STRING, pb.DT_BFLOAT16)] == [
        "float32",
        "float16",
        "string",
        "bfloat16",
    ]


# ---------------------------------------------------------------- rankings, without numpy


@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
def test_rows_are_what_numpy_reads(dtype, content):
    array = np.random.default_rng(0).integers(-9, 9, (3, 4)).astype(dtype)
    assert ranked.rows(to_tensor(array, content=content)) == array.tolist()
    assert ranked.rows(to_tensor(array[:, :0], content=content)) == [[], [], []]
    assert ranked.rows(to_tensor(array[:0], content=content)) == []


def test_rows_of_strings():
    labels = [[b"cat", b"dog"], [b"eel\0", b""]]
    assert ranked.rows(to_tensor(np.array(labels, object))) == labels


def test_rows_of_a_short_list_repeat_its_last_value():
    short = to_tensor(np.float32([[1, 2], [3, 3]]))
    del short.float_val[3:]
    assert ranked.rows(short) == to_array(short).tolist() == [[1, 2], [3, 3]]


def test_strings_are_written_without_numpy():
    tensor = pb.TensorProto()
    ranked.write_strings(tensor, [b"a\0", b"b"])
    assert to_array(tensor).tolist() == [b"a\0", b"b"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dtype": pb.DT_BOOL}, "must have the shape .* Received: bool of shape"),
        ({"dtype": 99}, "Received: unknown dtype enum 99 of shape"),
        ({"tensor_content": b"12345"}, "must hold 4 values of float. Received: 5 bytes"),
        ({"float_val": []}, "must have 4 values. Received: 0 of float"),
    ],
)
def test_what_has_no_rows(change, text):
    tensor = to_tensor(np.float32([[1, 2], [3, 4]]))
    for field, value in change.items():
        if field == "float_val":
            del tensor.float_val[:]
        else:
            setattr(tensor, field, value)
    with pytest.raises(ValueError, match=text):
        ranked.rows(tensor)


def test_a_vector_has_no_rows():
    with pytest.raises(ValueError, match=r"Received: float of shape \[2\]"):
        ranked.rows(to_tensor(np.float32([1, 2])))
