"""What a model's outputs are for: the losses, the scores and the form of the labels that go with it.

    task         outputs (B, K)                            labels
    softmax      K classes, of which one is right          integers (B,), or rows (B, K) that add up to 1
    multi-label  K scores from 0 to 1, independent          rows (B, K) from 0 to 1
    binary       one score from 0 to 1, of the second class (B,) or (B, 1), 0 or 1
    regression   numbers                                   numbers, (B, K), or (B,) for K = 1

`read_head` decides it for every part of the package: a final softmax or sigmoid says it, and several linear outputs are
the logits of a softmax. In any other case the caller must specify it. Outputs may also be maps, (B, H, W, K), with
labels for each pixel.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keraslight.errors import InvalidArgumentError
from keraslight.graph import check_ends, final_activation, remembered_task

TASKS = ("softmax", "multi-label", "binary", "regression")
_SQUASHED = ("sigmoid", "hard_sigmoid")
_SLACK = 0.02  # by which probabilities of an int8 file may leave 0..1
_CHOICES = (
    "'softmax' (one of several classes), 'multi-label' (independent scores), 'binary' (one score from 0 to 1) or "
    "'regression' (numbers as they are)"
)


@dataclasses.dataclass(frozen=True)
class Head:
    """What a model's outputs are.

    Attributes:
        task: One of `TASKS`.
        units: Number of outputs, K.
        activation: What turns the outputs into probabilities, `"softmax"` or `"sigmoid"`; None if they are
            probabilities, or numbers.
    """

    task: str
    units: int
    activation: str | None

    @property
    def ranks(self) -> bool:
        """Whether the outputs are scores of classes rather than numbers."""
        return self.task != "regression"


def read_head(model: Any, task: str | None = None) -> Head:
    """Decides what a model's outputs are.

    Args:
        model: A functional or sequential model, or a quantization-aware one of tf_keras.
        task: What the caller says; None asks the model, which may remember it from an earlier call.

    Raises:
        InvalidArgumentError: The task is unknown, contradicts the final activation, or is needed; or the model has no
            graph or several outputs.
    """
    check_task(task)
    check_ends(model, foreign=True)
    outputs = model.outputs
    if len(outputs) != 1 or len(outputs[0].shape) < 2:
        shapes = [tuple(output.shape) for output in outputs]
        raise InvalidArgumentError(
            "`model` must be a functional or sequential model with one output, (B, K). "
            f"Received: {type(model).__name__} with {len(outputs)} outputs, {shapes}."
        )
    task, units, end = task or remembered_task(model), outputs[0].shape[-1], final_activation(model)
    found = f"{model.name!r} with {units} {'output' if units == 1 else 'outputs'} and " + (
        "no final activation" if end is None else f"{end} at the end"
    )
    if task is None:
        if end == "softmax" or (end in (None, "log_softmax") and units != 1):
            task = "softmax"
        elif end in _SQUASHED:
            task = "binary" if units == 1 else "multi-label"
        else:
            raise InvalidArgumentError(f"`task` must say what the outputs are: {_CHOICES}. Received: {found}.")
    if task == "regression":
        return Head(task, units, None)
    fits = {
        "softmax": end == "softmax" or (units != 1 and end not in _SQUASHED),
        "multi-label": end is None or end in _SQUASHED,
        "binary": units == 1 and (end is None or end in _SQUASHED),
    }
    if not fits[task]:
        raise InvalidArgumentError(
            "`task` must fit the model: 'softmax' needs several outputs and no sigmoid; 'multi-label' needs sigmoids "
            "or no activation, and 'binary' the same with one output; 'regression' takes any. "
            f"Received: task={task!r} for {found}."
        )
    if task == "softmax":
        return Head(task, units, None if end == "softmax" else "softmax")
    return Head(task, units, None if end in _SQUASHED else "sigmoid")


def read_outputs(outputs: npt.NDArray[Any], task: str | None) -> Head:
    """Decides what the outputs (B, K) of a function are; those of a .tflite file, say.

    Args:
        outputs: Outputs for some images. Values that leave 0..1 are logits.
        task: What the caller says; None for `"softmax"` if all rows add up to 1.

    Raises:
        InvalidArgumentError: The task is unknown, doesn't fit the outputs, or is needed.
    """
    check_task(task)
    units = outputs.shape[1]
    scores = bool((outputs >= -_SLACK).all() and (outputs <= 1 + _SLACK).all())
    if task is None:
        if units < 2 or not scores or np.abs(outputs.sum(-1) - 1).max() > 0.1:
            raise InvalidArgumentError(
                f"`task` must be one of {TASKS} for a function whose rows don't add up to 1. "
                f"Received: task=None, outputs of shape {outputs.shape}."
            )
        task = "softmax"
    if (task == "softmax" and units < 2) or (task == "binary" and units != 1):
        raise InvalidArgumentError(
            f"`task` must fit the outputs: 'softmax' needs several, 'binary' one. Received: task={task!r}, {units}."
        )
    if task == "regression" or scores:
        return Head(task, units, None)
    return Head(task, units, "softmax" if task == "softmax" else "sigmoid")


def check_task(task: str | None) -> None:
    """Raises InvalidArgumentError for a task that does not exist."""
    if task is not None and task not in TASKS:
        raise InvalidArgumentError(f"`task` must be one of {TASKS}, or None. Received: {task!r}.")


def loss(head: Head, *, rows: bool = False, label_smoothing: float = 0.0, losses: Any = keras.losses) -> Any:
    """The loss of a task.

    Args:
        head: The model's outputs.
        rows: Whether labels of a softmax are rows (B, K) rather than integers.
        label_smoothing: Share of the target to distribute over all classes, in [0, 1).
        losses: `keras.losses`, or tf_keras'.
    """
    logits = head.activation is not None
    if head.task == "regression":
        return losses.MeanSquaredError()
    if head.task != "softmax":
        return losses.BinaryCrossentropy(from_logits=logits, label_smoothing=label_smoothing)
    if rows:
        return losses.CategoricalCrossentropy(from_logits=logits, label_smoothing=label_smoothing)
    return losses.SparseCategoricalCrossentropy(from_logits=logits)


def metric(head: Head, *, metrics: Any = keras.metrics) -> Any:
    """Accuracy, 0 to 1, called `accuracy`; for regression the mean absolute error."""
    if head.task == "regression":
        return metrics.MeanAbsoluteError()
    if head.task == "softmax":
        return "accuracy"
    return metrics.BinaryAccuracy(name="accuracy", threshold=0.5 if head.activation is None else 0.0)


def check_labels(head: Head, output_shape: Sequence[int | None], labels: Any, name: str = "data") -> bool:
    """Raises InvalidArgumentError unless labels, an array or a `tf.TensorSpec` of a batch, have the form of the task.

    Args:
        head: The model's outputs.
        output_shape: Their shape.
        labels: The labels; values are checked in an array only.
        name: Name of the argument that holds them, for the text of the error.

    Returns:
        Whether labels of a softmax are rows.
    """
    shape, outputs = labels.shape, tuple(output_shape)
    if getattr(shape, "rank", len(outputs)) is None:
        return False  # of a generator that doesn't say
    shape = tuple(shape)
    kind = np.dtype(getattr(labels.dtype, "as_numpy_dtype", labels.dtype)).kind
    whole = _fit(shape, outputs) or (head.units == 1 and _fit(shape, outputs[:-1]))
    if head.task == "softmax":
        rows = head.units != 1 and _fit(shape, outputs)
        integers = _fit(shape, outputs[:-1]) or _fit(shape, (*outputs[:-1], 1))
        fits, wanted = (
            rows or integers,
            f"integers from 0 to {head.units - 1}, or rows of {head.units} that add up to 1",
        )
    else:
        rows, fits = False, whole
        wanted = {
            "multi-label": f"rows of {head.units} numbers from 0 to 1",
            "binary": "0 or 1 for each image",
            "regression": f"{head.units} numbers for each image",
        }[head.task]
    found = f"labels of shape {shape}, {np.dtype(getattr(labels.dtype, 'as_numpy_dtype', labels.dtype)).name}"
    if fits and kind in "biuf" and isinstance(labels, np.ndarray) and labels.size and head.ranks:
        low, high = labels.min(), labels.max()
        counted = head.task == "softmax" and not rows
        fits = low >= 0 and high <= (head.units - 1 if counted else 1)
        if counted and kind == "f":
            fits = fits and bool((labels == np.floor(labels)).all())
        found += f" from {low} to {high}"
    if not fits or kind not in "biuf":
        raise InvalidArgumentError(
            f"`{name}` must hold labels for task={head.task!r}, {wanted}. Received: {found}, for outputs of shape "
            f"{outputs}."
        )
    return rows


def check_training(head: Head, model: Any, data: Any, validation_data: Any = None) -> bool:
    """As `check_labels`, for the data of a training: pairs of arrays or `tf.data.Dataset`s of batches."""
    rows = _check_data(head, model, data, "data")
    if validation_data is not None and _check_data(head, model, validation_data, "validation_data") != rows:
        raise InvalidArgumentError(
            "`validation_data` must have labels in the form of `data`. Received: integers in one, rows in the other."
        )
    return rows


def make_variables(trained: keras.Model, outputs: Any, data: Any) -> None:
    """Makes the variables of a compiled model's optimizer and metrics, on a made-up batch with labels as in `data`.

    A first training step that has to make them is traced twice, and for a model of a hundred layers each trace takes
    seconds.

    Args:
        trained: A compiled model.
        outputs: The symbolic outputs that its loss is of.
        data: A `tf.data.Dataset` of (images, labels).
    """
    trained.optimizer.build(trained.trainable_variables)
    labels = getattr(data.element_spec[1], "shape", None)
    shape = tuple(outputs.shape[1:])
    if labels is None or labels.rank is None or None in (*labels[1:], *shape):
        return
    guess = np.full((1, *shape), 1 / shape[-1], np.float32)
    trained.compute_metrics(None, np.zeros((1, *labels[1:]), data.element_spec[1].dtype.as_numpy_dtype), guess, None)
    trained.reset_metrics()


@contextlib.contextmanager
def labels_in_range() -> Iterator[None]:
    """Raises InvalidArgumentError in place of TensorFlow's error for an integer label that is out of range."""
    try:
        yield
    except Exception as error:
        wrong = re.search(r"label value of (-?\d+) which is outside the valid range of \[0, (\d+)\)", str(error))
        if wrong is None:
            raise
        raise InvalidArgumentError(
            f"`data` and `validation_data` must hold labels from 0 to {int(wrong[2]) - 1}. Received: {wrong[1]}."
        ) from None


def _check_data(head: Head, model: Any, data: Any, name: str) -> bool:
    spec = getattr(data, "element_spec", None)
    parts = data if spec is None else spec
    if not isinstance(parts, tuple | list) or len(parts) < 2 or (spec is not None and not hasattr(parts[1], "shape")):
        raise InvalidArgumentError(
            f"`{name}` must be a tf.data.Dataset of (images, labels) batches or a pair of arrays. "
            f"Received: {type(data).__name__ if spec is None else spec}."
        )
    labels = np.asarray(parts[1]) if spec is None else parts[1]
    return check_labels(head, model.outputs[0].shape, labels, name)


def _fit(shape: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether a shape may be the wanted one apart from the batch."""
    return len(shape) == len(wanted) and all(
        None in pair or pair[0] == pair[1] for pair in zip(shape[1:], wanted[1:], strict=True)
    )


def joined_labels(batches: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    """The labels of all batches; None without. InvalidArgumentError if they don't belong together."""
    labels = [batch for batch in batches if batch is not None]
    shapes = {batch.shape[1:] for batch in labels}
    if len(shapes) > 1 or 0 < len(labels) < len(batches):
        raise InvalidArgumentError(
            "`data` must hold labels of one shape for all batches, or none. "
            f"Received: {len(labels)} of {len(batches)} batches with labels, of shapes {sorted(shapes)} for an image."
        )
    return np.concatenate(labels) if labels else None


def score(head: Head, outputs: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """How well outputs fit labels that `check_labels` accepted.

    The share of right classes, or for `multi-label` and `binary` of right decisions, 0 to 1. For `regression` the
    coefficient of determination, 1 for a perfect fit and 0 for one that is no better than the labels' mean.
    """
    if head.task == "softmax":
        wanted = labels.argmax(-1) if labels.shape == outputs.shape and head.units != 1 else labels
        return float((outputs.argmax(-1).reshape(-1) == wanted.reshape(-1)).mean())
    labels = labels.reshape(outputs.shape)
    if head.ranks:
        return float((decisions(head, outputs) == (labels > 0.5)).mean())
    return fit(outputs, labels)


def agreement(head: Head, found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """As `score`, for the outputs of two models in place of outputs and labels."""
    if head.task == "softmax":
        return float((found.argmax(-1) == wanted.argmax(-1)).mean())
    if head.ranks:
        return float((decisions(head, found) == decisions(head, wanted)).mean())
    return fit(found, wanted)


def decisions(head: Head, outputs: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which scores of a `multi-label` or `binary` model say yes."""
    chosen: npt.NDArray[np.bool_] = outputs > (0.5 if head.activation is None else 0.0)
    return chosen


def check_thresholds(head: Head, thresholds: Any) -> npt.NDArray[np.float64]:
    """The thresholds of a `multi-label` or `binary` model's scores, (K,), from one or K numbers between 0 and 1."""
    try:
        limits = np.asarray(thresholds, np.float64)
    except (TypeError, ValueError):
        limits = np.full(0, np.nan)
    if limits.ndim > 1 or limits.size not in (1, head.units) or not ((limits > 0) & (limits < 1)).all():
        raise InvalidArgumentError(
            f"`thresholds` must be between 0 and 1, one or {head.units}. Received: thresholds={thresholds!r}."
        )
    return np.broadcast_to(limits, (head.units,))


def label_thresholds(head: Head, thresholds: Any) -> list[float] | None:
    """The threshold of each label of a `multi-label` model, from one or K numbers; None stays None."""
    if thresholds is None:
        return None
    if head.task != "multi-label":
        raise InvalidArgumentError(
            f"`thresholds` are for the independent scores of a 'multi-label' model. Received: task={head.task!r}."
        )
    limits: list[float] = check_thresholds(head, thresholds).tolist()
    return limits


def best_thresholds(targets: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[float, ...]:
    """The threshold of each label with the largest F1; choose them on other images than those to evaluate on.

    Args:
        targets: 0 or 1, (N, K).
        scores: Scores of a `multi-label` model, (N, K), 0 to 1.

    Returns:
        K numbers between 0 and 1, each in the middle between two scores, as a float32; 0.5 for a label without a
        positive image, or with all scores 0.
    """
    positive, found = np.asarray(targets) > 0.5, np.asarray(scores, np.float64)
    if positive.ndim != 2 or positive.shape != found.shape:
        raise InvalidArgumentError(
            f"`targets` and `scores` must both be (N, K). Received: shapes {positive.shape} and {found.shape}."
        )
    return tuple(_best_threshold(*column) for column in zip(positive.T, found.T, strict=True))


def _best_threshold(positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    order = np.argsort(-scores, kind="stable")
    hits, scores = np.cumsum(positive[order]), scores[order]
    ends = np.flatnonzero((np.append(scores[1:], -np.inf) != scores) & (scores > 0))  # no threshold is below 0
    if not positive.any() or not len(ends):
        return 0.5
    f1 = 2 * hits[ends] / (ends + 1 + hits[-1])  # of those up to each end
    end = ends[int(np.argmax(f1))]
    above, below = float(scores[end]), float(scores[end + 1]) if end + 1 < len(scores) else 0.0
    middle = (above + below) / 2
    rounded = float(np.float32(middle))
    if max(below, 1e-45) <= rounded < above:
        return rounded
    return below or middle  # neighbors in float32


def fit(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """The coefficient of determination; of values that are all alike, relative to their square."""
    found, wanted = (np.asarray(values, np.float64) for values in (found, wanted))
    error = float(((found - wanted) ** 2).sum())
    spread, square = float(((wanted - wanted.mean(0)) ** 2).sum()), float((wanted**2).sum())
    scale = spread if spread > 1e-9 * square else square
    return 1 - error / scale if scale else float(error == 0)


def probabilities(head: Head, outputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Probabilities of classes, from outputs (B, K); the numbers of a regression."""
    values = np.asarray(outputs, np.float32)
    if head.activation == "softmax":
        powers = np.exp(values - values.max(-1, keepdims=True))
        values = powers / powers.sum(-1, keepdims=True)
    elif head.activation == "sigmoid":
        values = (0.5 * (1 + np.tanh(0.5 * values))).astype(np.float32)
    return values
