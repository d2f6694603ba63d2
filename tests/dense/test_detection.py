"""Anchors, boxes, decoding and suppression, compared with the references."""

from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import keraslight
from keraslight import detection
from keraslight.errors import InvalidArgumentError
from tests.golden import dense_rule

GOLDEN = Path(__file__).parent.parent / "golden" / "dense"
SSD, NANODET = "tv__ssdlite320_mobilenet_v3_large", "ref__nanodet_plus_m_320"
SMALL = (64, 64, 3)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """SSDLite with the parameters of the reference, for raw pixels."""
    meta, _ = dense_rule.load(GOLDEN / f"{SSD}.npz")
    file = tmp_path_factory.mktemp("ssdlite") / "reference.safetensors"
    save_file(dict(dense_rule.params(meta)), file)
    return keraslight.create_model(f"torchvision/{SSD.removeprefix('tv__')}", weights=file, preprocessing=True)


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(0)
    return keraslight.SSDLite("mobilenet_v2_050", classes=3, input_shape=SMALL, preprocessing=True)


@pytest.mark.parametrize("case", ["default", "rect"])
def test_anchors_are_the_references(case):
    meta, stored = dense_rule.load(GOLDEN / f"{SSD}.npz")
    (row,) = (row for row in meta["cases"] if row["case"] == case)
    anchors = detection.ssd_anchors(tuple(row["shape"][1:3]), row["grids"])
    total = row["anchors"]["total"]
    assert anchors.shape == (total, 4)
    chosen = anchors[dense_rule.places(f"{case}.anchors", total, 250)]
    np.testing.assert_allclose(chosen, stored[f"{case}.anchors"], atol=1e-4)
    np.testing.assert_allclose(anchors.sum(dtype=float), row["anchors"]["sum"], rtol=1e-6)


def test_a_detectors_anchors_follow_from_its_maps(small):
    decoder = detection.decoder_of(small)
    assert decoder.grids == ((4, 4), (2, 2), (1, 1), (1, 1), (1, 1), (1, 1))
    assert len(decoder.anchors) == small.output["box_deltas"].shape[1]


def test_anchors_without_maps_are_an_error():
    with pytest.raises(InvalidArgumentError, match="`grids` must have one or more maps.* Received: .*grids=\\[\\]"):
        detection.ssd_anchors((320, 320), [])


def reference(image):
    meta, stored = dense_rule.load(GOLDEN / f"{SSD}.npz")
    (row,) = (row for row in meta["detections"] if row["image"] == image)
    wanted = [stored[f"{image}.{name}"] for name in ("boxes", "scores", "labels")]
    how = detection.Suppression(
        row["score_thresh"], row["nms_thresh"], row["topk_candidates"], row["detections_per_img"]
    )
    return dense_rule.make_image(row["seed"], *row["size"]), how, wanted


@pytest.mark.parametrize("image", ["square", "wide"])
def test_ssdlite_detects_what_torchvision_does(detector, image):
    pixels, how, (boxes, scores, labels) = reference(image)
    (found,) = detection.detect(detector, [pixels], suppression=how)
    np.testing.assert_array_equal([each.index + 1 for each in found], labels)  # theirs count the background
    np.testing.assert_allclose([each.score for each in found], scores, atol=1e-5)
    np.testing.assert_allclose([each.box for each in found], boxes, atol=0.01)


def test_suppression_in_a_graph_keeps_what_numpys_does(detector):
    import tensorflow as tf

    pixels, how, (_, scores, labels) = reference("square")
    outputs = detector(pixels[None].astype("float32"), training=False)
    decoder = detection.decoder_of(detector)
    decode = tf.function(lambda outputs: detection.suppress_in_graph(*decoder(outputs), how))
    boxes, found, classes, (count,) = map(np.asarray, decode(outputs))
    wanted = detection.suppress(*(np.asarray(part)[0] for part in decoder(outputs)), how)
    assert count == len(labels)
    np.testing.assert_array_equal(classes[0, :count] + 1, labels)
    np.testing.assert_allclose(found[0, :count], scores, atol=1e-5)
    np.testing.assert_allclose(boxes[0, :count], wanted.boxes, atol=1e-3)


def test_nanodet_detects_what_the_authors_code_does(tmp_path):
    meta, stored = dense_rule.load(GOLDEN / f"{NANODET}.npz")
    save_file(dict(dense_rule.params(meta)), tmp_path / "reference.safetensors")
    model = keraslight.create_model(
        "ref/nanodet-plus-m_320", weights=tmp_path / "reference.safetensors", preprocessing=True
    )
    (row,) = meta["detections"]
    image = dense_rule.make_image(row["seed"], *row["size"])
    outputs = dict(model.predict_on_batch(image[None].astype("float32")))
    outputs["class_logits"] = outputs["class_logits"] - row["class_logits_minus"]
    boxes, scores = detection.decoder_of(model)(outputs)
    how = detection.Suppression(row["score_thr"], row["iou_threshold"], len(boxes[0]), row["max_num"])
    found = detection.suppress(boxes[0], scores[0], how)
    np.testing.assert_array_equal(found.labels, stored["square.labels"])
    np.testing.assert_allclose(found.scores, stored["square.scores"], atol=1e-5)
    np.testing.assert_allclose(found.boxes, stored["square.boxes"], atol=0.01)


def test_decoding_reverses_encoding():
    random = np.random.default_rng(0)
    anchors, boxes = (np.sort(random.uniform(0, 99, (7, 2, 2)), axis=1).reshape(7, 4) for _ in range(2))
    np.testing.assert_allclose(detection.decode(detection.encode(boxes, anchors), anchors), boxes)


def test_a_decoded_box_is_at_most_62_5_times_its_anchor():
    (box,) = detection.decode(np.array([[0.0, 0.0, 99.0, 0.0]]), np.array([[0.0, 0.0, 2.0, 2.0]]))
    np.testing.assert_allclose(box, [1 - 62.5, 0, 1 + 62.5, 2])


def test_overlaps_are_shares_of_the_union():
    a = np.array([[0.0, 0, 2, 2], [5, 5, 6, 6]])
    b = np.array([[1.0, 0, 3, 2], [0, 0, 2, 2]])
    np.testing.assert_allclose(detection.iou(a, b), [[1 / 3, 1], [0, 0]])


def test_generalized_overlap_of_boxes_apart_is_negative():
    value = detection.giou(np.array([0.0, 0, 1, 1]), np.array([2.0, 0, 3, 1]))
    np.testing.assert_allclose(value, 0 - 1 / 3)


def test_boxes_are_clipped_to_the_image():
    (box,) = detection.clip(np.array([[-3.0, 5, 40, 12]]), height=10, width=30)
    np.testing.assert_array_equal(box, [0, 5, 30, 10])


def test_tensors_and_arrays_give_the_same_boxes():
    deltas = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    anchors = detection.ssd_anchors((32, 32), [(1, 1)])[:5]
    tensors = detection.decode(*map(keras.ops.convert_to_tensor, (deltas, anchors)))
    np.testing.assert_allclose(tensors, detection.decode(deltas, anchors), rtol=1e-5)


class TestSuppression:
    BOXES = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]])

    def test_of_overlapping_boxes_of_a_class_the_best_stays(self):
        found = detection.suppress(self.BOXES, np.array([[0.5], [0.9], [0.3]]))
        np.testing.assert_array_equal(found.scores, [0.9, 0.3])

    def test_boxes_of_different_classes_do_not_suppress_each_other(self):
        found = detection.suppress(self.BOXES, np.array([[0.5, 0], [0, 0.9], [0, 0]]))
        np.testing.assert_array_equal(found.labels, [1, 0])

    def test_scores_at_the_threshold_are_left_out(self):
        how = detection.Suppression(score_threshold=0.5)
        assert len(detection.suppress(self.BOXES, np.array([[0.5], [0.4], [0.6]]), how).boxes) == 1

    def test_the_best_of_all_classes_are_kept(self):
        how = detection.Suppression(detections=2)
        found = detection.suppress(self.BOXES, np.array([[0.5, 0], [0, 0.9], [0.7, 0]]), how)
        np.testing.assert_array_equal(found.scores, [0.9, 0.7])

    def test_only_the_best_candidates_of_a_class_are_looked_at(self):
        how = detection.Suppression(per_class=1)
        assert len(detection.suppress(self.BOXES, np.array([[0.5], [0.4], [0.6]]), how).boxes) == 1

    def test_nothing_is_found_without_scores_above_the_threshold(self):
        assert detection.suppress(self.BOXES, np.zeros((3, 2))).boxes.shape == (0, 4)

    @pytest.mark.parametrize("values", [{"score_threshold": -0.1}, {"iou_threshold": 1.5}, {"detections": 0}])
    def test_values_out_of_range_are_an_error(self, values):
        with pytest.raises(InvalidArgumentError, match=f"`{next(iter(values))}` must be .* Received: "):
            detection.Suppression(**values)


class TestDetect:
    def test_detections_are_named_and_best_first(self, small):
        images = [np.random.default_rng(0).integers(0, 256, (40, 90, 3))]
        (found,) = detection.detect(small, images, labels=["a", "b", "c"], score_threshold=0.1)
        scores = [each.score for each in found]
        assert scores == sorted(scores, reverse=True)
        assert {each.label for each in found} <= {"a", "b", "c"}

    def test_boxes_lie_in_each_image(self, small):
        images = [np.random.default_rng(n).integers(0, 256, (40 + n, 90, 3)) for n in range(3)]
        for image, found in zip(images, detection.detect(small, images, score_threshold=0.1), strict=True):
            for box in (each.box for each in found):
                assert 0 <= box.left <= box.right <= image.shape[1] + 1e-3
                assert 0 <= box.top <= box.bottom <= image.shape[0] + 1e-3

    def test_batches_do_not_change_what_is_found(self, small):
        images = [np.random.default_rng(n).integers(0, 256, (40, 90, 3)) for n in range(3)]
        one, three = (detection.detect(small, images, batch_size=size, score_threshold=0.1) for size in (1, 3))
        assert [[each.index for each in found] for found in one] == [[each.index for each in found] for found in three]

    def test_a_wrong_number_of_names_is_an_error(self, small):
        with pytest.raises(InvalidArgumentError, match="`labels` must name 3 classes. Received: 1 names."):
            detection.detect(small, [], labels=["a"])

    def test_grey_images_are_an_error(self, small):
        with pytest.raises(InvalidArgumentError, match=r"Images must have the shape .* Received: \(9, 9, 1\)"):
            detection.detect(small, [np.zeros((9, 9, 1))])

    def test_other_sizes_are_an_error_without_preprocessing(self):
        model = keraslight.SSDLite("mobilenet_v2_050", classes=3, input_shape=SMALL)
        with pytest.raises(InvalidArgumentError, match=r"must have the shape \(64, 64, 3\). Received: \(9, 9, 3\)"):
            detection.detect(model, [np.zeros((9, 9, 3))])

    def test_a_classifier_is_an_error(self):
        with pytest.raises(InvalidArgumentError, match="`model` must be a detector.* Received: 'mobilenet_v2_035'"):
            detection.decoder_of(keraslight.MobileNetV2("035", input_shape=SMALL))

    def test_a_detector_of_open_size_is_an_error(self):
        model = keraslight.SSDLite("mobilenet_v2_050", classes=3, input_shape=(None, None, 3))
        with pytest.raises(InvalidArgumentError, match="A detector needs images of one size. Received: "):
            detection.decoder_of(model)
