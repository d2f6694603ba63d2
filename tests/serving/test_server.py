"""Good requests, through TensorFlow Serving's own stubs."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from keraslight_serving.server import ModelServer
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.calls.messages import read_inputs
from keraslight_serving.server.running.signatures import Signature
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import to_tensor
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

LABELS = [b"cat", b"dog", b"eel"]


def predict(stubs, inputs, signature="", version=None, outputs=()):
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return stubs.prediction.Predict(request, timeout=60)


def arrays(response):
    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


@pytest.mark.parametrize("rows", [1, 3, 70])
def test_litert_and_tensorflow_agree(stubs, saved_model_stubs, rows):
    images = np.random.default_rng(rows).uniform(0, 255, (rows, 8, 8, 1)).astype(np.float32)
    lite = arrays(predict(stubs, {"images": images}))["probabilities"]
    full = arrays(predict(saved_model_stubs, {"images": images}))["probabilities"]
    assert lite.shape == (rows, 3)
    np.testing.assert_allclose(lite, full, atol=1e-4)
    assert np.ptp(full, axis=0).max() > 0.01 or rows == 1  # the images do get different answers


def test_answers_hold_lists_and_the_spec_that_was_used(stubs, pixels):
    response = predict(stubs, {"images": pixels.astype(np.float32)})
    assert len(response.outputs["probabilities"].float_val) == 12
    assert response.outputs["probabilities"].tensor_content == b""
    assert response.model_spec.name == "tiny"
    assert response.model_spec.signature_name == "serving_default"
    assert response.model_spec.version.value == 1


def test_encoded_images_are_ranked(stubs, png, pixels):
    found = arrays(predict(stubs, {"image_bytes": [png]}, signature="encoded"))
    plain = arrays(predict(stubs, {"images": pixels[:1].astype(np.float32)}))["probabilities"]
    np.testing.assert_allclose(found["probabilities"], plain, atol=1e-4)
    order = np.argsort(-plain[0])[:2]
    assert found["indices"].tolist() == [order.tolist()]
    assert found["classes"].tolist() == [[LABELS[i] for i in order]]
    np.testing.assert_allclose(found["scores"][0], plain[0][order], atol=1e-4)


def test_output_filter_chooses(stubs, png):
    response = predict(stubs, {"image_bytes": [png]}, signature="encoded", outputs=["scores"])
    assert set(response.outputs) == {"scores"}


def test_a_version_may_be_named(stubs, pixels):
    response = predict(stubs, {"images": pixels.astype(np.float32)}, version=1)
    assert response.model_spec.version.value == 1


def test_short_value_lists_are_filled_up(stubs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    tensor = request.inputs["images"]
    tensor.dtype = tf.float32.as_datatype_enum
    tensor.float_val.append(9)
    for size in (2, 8, 8, 1):
        tensor.tensor_shape.dim.add(size=size)
    filled = arrays(stubs.prediction.Predict(request, timeout=60))["probabilities"]
    plain = arrays(predict(stubs, {"images": np.full((2, 8, 8, 1), 9, np.float32)}))["probabilities"]
    np.testing.assert_array_equal(filled, plain)


def test_many_callers_get_their_own_answers(stubs):
    images = np.random.default_rng(0).uniform(0, 255, (24, 8, 8, 1)).astype(np.float32)
    alone = [arrays(predict(stubs, {"images": images[i : i + 1 + i % 3]}))["probabilities"] for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(
                lambda i: arrays(predict(stubs, {"images": images[i : i + 1 + i % 3]}))["probabilities"], range(24)
            )
        )
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def _example(png):
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(png)
    return example


def test_classify(stubs, png):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "classify"
    request.input.example_list.examples.extend([_example(png)] * 2)
    response = stubs.prediction.Classify(request, timeout=60)
    ranked = arrays(predict(stubs, {"image_bytes": [png]}, signature="encoded"))
    assert len(response.result.classifications) == 2
    for row in response.result.classifications:
        assert [c.label.encode() for c in row.classes] == ranked["classes"][0].tolist()
        np.testing.assert_allclose([c.score for c in row.classes], ranked["scores"][0], atol=1e-6)
    assert (response.model_spec.signature_name, response.model_spec.version.value) == ("classify", 1)


def test_classify_with_a_shared_context(stubs, png):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "classify"
    request.input.example_list_with_context.examples.add()
    request.input.example_list_with_context.context.CopyFrom(_example(png))
    response = stubs.prediction.Classify(request, timeout=60)
    assert len(response.result.classifications[0].classes) == 2


def test_regress(stubs, png, pixels):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "regress"
    request.input.example_list.examples.extend([_example(png)] * 2)
    response = stubs.prediction.Regress(request, timeout=60)
    np.testing.assert_allclose([r.value for r in response.result.regressions], [pixels[0].mean()] * 2, rtol=1e-6)
    assert (response.model_spec.signature_name, response.model_spec.version.value) == ("regress", 1)


def test_multi_inference(stubs, png, pixels):
    request = inference_pb2.MultiInferenceRequest()
    request.input.example_list.examples.extend([_example(png)] * 3)
    for name in ("regress", "classify"):
        spec = request.tasks.add(method_name=f"tensorflow/serving/{name}").model_spec
        spec.name, spec.signature_name = "tiny", name
    regressed, classified = stubs.prediction.MultiInference(request, timeout=60).results
    assert (regressed.model_spec.signature_name, regressed.model_spec.version.value) == ("regress", 1)
    assert regressed.regression_result.regressions[2].value == pytest.approx(pixels[0].mean())
    ranked = arrays(predict(stubs, {"image_bytes": [png]}, signature="encoded"))
    found = classified.classification_result.classifications
    assert len(found) == 3
    assert [c.label.encode() for c in found[0].classes] == ranked["classes"][0].tolist()


def test_metadata_unpacks_with_the_official_messages(stubs):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    response = stubs.prediction.GetModelMetadata(request, timeout=60)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    signatures = {"serving_default", "encoded", "classify", "regress", "pairs", "__saved_model_init_op"}
    assert set(found.signature_def) == signatures
    assert found.signature_def["classify"].method_name == "tensorflow/serving/classify"
    images = found.signature_def["serving_default"].inputs["images"]
    assert (images.dtype, [dim.size for dim in images.tensor_shape.dim]) == (tf.float32, [-1, 8, 8, 1])
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (1, "")


def test_status(stubs):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    (status,) = stubs.model.GetModelStatus(request, timeout=60).model_version_status
    assert (status.version, status.state, status.status.error_code) == (1, status.AVAILABLE, 0)


def test_a_file_made_for_one_image_takes_batches_all_the_same(
    publish, one_image_tflite, saved_model_stubs, connect, pixels
):
    images = pixels.astype(np.float32)
    with ModelServer("tiny", publish(files={"model.tflite": one_image_tflite})) as server:
        lite = arrays(predict(connect(server), {"images": images}))["probabilities"]
    full = arrays(predict(saved_model_stubs, {"images": images}))["probabilities"]
    np.testing.assert_allclose(lite, full, atol=1e-4)


def test_a_file_that_takes_images_of_any_size(publish, any_size_tflite, connect):
    images = np.random.default_rng(0).uniform(0, 255, (3, 11, 6, 1)).astype(np.float32)
    with ModelServer("tiny", publish(files={"model.tflite": any_size_tflite})) as server:
        stubs = connect(server)
        together = arrays(predict(stubs, {"images": images}))["mean"]
        np.testing.assert_allclose(together, images.mean((1, 2)), rtol=1e-5)
        with pytest.raises(Exception, match="must not be empty"):
            predict(stubs, {"images": images[:, :0]})
        assert arrays(predict(stubs, {"images": images[:, :2]}))["mean"].shape == (3, 1)


def test_a_quantized_file_takes_and_declares_its_own_types(publish, int8_tflite, connect, pixels):
    with ModelServer("tiny", publish(files={"model.tflite": int8_tflite})) as server:
        stubs = connect(server)
        found = arrays(predict(stubs, {"images": (pixels.astype(int) - 128).astype(np.int8)}))["probabilities"]
        assert (found.dtype, found.shape) == (np.int8, (4, 3))
        with pytest.raises(Exception, match="to be int8 but float is provided"):
            predict(stubs, {"images": pixels.astype(np.float32)})
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = "tiny"
        signatures = get_model_metadata_pb2.SignatureDefMap()
        stubs.prediction.GetModelMetadata(request, timeout=60).metadata["signature_def"].Unpack(signatures)
        assert signatures.signature_def["serving_default"].inputs["images"].dtype == tf.int8


def test_a_version_may_be_a_tflite_file_alone(publish, connect, pixels):
    with ModelServer("tiny", publish(without=("saved_model.pb",))) as server:
        stubs = connect(server)
        assert predict(stubs, {"images": pixels.astype(np.float32)}).outputs["probabilities"]
        with pytest.raises(Exception, match='Serving signature key \\"encoded\\" not found'):
            predict(stubs, {"image_bytes": [b""]}, signature="encoded")


def _signature_with_a_default():
    signature = pb.SignatureDef()
    for name in ("x", "y"):
        signature.inputs[name].name = f"{name}:0"
    signature.defaults["y"].CopyFrom(to_tensor(np.float32(2)))
    return Signature.of(signature)


def test_inputs_that_are_not_sent_come_from_the_defaults():
    found = read_inputs(_signature_with_a_default(), {"x": to_tensor(np.float32(1))})
    assert found == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["y"], "alias: x(feed name: x:0) not found in request and no default value provided. "
                "Inputs expected to be in the request {y}, or default input alias set: y"),
        (["x", "z"], "Inputs contains invalid name. Used request inputs: x, request input: x,z"),
    ],
    ids=["no default", "left over"],
)  # fmt: skip
def test_what_the_defaults_do_not_mend(names, text):
    with pytest.raises(StatusError) as caught:
        read_inputs(_signature_with_a_default(), {name: to_tensor(np.float32(1)) for name in names})
    assert str(caught.value).endswith(text)
