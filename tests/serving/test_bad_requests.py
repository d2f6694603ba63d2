"""Bad requests through TensorFlow Serving's own stubs: the code, the text, and a server that still answers."""

import re

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
IMAGE = np.zeros((1, 8, 8, 1), np.float32)


def predict(inputs, *, model="tiny", signature="", version=None, label=None, outputs=()):
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def failure(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60)
    return caught.value.code(), caught.value.details()


@pytest.fixture(params=["litert", "saved_model"])
def engine_stubs(request, stubs, saved_model_stubs):
    """The stubs of both engines, one after the other; each server has to answer once the test is over."""
    used = stubs if request.param == "litert" else saved_model_stubs
    yield used
    response = used.prediction.Predict(predict({"images": IMAGE}), timeout=60)
    assert len(response.outputs["probabilities"].float_val) == 3


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (predict({"images": IMAGE}, model=""), INVALID, "ModelSpec has no name specified."),
        (predict({"images": IMAGE}, model="x"), NOT_FOUND, "Servable not found for request: Latest(x)"),
        (predict({"images": IMAGE}, model="x", version=1), NOT_FOUND, "Servable not found for request: Specific(x, 1)"),
        (predict({"images": IMAGE}, version=7), NOT_FOUND, "Servable not found for request: Specific(tiny, 7)"),
        (predict({"images": IMAGE}, version=0), NOT_FOUND, "Servable not found for request: Specific(tiny, 0)"),
        (predict({"images": IMAGE}, label="best"), INVALID, "Unrecognized servable version label: best"),
        (
            predict({"images": IMAGE}, signature="nope"),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "nope" not found.',
        ),
        (
            predict({}),
            INVALID,
            "input size does not match signature: 0!=1 len({}) != len({images}). "
            "Sent extra: {}. Missing but required: {images}.",
        ),
        (
            predict({"images": IMAGE, "b": IMAGE, "a": IMAGE}),
            INVALID,
            "input size does not match signature: 3!=1 len({a,b,images}) != len({images}). "
            "Sent extra: {a,b}. Missing but required: {}.",
        ),
        (
            predict({"image": IMAGE}),
            INVALID,
            "Signature input alias: images(feed name: serving_default_images:0) not found in request and no default "
            "value provided. Inputs expected to be in the request {image}, or default input alias set: ",
        ),
        (
            predict({"images": IMAGE}, outputs=["logits"]),
            INVALID,
            "output tensor alias not found in signature: logits Outputs expected to be in the set {probabilities}.",
        ),
        (
            predict({"images": IMAGE}, outputs=["probabilities"] * 2),
            INVALID,
            "duplicate output tensor alias: probabilities",
        ),
        (predict({"images": IMAGE.astype(np.int32)}), INVALID, "Expects arg[0] to be float but int32 is provided"),
        (predict({"images": [b"png"]}), INVALID, "Expects arg[0] to be float but string is provided"),
        (
            predict({"images": IMAGE[0]}),
            INVALID,
            'Input "images" must have 4 dimensions, [-1,8,8,1]. Received: 3 dimensions, [8,8,1]',
        ),
        (
            predict({"images": np.float32(1)}),
            INVALID,
            'Input "images" must have 4 dimensions, [-1,8,8,1]. Received: 0 dimensions, []',
        ),
        (
            predict({"images": np.zeros((2, 9, 9, 1), np.float32)}),
            INVALID,
            'Input "images" must have shape [-1,8,8,1]. Received: [2,9,9,1]',
        ),
        (
            predict({"images": np.zeros((1, 8, 8, 3), np.float32)}),
            INVALID,
            'Input "images" must have shape [-1,8,8,1]. Received: [1,8,8,3]',
        ),
        (predict({"images": IMAGE[:0]}), INVALID, 'Input "images" must not be empty. Received: shape [0,8,8,1]'),
    ],
    ids=lambda value: value.replace(" ", "-")[:60] if isinstance(value, str) else "",
)
def test_predict(engine_stubs, request_, code, text):
    assert failure(engine_stubs.prediction.Predict, request_) == (code, text)


def test_predict_with_the_initializer(engine_stubs):
    code, text = failure(engine_stubs.prediction.Predict, predict({}, signature="__saved_model_init_op"))
    assert code == INVALID
    assert text.startswith("The signature names a tensor that the graph does not have: ")


def test_predict_without_model_spec(engine_stubs):
    assert failure(engine_stubs.prediction.Predict, predict_pb2.PredictRequest()) == (INVALID, "Missing ModelSpec")


def test_predict_with_a_tensor_that_is_none(engine_stubs):
    request = predict({"images": IMAGE})
    request.inputs["images"].tensor_content = b"123"
    assert failure(engine_stubs.prediction.Predict, request) == (INVALID, "tensor parsing error: images")


def test_predict_with_a_petabyte_in_ten_bytes(engine_stubs):
    request = predict({"images": np.float32(1)})
    for _ in range(4):
        request.inputs["images"].tensor_shape.dim.add(size=10**4)
    assert failure(engine_stubs.prediction.Predict, request) == (INVALID, "tensor parsing error: images")


def test_bytes_that_are_no_request(engine_stubs):
    call = engine_stubs.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    code, text = failure(call, b"\xff\xff garbage")
    assert (code, text) == (grpc.StatusCode.INTERNAL, "Exception deserializing request!")


@pytest.mark.parametrize(
    ("images", "text"),
    [
        ([b"no image"], "Unknown image file format. One of JPEG, JPEG XL, PNG, GIF, BMP, WebP required."),
        ([b""], "Input is empty."),
    ],
    ids=["no image", "empty"],
)
def test_what_is_no_image(engine_stubs, png, images, text):
    code, details = failure(
        engine_stubs.prediction.Predict, predict({"image_bytes": [png, *images]}, signature="encoded")
    )
    assert code == INVALID
    assert details.startswith(f"{text}\n\t [[")


def test_a_broken_image(engine_stubs, png):
    request = predict({"image_bytes": [png[:40]]}, signature="encoded")
    code, details = failure(engine_stubs.prediction.Predict, request)
    assert code == INVALID
    assert "[[" in details


def test_no_encoded_images(engine_stubs):
    request = predict({"image_bytes": np.array([], object)}, signature="encoded")
    assert failure(engine_stubs.prediction.Predict, request) == (
        INVALID,
        'Input "image_bytes" must not be empty. Received: shape [0]',
    )


def classification(*examples, model="tiny", signature="classify"):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend(examples)
    return request


def example(**features):
    message = tf.train.Example()
    for name, value in features.items():
        feature = message.features.feature[name.replace("_", "/")]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.float_list.value.append(value)
    return message


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (classification_pb2.ClassificationRequest(), INVALID, "Missing ModelSpec"),
        (classification(model="x"), NOT_FOUND, r"Servable not found for request: Latest\(x\)"),
        (classification(signature="nope"), INVALID, "No signature was found with the name: nope"),
        (classification(signature="encoded"), INVALID, "Expected one or two output Tensors, found 4"),
        (classification(signature=""), INVALID, "(?s)No classification inputs found in SignatureDef: inputs {.*images"),
        (classification(), INVALID, "Input is empty."),
        (
            classification(example(image_data=b"")),
            INVALID,
            r"Feature: image/encoded \(data type: string\) is required but could not be found.",
        ),
        (
            classification(example(image_encoded=1.0)),
            INVALID,
            "Data types don't match. Data type: float but expected type: string",
        ),
        (classification(example(image_encoded=b"no image")), INVALID, "Unknown image file format."),
    ],
    ids=lambda value: value.replace(" ", "-")[:50] if isinstance(value, str) else "",
)
def test_classify(engine_stubs, request_, code, text):
    found, details = failure(engine_stubs.prediction.Classify, request_)
    assert found == code
    assert re.search(text, details)


def regression(*examples, model="tiny", signature="regress"):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    request.input.example_list.examples.extend(examples)
    return request


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (regression_pb2.RegressionRequest(), INVALID, "Missing ModelSpec"),
        (regression(model="x"), NOT_FOUND, r"Servable not found for request: Latest\(x\)"),
        (regression(signature="nope"), INVALID, "No signature was found with the name: nope"),
        (regression(signature="classify"), INVALID, "Expected one output Tensor, found 2"),
        (regression(signature=""), INVALID, "(?s)No regression inputs found in SignatureDef: inputs {.*images"),
        (regression(), INVALID, "Input is empty."),
        (
            regression(example(), signature="pairs"),
            INVALID,
            r"to be either \[batch_size\] or \[batch_size, 1\] but got \[1,2\]",
        ),
    ],
    ids=lambda value: value.replace(" ", "-")[:50] if isinstance(value, str) else "",
)
def test_regress(engine_stubs, request_, code, text):
    found, details = failure(engine_stubs.prediction.Regress, request_)
    assert found == code
    assert re.search(text, details)


def inference(*tasks):
    request = inference_pb2.MultiInferenceRequest()
    for model, signature, method in tasks:
        spec = request.tasks.add(method_name=f"tensorflow/serving/{method}").model_spec
        spec.name, spec.signature_name = model, signature
    request.input.example_list.examples.extend([example()])
    return request


BOTH = (("tiny", "regress", "regress"), ("tiny", "classify", "classify"))


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (inference(), INVALID, "ModelSpec has no name specified."),
        (inference(BOTH[0], ("", "classify", "classify")), INVALID, "Found ModelSpec with an empty model name."),
        (inference(("x", "classify", "classify")), NOT_FOUND, "Servable not found for request: Latest(x)"),
        (
            inference(BOTH[0], ("other", "classify", "classify")),
            INVALID,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (inference(*BOTH, BOTH[1]), INVALID, "Duplicate evaluation of signature: classify"),
        (inference(("tiny", "nope", "classify")), INVALID, "Requested signature not found in model graph: nope"),
        (
            inference(("tiny", "classify", "predict")),
            grpc.StatusCode.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (inference(("tiny", "classify", "regress")), INVALID, "Expected one output Tensor, found 2"),
    ],
)
def test_multi_inference(engine_stubs, request_, code, text):
    assert failure(engine_stubs.prediction.MultiInference, request_) == (code, text)


def test_predict_with_a_bad_example(engine_stubs):
    request = predict({"inputs": [b"garbage!!"]}, signature="classify")
    code, details = failure(engine_stubs.prediction.Predict, request)
    assert code == INVALID
    assert details.startswith("Could not parse example input, value: 'garbage!!'")


def test_predict_with_a_bad_example_that_is_no_text_either(engine_stubs):
    request = predict({"inputs": [b"\x89\xff"]}, signature="classify")
    code, details = failure(engine_stubs.prediction.Predict, request)
    assert code == INVALID
    assert details.startswith(r"Could not parse example input, value: '\x89\xff'")


def metadata(*fields, model="tiny"):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model
    return request


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (get_model_metadata_pb2.GetModelMetadataRequest(), INVALID, "Missing ModelSpec"),
        (metadata(), INVALID, "GetModelMetadataRequest must specify at least one metadata_field"),
        (metadata("signature_def", "weights"), INVALID, "Metadata field weights is not supported"),
        (metadata("weights", model="x"), INVALID, "Metadata field weights is not supported"),
        (metadata("signature_def", model="x"), NOT_FOUND, "Servable not found for request: Latest(x)"),
    ],
)
def test_get_model_metadata(stubs, request_, code, text):
    assert failure(stubs.prediction.GetModelMetadata, request_) == (code, text)


def test_get_model_status(stubs):
    request = get_model_status_pb2.GetModelStatusRequest()
    assert failure(stubs.model.GetModelStatus, request) == (INVALID, "Missing ModelSpec")
    request.model_spec.name = "x"
    assert failure(stubs.model.GetModelStatus, request) == (NOT_FOUND, "Could not find any versions of model x")
    request.model_spec.name = "tiny"
    request.model_spec.version.value = 9
    assert failure(stubs.model.GetModelStatus, request) == (NOT_FOUND, "Could not find version 9 of model tiny")


def test_a_call_that_is_not_implemented(stubs):
    call = stubs.channel.unary_unary("/tensorflow.serving.SessionService/SessionRun")
    assert failure(call, b"")[0] == grpc.StatusCode.UNIMPLEMENTED


def test_long_texts_are_cut_as_tensorflow_serving_cuts_them(stubs):
    code, text = failure(stubs.prediction.Predict, predict({"images": IMAGE}, signature="x" * 2000))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert len(text) == 1024 + len("...TRUNCATED")
    assert text.endswith("x...TRUNCATED")
