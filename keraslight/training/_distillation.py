"""Distillation: a student also learns from the predictions of a trained teacher."""

import dataclasses
import hashlib
from typing import Any

import keras
import numpy as np

from keraslight.errors import InvalidArgumentError
from keraslight.graph import keeping_modes
from keraslight.graph.ends import lone_activation, maker
from keraslight.graph.weights import set_weights
from keraslight.training._loss import check_ends, gives_logits

_TINY = 1e-30  # smallest probability whose logarithm is meaningful in float32


@dataclasses.dataclass(frozen=True, eq=False)
class Distillation:
    """A teacher, and its weight in the loss of a student.

    The loss of an image is `alpha * CE(label, p) + (1 - alpha) * T^2 * KL(q_T || p_T)`: p and q are the student's and
    the teacher's probabilities, p_T and q_T the same with all logits divided by the temperature T. T^2 keeps the
    gradients of both terms at the same scale for any T. Source: Hinton et al., "Distilling the Knowledge in a Neural
    Network", https://arxiv.org/abs/1503.02531, section 2 and equations 2 to 4. KL differs from their cross-entropy
    only by the teacher's entropy, which has no gradient. Computed by `keras.distillation`.

    Args:
        teacher: Trained functional or sequential classifier, raw pixels (B, H, W, C) in 0..255 -> (B, classes),
            probabilities or logits. It isn't changed, and may be the student's own float model.
        temperature: Temperature T, above 0. Higher values emphasize the small probabilities of wrong classes.
        alpha: Weight of the true labels in the loss, in [0, 1). At 0, labels aren't used and may be arbitrary.

    Raises:
        InvalidArgumentError: A value is out of range, or the teacher isn't such a model.
    """

    teacher: keras.Model
    temperature: float = 4.0
    alpha: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise InvalidArgumentError(
                f"`temperature` must be a positive number. Received: temperature={self.temperature}."
            )
        if not 0 <= self.alpha < 1:
            raise InvalidArgumentError(f"`alpha` must be in [0, 1). Received: alpha={self.alpha}.")
        check_ends(self.teacher, "teacher")
        gives_logits(self.teacher)

    def distiller(self, student: keras.Model) -> keras.distillation.Distiller:
        """A model that trains the student's own layers with this loss.

        Compile it with a loss for integer labels and logits, used as the term for the labels. Its outputs are the
        student's logits. Regularization losses are ignored, as in `keras.distillation`.

        Args:
            student: Functional or sequential classifier with the teacher's classes and image size, probabilities or
                logits. Training changes it.

        Raises:
            InvalidArgumentError: Student and teacher differ in classes or image size.
        """
        for name, ends in (("classes", "outputs"), ("images", "inputs")):
            ours, theirs = (tuple(getattr(model, ends)[0].shape[1:]) for model in (student, self.teacher))
            known = [pair for pair in zip(ours, theirs, strict=False) if None not in pair]
            if len(ours) != len(theirs) or any(own != other for own, other in known):
                raise InvalidArgumentError(
                    f"`teacher` must have the student's {name}, {ours}. Received: {self.teacher.name!r} with {theirs}."
                )
        # A copy, because Distiller freezes its teacher; the caller's stays trainable and may be the student itself.
        teacher = keras.models.clone_model(keras.Model(self.teacher.inputs[0], self.teacher.outputs[0]))
        set_weights(teacher, self.teacher.get_weights())
        return keras.distillation.Distiller(
            teacher=_to_logits(teacher),
            student=keeping_modes(_to_logits(student)),
            # Given the name "kl_divergence", Keras 3.15 uses the function without softmax and temperature: it
            # compares the logits themselves, clipped to 0..1.
            distillation_losses=keras.distillation.LogitsDistillation(self.temperature, keras.losses.KLDivergence()),
            student_loss_weight=self.alpha,
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serializable dict that differs if the loss or the teacher's weights differ."""
        digest = hashlib.sha256()
        for weight in self.teacher.get_weights():
            digest.update(np.asarray(weight).tobytes())
        return {"teacher_sha256": digest.hexdigest(), "temperature": self.temperature, "alpha": self.alpha}


def _to_logits(model: keras.Model) -> keras.Model:
    """The same layers up to the logits, in float32.

    If the softmax is part of the last layer or of a nested model, its logarithm replaces the logits: the two differ
    by one number per image, which doesn't affect their softmax.
    """
    outputs = model.outputs[0]
    if not gives_logits(model):
        last, read = maker(outputs)
        alone = lone_activation(last) == "softmax"
        outputs = read[0] if alone else keras.ops.log(keras.ops.maximum(outputs, _TINY))
    if outputs.dtype != "float32":
        outputs = keras.ops.cast(outputs, "float32")
    return keras.Model(model.inputs[0], outputs, name=model.name)
