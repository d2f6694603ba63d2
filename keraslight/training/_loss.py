"""Loss function for classifiers with probabilities or logits."""

from typing import Any

import keras

from keraslight import _tasks
from keraslight._tasks import Head
from keraslight.errors import InvalidArgumentError
from keraslight.graph import final_activation


@keras.saving.register_keras_serializable(package="keraslight")
class ClassificationLoss(keras.losses.Loss):
    """Cross-entropy with label smoothing: targets (B,) or (B, classes), outputs (B, classes) -> a number.

    Integer targets are classes, and rows are their shares, as of mixed images. Keras' loss for integer targets has no
    label smoothing. Source: Szegedy et al., "Rethinking the Inception
    Architecture", https://arxiv.org/abs/1512.00567, section 7.

    Args:
        label_smoothing: Share of the target to distribute over all classes, in [0, 1).
        from_logits: Whether the model ends without a softmax.
        name: Name of the loss.
        **kwargs: Further arguments of `keras.losses.Loss`.
    """

    def __init__(
        self, label_smoothing: float = 0.0, from_logits: bool = False, name: str = "classification_loss", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing, self.from_logits = label_smoothing, from_logits

    def call(self, targets: keras.KerasTensor, outputs: keras.KerasTensor) -> keras.KerasTensor:
        classes = outputs.shape[-1]
        if not (len(targets.shape) == 2 and targets.shape[-1] == classes):
            targets = keras.ops.one_hot(keras.ops.cast(keras.ops.reshape(targets, (-1,)), "int32"), classes)
        return keras.losses.categorical_crossentropy(
            targets,
            outputs,
            from_logits=self.from_logits,
            label_smoothing=self.label_smoothing,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing, "from_logits": self.from_logits}


def training_loss(head: Head, *, rows: bool, label_smoothing: float) -> keras.losses.Loss:
    """The loss of a task, for targets that are integers or rows."""
    if head.task == "softmax" and not rows:
        return ClassificationLoss(label_smoothing, from_logits=head.activation is not None)
    made: keras.losses.Loss = _tasks.loss(head, rows=rows, label_smoothing=label_smoothing)
    return made


def mixed_accuracy(head: Head) -> Any:
    """Accuracy, called `accuracy`, of targets that may be mixed: the larger share of a mixture is its class."""
    threshold = 0.5 if head.activation is None else 0.0

    def hits(targets: Any, outputs: Any) -> Any:
        if head.task != "softmax":
            yes = keras.ops.cast(keras.ops.reshape(targets, keras.ops.shape(outputs)), outputs.dtype) > 0.5
            return keras.ops.equal(yes, outputs > threshold)
        if len(targets.shape) == 2 and targets.shape[-1] == outputs.shape[-1]:
            targets = keras.ops.argmax(targets, axis=-1)
        found = keras.ops.argmax(outputs, axis=-1)
        return keras.ops.equal(keras.ops.cast(keras.ops.reshape(targets, (-1,)), found.dtype), found)

    return keras.metrics.MeanMetricWrapper(hits, name="accuracy")


def check_ends(model: keras.Model, name: str) -> None:
    """Raises InvalidArgumentError unless the model has one input and one output."""
    inputs, outputs = (getattr(model, end, None) or [] for end in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1:
        raise InvalidArgumentError(
            f"`{name}` must be a functional or sequential model with one input and one output. "
            f"Received: {type(model).__name__} with {len(inputs)} inputs and {len(outputs)} outputs."
        )


def gives_logits(model: keras.Model) -> bool:
    """Whether a classifier returns logits; False for probabilities of a softmax. Raises for any other model."""
    activation, units = final_activation(model), model.outputs[0].shape[-1]
    if activation not in ("softmax", "log_softmax", None) or (activation != "softmax" and units == 1):
        raise InvalidArgumentError(
            "`model` must end in a softmax (probabilities) or without an activation in several logits. "
            f"Received: {activation or 'one output'} at the end of {model.name!r}."
        )
    return activation != "softmax"
