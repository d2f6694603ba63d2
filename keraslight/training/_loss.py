"""The loss of a classifier, and what it has to know of the model's end."""

from __future__ import annotations

from typing import Any

import keras

from keraslight.errors import InvalidArgumentError
from keraslight.graph.ends import final_activation


@keras.saving.register_keras_serializable(package="keraslight")
class ClassificationLoss(keras.losses.Loss):
    """Cross-entropy of integer targets with label smoothing: targets (B,), outputs (B, classes) -> a number.

    Keras' own has no label smoothing for integers. Source of the maths: Szegedy et al., "Rethinking the Inception
    Architecture", https://arxiv.org/abs/1512.00567, section 7.

    Args:
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        from_logits: Whether the model ends without a softmax.
    """

    def __init__(
        self, label_smoothing: float = 0.0, from_logits: bool = False, name: str = "classification_loss", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing, self.from_logits = label_smoothing, from_logits

    def call(self, targets: Any, outputs: Any) -> Any:
        return keras.losses.categorical_crossentropy(
            keras.ops.one_hot(keras.ops.cast(keras.ops.reshape(targets, (-1,)), "int32"), outputs.shape[-1]),
            outputs,
            from_logits=self.from_logits,
            label_smoothing=self.label_smoothing,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing, "from_logits": self.from_logits}


def gives_logits(model: keras.Model) -> bool:
    """Whether a model ends in logits; False for probabilities.

    Raises:
        InvalidArgumentError: it ends in something else, which would train with the wrong loss, and without a word.
    """
    activation = final_activation(model)
    if activation in ("softmax", None):
        return activation is None
    raise InvalidArgumentError(
        "`model` must end in a softmax (probabilities) or without an activation (logits). "
        f"Received: {activation} at the end of {model.name!r}."
    )
