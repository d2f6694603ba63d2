"""MediaPipe Tasks reads our files as they are, labels and all. It runs in a process and an environment of its own."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file
from sklearn.datasets import load_sample_images

import keraslight
from keraslight.compress import prune_at_once
from keraslight.export import litert_parity, litert_report, litert_runner, save_servable, to_litert
from keraslight.labels import decode_predictions, imagenet_labels
from keraslight.preprocessing import Preprocessing
from tests.golden import golden_rule

GOLDEN = Path(__file__).parent.parent / "golden" / "timm__mobilenetv4_conv_small.npz"


@pytest.fixture(scope="module")
def photographs():
    """Two photographs as whole-numbered pixels (2, 224, 224, 3)."""
    spec = keraslight.model_info("mobilenet_v4_conv_small").preprocessing.replace(size=(224, 224))
    return np.stack([spec.fit(tf.constant(image)).numpy() for image in load_sample_images().images]).astype(np.uint8)


@pytest.fixture(scope="module")
def imagenet_model(tmp_path_factory):
    """1000 classes, with the weights of the golden fixture."""
    meta, _ = golden_rule.load(GOLDEN)
    file = tmp_path_factory.mktemp("golden") / "reference.safetensors"
    save_file(dict(golden_rule.params(meta)), file)
    return keraslight.create_model("timm/mobilenetv4_conv_small", weights=file, preprocessing=True)


@pytest.mark.parametrize("form", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
def test_photographs_get_the_same_ranking(imagenet_model, photographs, form, mediapipe_classify, tmp_path):
    ints = {"quantization": "int8", "representative_data": photographs, "input_dtype": "uint8"}
    path = to_litert(
        imagenet_model,
        tmp_path / "model.tflite",
        labels=imagenet_labels(),
        **(ints if form == "int8" else {}),
    )
    wanted = decode_predictions(litert_runner(path)(photographs), top=1000)
    found = mediapipe_classify(path, photographs)
    for ours, theirs in zip(wanted, found, strict=True):
        np.testing.assert_allclose([score for _, score in theirs], [p.score for p in ours[:5]], atol=1e-6)
        if form == "float32":
            assert [label for label, _ in theirs] == [p.label for p in ours[:5]]
        else:  # int8 probabilities are whole 256ths: many are equal, and equal ones may stand in any order
            assert {(label, round(256 * score)) for label, score in theirs} <= {
                (p.label, round(256 * p.score)) for p in ours
            }
    if form == "float32":
        probabilities = imagenet_model.predict(photographs.astype("float32"), verbose=0)
        assert [[p.label for p in ranking] for ranking in decode_predictions(probabilities)] == [
            [label for label, _ in ranking] for ranking in found
        ]


def test_a_sparse_file_in_its_own_form_is_read(mediapipe_classify, tmp_path):
    """Mirrored, with parts in place of concatenations, and with operators that the converter didn't write."""
    for name in ("efficientnet_b0", "ghostnet_050"):
        spec = Preprocessing((64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
        model = keraslight.create_model(name, width=0.25, classes=3, input_shape=(64, 64, 3), preprocessing=spec)
        model = prune_at_once(model, 0.8, policy="xnnpack")
        model.get_layer("classifier").bias.assign([0.5, 1.5, 1.0])  # random weights rank nothing
        file = to_litert(model, tmp_path / f"{name}.tflite", labels=["ant", "bee", "cow"])
        assert litert_report(file).sparse.accepted
        images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
        wanted = model.predict(images.astype("float32"), verbose=0)
        for answer, probabilities in zip(mediapipe_classify(file, images), wanted, strict=True):
            order = np.argsort(-probabilities)
            assert [label for label, _ in answer] == [["ant", "bee", "cow"][index] for index in order]
            np.testing.assert_allclose([score for _, score in answer], probabilities[order], atol=1e-5)


def test_a_servables_file_is_read_like_any_other(build_net, mediapipe_classify, tmp_path):
    """It gives logits, too, and its batch is open."""
    model, labels = build_net(), ["ant", "bee", "cow"]
    version = save_servable(model, tmp_path / "animals", labels=labels)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), np.uint8)
    wanted = model.predict(images.astype("float32"), verbose=0)
    for answer, probabilities in zip(mediapipe_classify(version / "model.tflite", images), wanted, strict=True):
        order = np.argsort(-probabilities)
        assert [label for label, _ in answer] == [labels[index] for index in order]
        np.testing.assert_allclose([score for _, score in answer], probabilities[order], atol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_labels_below_their_threshold_get_no_score(build_net, mediapipe_classify, tmp_path, activation):
    model, labels = build_net(activation=activation), ["ant", "bee", "cow"]
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), np.uint8)
    outputs = model.predict(images.astype("float32"), verbose=0)
    scores = outputs if activation else 1 / (1 + np.exp(-outputs))
    limits = (np.sort(scores, 0)[1:3].mean(0)).tolist()
    file = to_litert(model, tmp_path / "f.tflite", labels=labels, thresholds=limits, task="multi-label")
    for answer, row in zip(mediapipe_classify(file, images), scores, strict=True):
        wanted = np.where(row > limits, row, 0)
        np.testing.assert_allclose([dict(map(tuple, answer))[label] for label in labels], wanted, atol=1e-5)


def test_float16_stays_close(imagenet_model, photographs, tmp_path):
    path = to_litert(imagenet_model, tmp_path / "model.tflite", quantization="float16")
    parity = litert_parity(imagenet_model, path, photographs)
    assert parity.agreement == 1
    assert 0 < parity.largest_difference < 2e-3
