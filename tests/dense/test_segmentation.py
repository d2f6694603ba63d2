"""Losses and figures of segmenters."""

from pathlib import Path

import keras
import numpy as np
import pytest

import keraslight
from keraslight import segmentation
from keraslight.errors import InvalidArgumentError
from tests.golden import dense_rule

META, _ = dense_rule.load(Path(__file__).parent.parent / "golden" / "dense" / "losses_200.npz")
OHEM = META["parts"]["ohem"]["results"]


def problem(gain=1.0):
    """Logits and labels as the fixture's text says."""
    shape = (2, 48, 40)
    logits = dense_rule.make_input(230, (*shape, 19)) * 2 * gain
    other = np.floor(np.random.default_rng(231).random(shape) * 19).astype(np.int64)
    labels = np.where(np.random.default_rng(232).random(shape) < 0.97, logits.argmax(axis=-1), other)
    labels[:, :3] = 255
    return logits.astype("float32"), labels


@pytest.mark.parametrize("case", OHEM)
def test_hard_pixels_loss_is_the_references(case):
    logits, labels = problem(OHEM[case]["gain"])
    np.testing.assert_allclose(segmentation.ohem_cross_entropy(logits, labels), OHEM[case]["loss"], rtol=1e-6)


@pytest.mark.parametrize("case", OHEM)
def test_hard_pixels_are_the_references(case):
    import tensorflow as tf

    logits, labels = problem(OHEM[case]["gain"])
    tensor = tf.convert_to_tensor(logits)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = segmentation.ohem_cross_entropy(tensor, labels)
    slopes = np.asarray(tape.gradient(value, tensor))
    assert np.count_nonzero(np.abs(slopes).sum(axis=-1)) == OHEM[case]["pixels_with_gradient"]


def test_cross_entropy_is_the_mean_of_the_pixels_that_count():
    logits, labels = problem()
    counted = labels != 255
    shares = np.asarray(keras.ops.softmax(logits))
    wanted = -np.log(np.take_along_axis(shares, np.where(counted, labels, 0)[..., None], -1)[..., 0])[counted].mean()
    np.testing.assert_allclose(segmentation.cross_entropy(logits, labels), wanted, rtol=1e-5)


@pytest.mark.parametrize("loss", [segmentation.cross_entropy, segmentation.ohem_cross_entropy])
def test_images_without_labels_have_no_loss(loss):
    logits, labels = problem()
    assert float(loss(logits, np.full_like(labels, 255))) == 0


def test_dice_of_certain_right_answers_is_0():
    labels = np.random.default_rng(0).integers(0, 3, (1, 8, 8))
    logits = np.eye(3, dtype="float32")[labels] * 100
    np.testing.assert_allclose(segmentation.dice(logits, labels), 0, atol=1e-6)


def test_dice_counts_shared_areas_twice():
    labels = np.array([[[0, 0, 1, 255]]])
    logits = np.array([[[[99.0, 0], [0, 99], [0, 99], [0, 99]]]], "float32")
    # class 0: 1 shared, areas 1 and 2; class 1: 1 shared, areas 2 and 1; one pixel more above and below
    np.testing.assert_allclose(segmentation.dice(logits, labels), 1 - (2 + 1) / (3 + 1), rtol=1e-5)


def test_bounds_out_of_range_are_an_error():
    logits, labels = problem()
    with pytest.raises(InvalidArgumentError, match=r"`threshold` must be in \(0, 1\] .* Received: threshold=0"):
        segmentation.ohem_cross_entropy(logits, labels, threshold=0)
    with pytest.raises(InvalidArgumentError, match="`smooth` must be above 0. Received: smooth=0."):
        segmentation.dice(logits, labels, smooth=0)


def test_figures_follow_from_the_confusion_matrix():
    truth = np.array([0, 0, 0, 1, 1, 255])
    predicted = np.array([0, 0, 1, 1, 0, 1])
    found = segmentation.figures(segmentation.confusion(truth, predicted, 3))
    np.testing.assert_array_equal(found.confusion, [[2, 1, 0], [1, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(found.iou, [2 / 4, 1 / 3, np.nan])
    np.testing.assert_allclose(found.recall, [2 / 3, 1 / 2, np.nan])
    assert found.miou == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.per_class(["sky", "road", "car"])["road"] == pytest.approx(1 / 3)


def test_the_mean_is_keras_mean_iou():
    truth, predicted = np.random.default_rng(0).integers(0, 4, (2, 500))
    metric = keras.metrics.MeanIoU(4)
    metric.update_state(truth, predicted)
    ours = segmentation.figures(segmentation.confusion(truth, predicted, 4)).miou
    assert ours == pytest.approx(float(metric.result()), rel=1e-6)


def test_labels_out_of_range_are_an_error():
    with pytest.raises(InvalidArgumentError, match=r"`truth` must be in 0..1. Received: 0..2."):
        segmentation.confusion(np.array([0, 2]), np.array([0, 1]), 2)


def test_masks_of_another_size_are_an_error():
    with pytest.raises(InvalidArgumentError, match=r"must have one shape. Received: \(2,\) and \(3,\)"):
        segmentation.confusion(np.zeros(2, int), np.zeros(3, int), 2)


def test_a_segmenter_is_evaluated_on_batches():
    model = keraslight.LRASPP("mobilenet_v2_035", classes=3, input_shape=(64, 64, 3))
    images = np.random.default_rng(0).normal(size=(3, 64, 64, 3)).astype("float32")
    masks = model.predict_on_batch(images)["logits"].argmax(axis=-1)
    found = segmentation.evaluate(model, [(images[:2], masks[:2]), (images[2:], masks[2:])])
    assert found.miou == 1
    assert found.confusion.sum() == 3 * 64 * 64


def test_a_classifier_is_an_error():
    with pytest.raises(InvalidArgumentError, match="`model` must be a segmenter.* Received: 'mobilenet_v2_035'"):
        segmentation.evaluate(keraslight.MobileNetV2("035", input_shape=(32, 32, 3)), [])
