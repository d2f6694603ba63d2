"""Evaluations, compared with scikit-learn's."""

import json
import math

import keras
import numpy as np
import pytest
from sklearn import metrics

from keraslight import analysis
from keraslight.errors import InvalidArgumentError

RNG = np.random.default_rng(0)
COUNT, CLASSES = 300, 5
TARGETS = RNG.integers(0, CLASSES - 1, COUNT)  # none of the last class
SCORES = RNG.dirichlet(np.ones(CLASSES), COUNT).astype("float32")
SCORES[np.arange(COUNT), TARGETS] += 0.4
SCORES /= SCORES.sum(1, keepdims=True)
IMAGES = np.zeros((COUNT, 4, 4, 1), "uint8")
IMAGES[:, 0, 0, 0], IMAGES[:, 0, 1, 0], IMAGES[:, 1, 1, 0] = np.arange(COUNT) % 250, np.arange(COUNT) // 250, 99


def answering(rows):
    """A function that recognizes each of IMAGES and gives its row."""
    return lambda images: rows[(images[:, 0, 0, 0] + 250 * images[:, 0, 1, 0]).round().astype(int)]


@pytest.fixture(scope="module")
def report():
    return analysis.evaluate(answering(SCORES), IMAGES, TARGETS, ["a", "b", "c", "d", "e"], name="net")


def test_one_of_several_classes_as_scikit_learn_has_it(report):
    answers, classes = SCORES.argmax(1), range(CLASSES)
    assert report.task == "softmax"
    assert report.accuracy == report.score == metrics.accuracy_score(TARGETS, answers)
    np.testing.assert_array_equal(report.confusion, metrics.confusion_matrix(TARGETS, answers, labels=classes))
    wanted = metrics.precision_recall_fscore_support(TARGETS, answers, labels=classes, zero_division=0)
    found = np.array([[row.precision, row.recall, row.f1, row.count] for row in report.classes]).T
    np.testing.assert_allclose(found, np.array(wanted), atol=1e-12)
    assert [row.label for row in report.classes] == ["a", "b", "c", "d", "e"]
    assert (report.mean_average_precision, report.r2, report.values) == (None, None, ())


def test_rows_of_targets_name_the_class_of_their_largest_value(report):
    rows = np.eye(CLASSES)[TARGETS] * 0.9 + 0.02
    again = analysis.evaluate(answering(SCORES), IMAGES, rows)
    assert (again.accuracy, again.labels) == (report.accuracy, ("0", "1", "2", "3", "4"))


def test_logits_of_a_function_and_of_a_model_are_known(report):
    again = analysis.evaluate(answering(np.log(SCORES) + 3), IMAGES, TARGETS, task="softmax")
    np.testing.assert_allclose(again.outputs, SCORES, atol=1e-6)
    assert again.calibration.ece == pytest.approx(report.calibration.ece)
    images = keras.Input((4, 4, 1))
    model = keras.Model(images, keras.layers.Dense(CLASSES, name="logits")(keras.layers.Flatten()(images)))
    of_model = analysis.evaluate(model, IMAGES[:40], TARGETS[:40])
    np.testing.assert_allclose(of_model.outputs.sum(1), 1, atol=1e-5)
    assert of_model.accuracy == np.mean(model.predict(IMAGES[:40], verbose=0).argmax(1) == TARGETS[:40])


def test_calibration_by_its_definition():
    stated, right = SCORES.max(1), SCORES.argmax(1) == TARGETS
    found, error = analysis.calibration(stated, right), 0
    for low in range(15):
        inside = (stated > low / 15) & (stated <= (low + 1) / 15)
        assert found.counts[low] == inside.sum()
        if inside.any():
            assert found.accuracy[low] == pytest.approx(right[inside].mean())
            assert found.confidence[low] == pytest.approx(stated[inside].mean())
            error += inside.mean() * abs(right[inside].mean() - stated[inside].mean())
        else:
            assert math.isnan(found.accuracy[low])
    assert found.ece == pytest.approx(error)
    exact = analysis.calibration([0.0, 1.0, 1.0, 0.2], [False, True, True, False], bins=5)
    assert (exact.counts, exact.ece) == ((2, 0, 0, 0, 2), pytest.approx(0.05))


@pytest.mark.parametrize("digits", [8, 1])  # of which the second has many equal scores
def test_several_labels_as_scikit_learn_has_them(digits):
    rng = np.random.default_rng(1)
    targets = (rng.random((COUNT, 4)) < (0.5, 0.1, 0.3, 0)).astype("float32")
    scores = np.clip(rng.random((COUNT, 4)) * 0.7 + targets * 0.25, 0, 1).round(digits).astype("float32")
    limits = (0.5, 0.7, 0.35, 0.9)
    found = analysis.evaluate(answering(scores), IMAGES, targets, task="multi-label", thresholds=limits)
    given = scores > np.asarray(limits)
    wanted = metrics.precision_recall_fscore_support(targets, given, zero_division=0)
    rows = np.array([[row.precision, row.recall, row.f1, row.count] for row in found.classes]).T
    np.testing.assert_allclose(rows, np.array(wanted), atol=1e-12)
    precisions = [metrics.average_precision_score(targets[:, k], scores[:, k]) for k in range(3)]
    np.testing.assert_allclose([row.average_precision for row in found.classes[:3]], precisions, atol=1e-12)
    assert math.isnan(found.classes[3].average_precision)  # no image has it
    assert found.score == found.mean_average_precision == pytest.approx(np.mean(precisions))
    assert found.accuracy == pytest.approx((given == targets).mean())
    assert [row.threshold for row in found.classes] == list(limits)
    assert found.confusion is None
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["classes"][3]["average_precision"] is None
    assert "mean average precision" in str(found)


def test_best_thresholds_have_the_largest_f1():
    rng = np.random.default_rng(2)
    targets = rng.random((80, 3)) < (0.5, 0.2, 0)
    scores = np.clip(rng.random((80, 3)) * 0.7 + 0.25 * targets, 0, 1).round(2)
    found = analysis.best_thresholds(targets, scores)
    assert found[2] == 0.5
    for k in range(2):
        every = [metrics.f1_score(targets[:, k], scores[:, k] > limit) for limit in np.arange(0.005, 1, 0.01)]
        assert metrics.f1_score(targets[:, k], scores[:, k] > found[k]) == pytest.approx(max(every))


def test_one_score_is_two_classes():
    targets, scores = TARGETS % 2, (SCORES[:, 1::2].sum(1))[:, None]
    found = analysis.evaluate(answering(scores), IMAGES, targets, ["cat"], task="binary", thresholds=0.6)
    answers = (scores[:, 0] > 0.6).astype(int)
    assert found.labels == ("not cat", "cat")
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(targets, answers))
    assert found.accuracy == metrics.accuracy_score(targets, answers)
    assert sum(found.calibration.counts) == COUNT


def test_a_regression_as_scikit_learn_has_it():
    rng = np.random.default_rng(3)
    targets = rng.normal(size=(COUNT, 2)) * (1, 50) + (0, 7)
    outputs = targets + rng.normal(size=(COUNT, 2)) * (0.1, 20)
    found = analysis.evaluate(answering(outputs), IMAGES, targets, ["x", "y"], task="regression")
    outputs = outputs.astype("float32")
    for k, row in enumerate(found.values):
        pair = targets[:, k], outputs[:, k]
        assert row.r2 == pytest.approx(metrics.r2_score(*pair))
        assert row.mean_absolute_error == pytest.approx(metrics.mean_absolute_error(*pair))
        assert row.root_mean_square_error == pytest.approx(metrics.root_mean_squared_error(*pair))
        assert row.largest_error == pytest.approx(metrics.max_error(*pair))
        assert row.bias == pytest.approx((outputs - targets)[:, k].mean())
    assert found.score == found.r2
    assert (found.accuracy, found.confusion, found.calibration, found.classes) == (None, None, None, ())
    json.dumps(found.to_dict(), allow_nan=False)
    assert "RMS error" in str(found)


def test_changes_are_what_they_say():
    images = np.full((1, 9, 9, 1), 200.0, "float32")
    changed = {name: np.asarray(change(images)) for name, change in analysis.ROBUSTNESS.items()}
    assert changed["0.3 times as bright"].round(3).max() == 60
    assert changed["brighter by 80"].max() == 255
    assert changed["low contrast"].round(3).min() == 150
    assert changed["scaled by 0.6"][0, :, 4, 0].tolist()[0] == 0
    assert changed["scaled by 1.5"].min() == 200
    assert changed["turned by 25 degrees"][0, 0, 0, 0] == 0
    assert len(changed) == 7


@pytest.mark.parametrize(
    ("task", "targets", "rows", "worst"),
    [
        ("softmax", [0, 1, 1], [[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], [1, 0, 2]),
        ("binary", [0, 1, 0], [[0.3], [0.9], [0.8]], [2, 0, 1]),
        ("multi-label", [[0, 1], [1, 1], [0, 0]], [[0.1, 0.9], [0.9, 0.2], [0.3, 0.4]], [1, 2, 0]),
        ("regression", [[0, 0], [1, 100], [2, 200]], [[0, 50], [1, 100], [4, 200]], [2, 0, 1]),
    ],
)
def test_the_worst_images_come_first(task, targets, rows, worst):
    outputs = np.asarray(rows, "float32")
    found = analysis.evaluate(lambda images: outputs, np.zeros((3, 2, 2, 1)), np.asarray(targets), task=task)
    assert found.worst(5).tolist() == worst
    assert found.worst(1).tolist() == worst[:1]


def test_robustness_is_measured_on_changed_images():
    changes = {"next image": lambda images: np.roll(images, -1, axis=0)}
    found = analysis.evaluate(answering(np.eye(CLASSES)[TARGETS]), IMAGES[:200], TARGETS[:200], changes=changes)
    assert found.score == 1
    assert found.robustness == {"next image": np.mean(np.roll(TARGETS[:200], -1) == TARGETS[:200])}


def words(count, letters):
    return [f"{'long' * letters}{number}"[-letters:] + str(number) for number in range(count)]


@pytest.mark.parametrize("classes", [2, 5, 12, 200])
@pytest.mark.parametrize("letters", [1, 40])
def test_the_text_fits_80_columns(classes, letters):
    rng = np.random.default_rng(4)
    targets, scores = rng.integers(0, classes, COUNT), rng.dirichlet(np.ones(classes), COUNT)
    robustness = {"a change with a very long name, which somebody wrote": lambda images: images}
    name = "a_model_with_a_name_that_is_as_long_as_this" * 2
    found = analysis.evaluate(
        answering(scores), IMAGES, targets, words(classes, letters), changes=robustness, name=name
    )
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 110
    assert "Expected calibration error" in str(found)


@pytest.mark.parametrize("task", ["softmax", "multi-label", "binary", "regression"])
def test_the_picture(task, tmp_path):
    rows = {"softmax": SCORES, "multi-label": SCORES, "binary": SCORES[:, :1], "regression": SCORES}[task]
    targets = {"softmax": TARGETS, "binary": TARGETS % 2}.get(task, np.eye(CLASSES)[TARGETS])
    found = analysis.evaluate(answering(rows), IMAGES, targets, task=task, changes={"no change": lambda x: x})
    figure = found.plot(tmp_path / "evaluation.png")
    panels = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert len(panels) == {"softmax": 4, "multi-label": 3, "binary": 4, "regression": 2}[task]
    assert (tmp_path / "evaluation.png").stat().st_size > 10_000
    with pytest.raises(InvalidArgumentError, match="`path` must end in .png or .svg"):
        found.plot(tmp_path / "evaluation.jpg")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"images": IMAGES[:, :, :, 0]}, "`images` must be numbers .N, H, W, C., at least one"),
        ({"images": IMAGES[:0], "targets": TARGETS[:0]}, "`images` must be numbers"),
        ({"targets": TARGETS[:7]}, "`targets` must be one per image. Received: shape .7,. for 300 images"),
        ({"targets": TARGETS + 5}, "`targets` must hold labels for task='softmax', integers from 0 to 4"),
        ({"targets": np.full((COUNT, CLASSES), np.nan)}, "`targets` must be finite"),
        ({"labels": ["a", "b"]}, "labels"),
        ({"task": "classes"}, "`task` must be one of"),
        ({"task": "binary"}, "`task` must fit the outputs"),
        ({"model": answering(SCORES * 3)}, "`task` must be one of .* for a function whose rows don't add up to 1"),
        ({"model": answering(SCORES[:, :1])}, "`task` must be one of"),
        ({"model": answering(SCORES * np.nan)}, "`model` must return finite numbers"),
        ({"model": lambda images: images}, "`model` must return one row of outputs per image"),
        ({"model": lambda images: SCORES[:3]}, "`model` must return one row of outputs per image"),
        ({"thresholds": 1.5}, "`thresholds` must be between 0 and 1, one or 5. Received: thresholds=1.5"),
        ({"thresholds": (0.5, 0.5)}, "`thresholds` must be between 0 and 1, one or 5"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"images": IMAGES / 255, "changes": analysis.ROBUSTNESS}, "`changes` of ROBUSTNESS need images of pixels"),
    ],
)
def test_what_cannot_be_evaluated(changes, text):
    arguments = {"model": answering(SCORES), "images": IMAGES, "targets": TARGETS, **changes}
    with pytest.raises(InvalidArgumentError, match=text):
        analysis.evaluate(**arguments)


def test_arrays_that_do_not_fit_each_other():
    with pytest.raises(InvalidArgumentError, match="`targets` and `answers` must be as many"):
        analysis.confusion_matrix([0, 1], [1], 2)
    with pytest.raises(InvalidArgumentError, match="`answers` must be integers .N,. from 0 to 1"):
        analysis.confusion_matrix([0, 1], [1, 2], 2)
    with pytest.raises(InvalidArgumentError, match="`targets` and `scores` must be as many"):
        analysis.average_precision([0, 1], [0.5])
    with pytest.raises(InvalidArgumentError, match="`targets` and `scores` must both be .N, K."):
        analysis.best_thresholds([0, 1], [0.5, 0.5])
    with pytest.raises(InvalidArgumentError, match="`probabilities` and `right` must be as many"):
        analysis.calibration([], [])
