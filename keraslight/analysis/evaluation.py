"""How good a model is: accuracy, scores per class, confusions, calibration, and what changes to the images cost.

Everything is computed from arrays of targets and outputs; `evaluate` runs a model first.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from keraslight import _tasks
from keraslight._notebook import Report
from keraslight._tasks import Head
from keraslight.analysis._evaluation_text import text
from keraslight.analysis._scores import (
    Array,
    Calibration,
    ClassScore,
    ValueScore,
    average_precision,
    calibration,
    class_score,
    class_scores,
    confusion_matrix,
    value_score,
)
from keraslight.errors import InvalidArgumentError
from keraslight.labels import check_labels
from keraslight.layers import ImageViews

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keraslight._pictures import StrPath

Predict = Callable[[Array], Any]
_CHUNK = 256  # images that are changed at a time


def _warp(**views: Any) -> Predict:
    return lambda images: keras.ops.convert_to_numpy(ImageViews(**views, name="change", dtype="float32")(images))


ROBUSTNESS: Mapping[str, Predict] = {
    "scaled by 0.6": _warp(scales=(0.6,)),
    "scaled by 1.5": _warp(scales=(1.5,)),
    "turned by 25 degrees": _warp(rotations=(25.0,)),
    "turned by -35 degrees": _warp(rotations=(-35.0,)),
    "0.3 times as bright": lambda images: images * np.float32(0.3),
    "brighter by 80": lambda images: np.clip(images + np.float32(80), 0, 255),
    "low contrast": lambda images: images * np.float32(0.3) + np.float32(90),
}
"""Changes to images, pixels 0..255, that `evaluate` can measure: name -> function of a batch (B, H, W, C), float32.

Scales and turns are about the center, with black from outside; positive angles are counterclockwise. Low contrast is
`0.3 * x + 90`.
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation(Report):
    """What `evaluate` measured; `str()` is a report of at most 80 columns.

    Attributes:
        name: Name of the model.
        task: What its outputs are: `"softmax"`, `"multi-label"`, `"binary"` or `"regression"`.
        images: Number of images.
        labels: Names of the classes, or of the numbers of a regression. Of a `binary` model both classes.
        accuracy: Share of right answers, 0 to 1; for `multi-label` of right decisions; None for a regression.
        mean_average_precision: Of a `multi-label` model: mean over the classes that occur.
        r2: Coefficient of determination of all numbers of a regression.
        classes: Scores per class; empty for a regression.
        values: Errors per number of a regression.
        confusion: (K, K) counts with a row per true class and a column per answer; of one of several classes only.
        calibration: Of the probability of each answer; for `multi-label` of each score. None for a regression.
        robustness: Name of a change to the images -> `score` with it.
        targets: (N,) classes, or (N, K).
        outputs: (N, K) probabilities, or numbers of a regression.
    """

    name: str
    task: str
    images: int
    labels: tuple[str, ...]
    accuracy: float | None
    mean_average_precision: float | None
    r2: float | None
    classes: tuple[ClassScore, ...]
    values: tuple[ValueScore, ...]
    confusion: Array | None
    calibration: Calibration | None
    robustness: dict[str, float]
    targets: Array = dataclasses.field(repr=False)
    outputs: Array = dataclasses.field(repr=False)

    @property
    def score(self) -> float:
        """What `robustness` lists: accuracy, mean average precision for `multi-label`, R2 of a regression."""
        by_task = {"multi-label": self.mean_average_precision, "regression": self.r2}
        found = by_task.get(self.task, self.accuracy)
        return math.nan if found is None else found

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serializable dict of everything except for targets and outputs; None stands for NaN."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["targets"], fields["outputs"]
        values: dict[str, Any] = _plain({**fields, "score": self.score})
        return values

    def worst(self, count: int) -> npt.NDArray[np.int64]:
        """Indices of up to `count` images, those first whose right answer the model gives the least probability.

        Of a `multi-label` model its least probable label counts, and of a regression the largest error, relative to
        the spread of the number.
        """
        rows, targets = np.asarray(self.outputs, np.float64), self.targets
        if self.task == "softmax":
            right = rows[np.arange(len(rows)), targets]
        elif self.task == "regression":
            right = -(np.abs(rows - targets) / np.maximum(targets.std(0), 1e-12)).max(-1)
        else:
            yes = targets.reshape(rows.shape) > 0.5
            right = np.where(yes, rows, 1 - rows).min(-1)
        return np.argsort(right, kind="stable")[:count]

    def plot(self, path: "StrPath | None" = None) -> "Figure":
        """Draws confusions, calibration, scores per class and robustness as one picture.

        Args:
            path: File to write, .png or .svg.

        Raises:
            InvalidArgumentError: `path` has another ending.
            MissingDependencyError: The extra `analysis` is not installed.
        """
        from keraslight.analysis._evaluation_plot import plot

        return plot(self, path)

    def __str__(self) -> str:
        return text(self)


def evaluate(
    model: keras.Model | Predict,
    images: npt.ArrayLike,
    targets: npt.ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    task: str | None = None,
    thresholds: float | Sequence[float] = 0.5,
    changes: Mapping[str, Predict] | None = None,
    batch_size: int = 32,
    name: str | None = None,
) -> Evaluation:
    """Measures how good a model is on labeled images.

    Args:
        model: A model with one output (B, K); or a function of float32 images (B, H, W, C) that returns probabilities
            (B, K), logits, or numbers of a regression, such as `keraslight.export.litert_runner(file)`. Outputs of a
            function that leave 0..1 are taken for logits.
        images: (N, H, W, C), at least one, as the model takes them.
        targets: One of several classes: integers (N,), or rows (N, K) whose largest value is the class. `multi-label`:
            rows (N, K) of 0 and 1. `binary`: 0 or 1, (N,) or (N, 1). `regression`: numbers (N, K), or (N,) for K = 1.
        labels: K names; of a `binary` model one or both classes. None: numbers.
        task: `"softmax"`, `"multi-label"`, `"binary"` or `"regression"`. None: what the model's final activation says,
            and for a function `"softmax"` if its rows add up to 1.
        thresholds: Score above which the answer of a `multi-label` or `binary` model is yes, between 0 and 1; one for
            all classes or one for each.
        changes: Changes to images to measure as well, such as `ROBUSTNESS`; name -> function of float32 (B, H, W, C).
            Those of `ROBUSTNESS` need pixels 0..255.
        batch_size: Images per call of the model.
        name: Name for the report. None: the model's; `"model"` for a function.

    Raises:
        InvalidArgumentError: Images, targets, labels or thresholds don't fit the model or each other, an output is not
            finite, or the task must be said.
    """
    images, targets = np.asarray(images), np.asarray(targets)
    _check(images, targets, changes, batch_size)
    outputs = _run(model, images, None, batch_size)
    head = _tasks.read_head(model, task) if isinstance(model, keras.Model) else _tasks.read_outputs(outputs, task)
    _tasks.check_labels(head, (None, *outputs.shape[1:]), targets, "targets")
    limits, names = _tasks.check_thresholds(head, thresholds), _names(head, labels)
    targets = _targets(head, targets)
    scores = _tasks.probabilities(head, outputs)
    robustness = {}
    for change, function in (changes or {}).items():
        changed = _tasks.probabilities(head, _run(model, images, function, batch_size))
        robustness[change] = _score(head, targets, changed, limits)
    made = _measured(head, targets, scores, names, limits)
    shown = name or getattr(model, "name", None) or "model"
    return Evaluation(name=str(shown), images=len(images), robustness=robustness, **made)


def _measured(head: Head, targets: Array, scores: Array, names: list[str], limits: Array) -> dict[str, Any]:
    """The fields of an `Evaluation` that follow from targets and probabilities, or numbers."""
    made: dict[str, Any] = {
        "task": head.task,
        "labels": tuple(names),
        "accuracy": None,
        "mean_average_precision": None,
        "r2": None,
        "classes": (),
        "values": (),
        "confusion": None,
        "calibration": None,
        "targets": targets,
        "outputs": scores,
    }
    if head.task == "regression":
        values = tuple(value_score(*column) for column in zip(names, targets.T, scores.T, strict=True))
        return {**made, "r2": _tasks.fit(scores, targets), "values": values}
    if head.task == "multi-label":
        given, true = scores > limits, targets > 0.5
        counts = ((given & true).sum(0), given.sum(0), true.sum(0))
        precisions = [average_precision(*column) for column in zip(targets.T, scores.T, strict=True)]
        classes = tuple(
            class_score(label, *map(int, each), threshold=float(limit), average_precision=precision)
            for label, *each, limit, precision in zip(names, *counts, limits, precisions, strict=True)
        )
        return {
            **made,
            "accuracy": float((given == true).mean()),
            "mean_average_precision": _mean(precisions),
            "classes": classes,
            "calibration": calibration(scores, true),
        }
    answers = _answers(head, scores, limits)
    confusion = confusion_matrix(targets, answers, len(names))
    rows = np.concatenate([1 - scores, scores], axis=1) if head.task == "binary" else scores
    stated = rows[np.arange(len(rows)), answers]
    return {
        **made,
        "accuracy": float((answers == targets).mean()),
        "classes": class_scores(confusion, names),
        "confusion": confusion,
        "calibration": calibration(stated, answers == targets),
    }


def _score(head: Head, targets: Array, scores: Array, limits: Array) -> float:
    """What `Evaluation.score` says."""
    if head.task == "regression":
        return _tasks.fit(scores, targets)
    if head.task == "multi-label":
        return _mean([average_precision(*column) for column in zip(targets.T, scores.T, strict=True)])
    return float((_answers(head, scores, limits) == targets).mean())


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _answers(head: Head, scores: Array, limits: Array) -> Array:
    answers: Array = (scores[:, 0] > limits[0]).astype(np.int64) if head.task == "binary" else scores.argmax(-1)
    return answers


def _run(model: Any, images: Array, change: Predict | None, batch_size: int) -> Array:
    """The outputs for all images, changed first."""
    return np.concatenate(list(_chunks(model, images, change, batch_size)))


def _chunks(model: Any, images: Array, change: Predict | None, batch_size: int) -> Iterator[Array]:
    size = -(-_CHUNK // batch_size) * batch_size
    for start in range(0, len(images), size):
        part = images[start : start + size].astype(np.float32)
        if change is not None:
            part = np.asarray(change(part), np.float32)
        if isinstance(model, keras.Model):
            outputs = model.predict(part, batch_size=batch_size, verbose=0)
        else:
            batches = [model(part[at : at + batch_size]) for at in range(0, len(part), batch_size)]
            outputs = np.concatenate([keras.ops.convert_to_numpy(batch) for batch in batches])
        outputs = outputs if isinstance(outputs, dict | list | tuple) else np.asarray(outputs, np.float32)
        if not isinstance(outputs, np.ndarray) or outputs.ndim != 2 or len(outputs) != len(part):
            shape = getattr(outputs, "shape", type(outputs).__name__)
            raise InvalidArgumentError(
                f"`model` must return one row of outputs per image, (B, K). Received: {shape} for {len(part)} images."
            )
        if not np.isfinite(outputs).all():
            raise InvalidArgumentError("`model` must return finite numbers. Received: others among its outputs.")
        yield outputs


def _check(images: Array, targets: Array, changes: Mapping[str, Predict] | None, batch_size: int) -> None:
    if images.ndim != 4 or not len(images) or images.dtype.kind not in "biuf":
        raise InvalidArgumentError(
            f"`images` must be numbers (N, H, W, C), at least one. Received: {images.dtype} of shape {images.shape}."
        )
    if not targets.ndim or len(targets) != len(images):
        raise InvalidArgumentError(
            f"`targets` must be one per image. Received: shape {targets.shape} for {len(images)} images."
        )
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        raise InvalidArgumentError("`targets` must be finite. Received: others among them.")
    if batch_size < 1:
        raise InvalidArgumentError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}.")
    known = {id(function) for function in ROBUSTNESS.values()}
    if changes and any(id(function) in known for function in changes.values()):
        low, high = images.min(), images.max()
        if low < 0 or not 1 < high <= 255:
            raise InvalidArgumentError(
                "`changes` of ROBUSTNESS need images of pixels 0..255: put the normalization into the model, as "
                f"`preprocessing=` of `create_model` does. Received: images from {low} to {high}."
            )


def _names(head: Head, labels: Sequence[str] | None) -> list[str]:
    count = 2 if head.task == "binary" else head.units
    if labels is None:
        return [str(number) for number in range(count)]
    if head.task == "binary" and len(labels) == 1:
        labels = [f"not {labels[0]}", *labels]
    return check_labels(labels, count)


def _targets(head: Head, targets: Array) -> Array:
    """(N,) classes, or (N, K)."""
    if head.task == "softmax":
        rows = targets.ndim == 2 and targets.shape[1] == head.units
        return (targets.argmax(-1) if rows else targets.reshape(-1)).astype(np.int64)
    if head.task == "binary":
        return (targets.reshape(-1) > 0.5).astype(np.int64)
    return targets.reshape(len(targets), head.units)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
