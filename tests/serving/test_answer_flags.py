"""The flags that change what calls answer: --enable_signature_method_name_check and --enable_serialization_as_..."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from keraslight_serving.server import ModelServer
from tensorflow_serving.apis import classification_pb2, inference_pb2, predict_pb2, regression_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT
IMAGES = np.random.default_rng(2).uniform(0, 255, (2, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def strict(version_folder):
    with ModelServer(
        "tiny",
        version_folder.parent,
        enable_signature_method_name_check=True,
        enable_serialization_as_tensor_content=True,
    ) as server:
        yield server


def on_examples(kind, signature, png):
    request = kind()
    request.model_spec.name, request.model_spec.signature_name = "tiny", signature
    example = request.input.example_list.examples.add()
    example.features.feature["image/encoded"].bytes_list.value.append(png)
    return request


def predict(signature, inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "tiny", signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def failure(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60)
    return caught.value.code(), caught.value.details()


def test_signatures_have_to_be_made_for_the_call(strict, stubs, connect, png):
    ours = connect(strict).prediction
    good = on_examples(classification_pb2.ClassificationRequest, "classify", png)
    assert len(ours.Classify(good, timeout=60).result.classifications) == 1
    bad = on_examples(regression_pb2.RegressionRequest, "regress", png)
    text = "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict"
    assert failure(ours.Regress, bad) == (INVALID, text)
    assert stubs.prediction.Regress(bad, timeout=60)  # without the flag
    both = inference_pb2.MultiInferenceRequest(input=bad.input)
    for kind in ("classify", "regress"):
        spec = both.tasks.add(method_name=f"tensorflow/serving/{kind}").model_spec
        spec.name, spec.signature_name = "tiny", kind
    assert failure(ours.MultiInference, both) == (INVALID, text)
    other = on_examples(classification_pb2.ClassificationRequest, "encoded", png)
    assert failure(ours.Classify, other) == (
        INVALID,
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict",
    )
    missing = on_examples(classification_pb2.ClassificationRequest, "nope", png)
    assert failure(ours.Classify, missing) == (INVALID, "No signature was found with the name: nope")


def test_any_of_the_three_methods_may_be_predicted(strict, connect, png):
    ours = connect(strict).prediction
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(png)
    request = predict("classify", {"inputs": [example.SerializeToString()]})
    assert set(ours.Predict(request, timeout=60).outputs) == {"classes", "scores"}
    assert failure(ours.Predict, predict("__saved_model_init_op", {})) == (
        grpc.StatusCode.INTERNAL,
        "Expected prediction signature method_name to be one of {tensorflow/serving/predict, "
        "tensorflow/serving/classify, tensorflow/serving/regress}. Was: ",
    )


def test_answers_as_tensor_content(strict, stubs, connect):
    request = predict("serving_default", {"images": IMAGES})
    found = connect(strict).prediction.Predict(request, timeout=60).outputs["probabilities"]
    listed = stubs.prediction.Predict(request, timeout=60).outputs["probabilities"]
    assert not found.float_val
    assert not listed.tensor_content
    assert len(found.tensor_content) == 2 * 3 * 4
    np.testing.assert_array_equal(tf.make_ndarray(found), tf.make_ndarray(listed))
