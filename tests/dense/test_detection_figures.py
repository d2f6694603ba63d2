"""COCO's figures, compared with pycocotools'."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

import keraslight
from keraslight import detection
from keraslight.detection import Detections, Truths
from keraslight.errors import InvalidArgumentError
from tests.golden import dense_rule

FIXTURE = Path(__file__).parent.parent / "golden" / "dense" / "coco_eval_5.npz"
IMAGES, CLASSES = 24, 5


def corners(boxes):
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def figures(seed):
    """Ours, of the problem that a seed draws."""
    drawn = dense_rule.make_detection_set(seed, IMAGES, CLASSES)
    truths, found = ([[row for row in rows if row["image"] == i] for i in range(IMAGES)] for rows in drawn)

    def column(rows, name, kind):
        return np.array([row[name] for row in rows], kind)

    return detection.figures(
        [Truths(corners([r["box"] for r in t]), column(t, "label", int), column(t, "crowd", bool)) for t in truths],
        [Detections(corners([r["box"] for r in d]), column(d, "score", float), column(d, "label", int)) for d in found],
        CLASSES,
    )


def pycocotools_figures(seed):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truths, found = dense_rule.make_detection_set(seed, IMAGES, CLASSES)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(IMAGES)],
        "categories": [{"id": k + 1} for k in range(CLASSES)],
        "annotations": [{"id": n, **common(row), "iscrowd": row["crowd"]} for n, row in enumerate(truths, start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([{**common(row), "score": row["score"]} for row in found]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def common(row):
    area = row["box"][2] * row["box"][3]
    return {"image_id": row["image"], "category_id": row["label"] + 1, "bbox": row["box"], "area": area}


def test_all_figures_are_those_of_the_fixture():
    _, stored = dense_rule.load(FIXTURE)
    ours = figures(5)
    np.testing.assert_allclose(ours.summary(), stored["stats"], atol=1e-12)
    np.testing.assert_allclose(ours.class_ap, stored["ap_per_class"], atol=1e-12)
    np.testing.assert_allclose(ours.class_ap50, stored["ap50_per_class"], atol=1e-12)
    np.testing.assert_allclose(ours.precision, stored["precision"], atol=1e-12)
    np.testing.assert_allclose(ours.recall, stored["recall"], atol=1e-12)


def test_twenty_random_problems_have_pycocotools_figures():
    for seed in range(100, 120):
        np.testing.assert_allclose(figures(seed).summary(), pycocotools_figures(seed), atol=1e-12)


def test_areas_of_the_objects_may_be_given():
    """COCO's are those of outlines, which are smaller than the boxes around them."""
    box = np.array([[0.0, 0, 40, 40]])
    small = Truths(box, np.array([0]), areas=np.array([30.0 * 30]))
    found = Detections(box, np.array([0.9]), np.array([0]))
    assert detection.figures([small], [found], 1).ap_small == pytest.approx(1)
    assert detection.figures([small._replace(areas=None)], [found], 1).ap_small == -1


def test_figures_without_truths_are_minus_one():
    nothing = Truths(np.zeros((0, 4)), np.zeros(0, int))
    found = Detections(np.array([[0.0, 0, 4, 4]]), np.array([0.9]), np.array([1]))
    assert set(detection.figures([nothing], [found], 2).summary()) == {-1.0}


def test_figures_are_named_by_class():
    box = np.array([[0.0, 0, 40, 40]])
    truths, found = Truths(box, np.array([1])), Detections(box, np.array([0.9]), np.array([1]))
    assert detection.figures([truths], [found], 2).per_class(["cat", "dog"]) == pytest.approx({"cat": -1, "dog": 1})


def test_labels_out_of_range_are_an_error():
    box = np.array([[0.0, 0, 40, 40]])
    with pytest.raises(InvalidArgumentError, match=r"Labels of `truths` must be in 0..1. Received: 2..2."):
        detection.figures([Truths(box, np.array([2]))], [Detections(box, np.array([0.9]), np.array([1]))], 2)


def test_a_missing_image_is_an_error():
    with pytest.raises(InvalidArgumentError, match="one entry per image. Received: 0 and 1 entries."):
        detection.figures([], [Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))], 1)


def test_a_model_that_finds_its_own_detections_is_perfect():
    model = keraslight.SSDLite("mobilenet_v2_050", classes=2, input_shape=(64, 64, 3), preprocessing=True)
    how = detection.Suppression(score_threshold=0.2, detections=3)
    images = [np.random.default_rng(n).integers(0, 256, (50, 70, 3)) for n in range(3)]
    data = [
        (image, Truths(np.array([each.box for each in found]), np.array([each.index for each in found])))
        for image, found in zip(images, detection.detect(model, images, suppression=how), strict=True)
    ]
    figures = detection.evaluate(model, data, suppression=how, batch_size=2)
    assert figures.ap == pytest.approx(1)
    assert figures.ar100 == pytest.approx(1)
