"""Losses of detectors, compared with the references' values, matches and gradients."""

from pathlib import Path

import keras
import numpy as np
import pytest

import keraslight
from keraslight import detection
from keraslight.errors import InvalidArgumentError
from tests.golden import dense_rule

META, STORED = dense_rule.load(Path(__file__).parent.parent / "golden" / "dense" / "losses_200.npz")
GRIDS = ((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))


def padded(images, most=8):
    """Boxes and labels of images as arrays with room for more."""
    boxes, labels = np.zeros((len(images), most, 4), "float32"), np.full((len(images), most), -1)
    for i, (theirs, classes) in enumerate(images):
        boxes[i, : len(theirs)], labels[i, : len(theirs)] = theirs, classes
    return boxes, labels


def gradient(loss, outputs, name, boxes, labels):
    import tensorflow as tf

    tensors = {key: tf.convert_to_tensor(value) for key, value in outputs.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = loss(tensors, boxes, labels)
    return np.asarray(tape.gradient(value, tensors)[name])


@pytest.fixture(scope="module")
def ssd():
    decoder = detection.AnchorDecoder((320, 320), GRIDS)
    outputs = {
        "class_logits": dense_rule.make_input(200, (2, 3234, 21)),
        "box_deltas": dense_rule.make_input(201, (2, 3234, 4)),
    }
    truths = padded([dense_rule.make_boxes(202, 6, 320, 320, 20), (np.zeros((0, 4)), [])])
    return detection.SSDLoss(decoder, empty_negatives=0), outputs, truths


@pytest.fixture(scope="module")
def nanodet():
    answers = dense_rule.make_input(210, (2, 2125, 112))
    answers[..., :80] = answers[..., :80] * 1.5 - 4
    outputs = {"class_logits": answers[..., :80], "box_distances": answers[..., 80:]}
    truths = padded([dense_rule.make_boxes(seed, n, 320, 320, 80) for seed, n in ((212, 5), (213, 3))])
    return detection.NanoDetLoss(detection.DistanceDecoder((320, 320))), outputs, truths


class TestSSD:
    def test_the_loss_is_torchvisions(self, ssd):
        loss, outputs, truths = ssd
        parts, wanted = loss.parts(outputs, *truths), META["parts"]["ssd"]["loss"]
        np.testing.assert_allclose(parts["boxes"], wanted["bbox_regression"], rtol=1e-6)
        np.testing.assert_allclose(parts["classes"], wanted["classification"], rtol=1e-6)

    def test_anchors_have_torchvisions_truths(self, ssd):
        loss, _, truths = ssd
        owner = np.asarray(loss.match(*map(keras.ops.convert_to_tensor, truths)))
        (positive,) = np.nonzero(owner[0] >= 0)
        np.testing.assert_array_equal(positive, STORED["ssd.positives"])
        np.testing.assert_array_equal(owner[0, positive], STORED["ssd.matched"])
        assert (owner[1] < 0).all()

    def test_offsets_are_torchvisions(self, ssd):
        loss, _, (boxes, _) = ssd
        anchors = loss.decoder.anchors[STORED["ssd.positives"]].astype(float)
        encoded = detection.encode(boxes[0].astype(float)[STORED["ssd.matched"]], anchors)
        np.testing.assert_allclose(encoded, STORED["ssd.encoded"], atol=1e-5)

    def test_hard_negatives_are_torchvisions(self, ssd):
        loss, outputs, truths = ssd
        slopes = gradient(loss, outputs, "class_logits", *truths)
        np.testing.assert_array_equal(np.nonzero(np.abs(slopes[0]).sum(axis=1))[0], STORED["ssd.grad_rows"])
        assert not slopes[1].any()

    def test_gradients_are_torchvisions(self, ssd):
        loss, outputs, truths = ssd
        slopes = gradient(loss, outputs, "class_logits", *truths)
        wanted = STORED["ssd.grad_cls.sample"]
        found = dense_rule.sampled("ssd.grad_cls", slopes, len(wanted))
        np.testing.assert_allclose(found, wanted, atol=1e-6 * np.abs(slopes).max())

    def test_an_image_without_objects_teaches_that_there_is_nothing(self, ssd):
        loss, outputs, truths = ssd
        loss = detection.SSDLoss(loss.decoder, empty_negatives=5)
        slopes = gradient(loss, outputs, "class_logits", *truths)
        assert np.count_nonzero(np.abs(slopes[1]).sum(axis=1)) == 5
        assert (slopes[1].sum(axis=0)[0]) < 0  # towards the background

    def test_a_batch_without_objects_has_finite_gradients(self, ssd):
        loss, outputs, (boxes, labels) = ssd
        loss = detection.SSDLoss(loss.decoder)
        for name in outputs:
            assert np.isfinite(gradient(loss, outputs, name, boxes, np.full_like(labels, -1))).all()


class TestNanoDet:
    def test_the_loss_is_the_authors(self, nanodet):
        loss, outputs, truths = nanodet
        parts, wanted = loss.parts(outputs, *truths), META["parts"]["nanodet"]
        for ours, theirs in (("quality", "loss_qfl"), ("overlap", "loss_bbox"), ("distribution", "loss_dfl")):
            np.testing.assert_allclose(parts[ours], wanted[theirs], rtol=1e-4)
        np.testing.assert_allclose(loss(outputs, *truths), wanted["loss"], rtol=1e-4)

    @pytest.mark.parametrize("image", [0, 1])
    def test_places_have_the_authors_truths(self, nanodet, image):
        loss, outputs, truths = nanodet
        logits, distances = map(keras.ops.convert_to_tensor, outputs.values())
        boxes, labels = map(keras.ops.convert_to_tensor, truths)
        found = loss.assign(logits, loss.decoder.boxes(distances), boxes, keras.ops.cast(labels, "int32"))
        owner, overlaps = (np.asarray(part)[image] for part in found)
        (positive,) = np.nonzero(owner >= 0)
        np.testing.assert_array_equal(positive, STORED[f"dsla.positives_{image}"])
        np.testing.assert_array_equal(owner[positive], STORED[f"dsla.truth_{image}"])
        np.testing.assert_allclose(overlaps[positive], STORED[f"dsla.iou_{image}"], atol=1e-5)

    def test_gradients_are_the_authors(self, nanodet):
        loss, outputs, truths = nanodet
        slopes = np.concatenate([gradient(loss, outputs, name, *truths) for name in outputs], axis=-1)
        wanted = STORED["nanodet.grad.sample"]
        found = dense_rule.sampled("nanodet.grad", slopes, len(wanted))
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(slopes).max())

    def test_a_batch_without_objects_has_finite_gradients(self, nanodet):
        loss, outputs, (boxes, labels) = nanodet
        for name in outputs:
            assert np.isfinite(gradient(loss, outputs, name, boxes, np.full_like(labels, -1))).all()


@pytest.mark.parametrize(
    ("build", "kind"), [(keraslight.SSDLite, detection.SSDLoss), (keraslight.NanoDetPlus, detection.NanoDetLoss)]
)
def test_a_model_learns_with_its_own_loss(build, kind):
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = build("mobilenet_v2_035", classes=2, input_shape=(64, 64, 3))
    loss, optimizer = detection.loss_of(model), keras.optimizers.Adam(1e-3)
    assert isinstance(loss, kind)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    truths = padded([([[8, 8, 40, 48]], [1]), ([[2, 10, 30, 30], [20, 20, 62, 60]], [0, 1])])
    values = []
    for _ in range(8):
        with tf.GradientTape() as tape:
            value = loss(model(images, training=True), *truths)
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        values.append(float(value))
    assert min(values) < 0.9 * values[0]


def test_an_option_of_another_loss_is_an_error():
    model = keraslight.SSDLite("mobilenet_v2_035", classes=2, input_shape=(64, 64, 3))
    with pytest.raises(InvalidArgumentError, match="Options of SSDLoss are empty_negatives, .* Received: beta."):
        detection.loss_of(model, beta=1.0)
