"""Distillation: a student also learns what a trained teacher answers."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import keras
import numpy as np

from keraslight.errors import InvalidArgumentError
from keraslight.graph.ends import lone_activation, maker
from keraslight.graph.weights import set_weights
from keraslight.training._loss import gives_logits

_TINY = 1e-30
"""Below it a float32 probability has no logarithm that means anything."""


@dataclasses.dataclass(frozen=True, eq=False)
class Distillation:
    """A teacher and how much of its answers goes into a student's loss.

    The loss of an image is `alpha * CE(label, p) + (1 - alpha) * T^2 * KL(q_T || p_T)`: p and q are the student's and
    the teacher's probabilities, p_T and q_T the same with all logits divided by the temperature T. T^2 keeps the
    gradients of both parts of one size whatever T is. Source of the maths: Hinton et al., "Distilling the Knowledge in
    a Neural Network", https://arxiv.org/abs/1503.02531, section 2 and equations 2 to 4; KL instead of their
    cross-entropy differs by the teacher's entropy alone, which no gradient sees. Keras' own `keras.distillation`
    computes it.

    Args:
        teacher: A trained functional or sequential classifier, raw pixels (B, H, W, C) in 0..255 -> (B, classes),
            probabilities or logits. It is not changed. It may be the student's own float model.
        temperature: T, above 0. The higher, the more the small probabilities of wrong classes count.
        alpha: Share of the labels' part, in [0, 1). At 0 labels are not read: images need none that are right.

    Raises:
        InvalidArgumentError: a value is out of its range, or the teacher is no such model.
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
        inputs, outputs = (getattr(self.teacher, name, None) or [] for name in ("inputs", "outputs"))
        if len(inputs) != 1 or len(outputs) != 1:
            raise InvalidArgumentError(
                "`teacher` must be a functional or sequential model with one input and one output. "
                f"Received: {type(self.teacher).__name__} with {len(inputs)} inputs and {len(outputs)} outputs."
            )
        gives_logits(self.teacher)

    def distiller(self, student: keras.Model) -> keras.distillation.Distiller:
        """A model that trains the student's own layers by this loss.

        Compile it with a loss of integer labels and logits, which is the labels' part; its outputs are the student's
        logits. What regularizers add to the loss is left out, as in all of `keras.distillation`.

        Args:
            student: A functional or sequential classifier of the teacher's classes and image size, probabilities or
                logits. Training changes it.

        Raises:
            InvalidArgumentError: student and teacher differ in classes or in images.
        """
        for name, ends in (("classes", "outputs"), ("images", "inputs")):
            ours, theirs = (tuple(getattr(model, ends)[0].shape[1:]) for model in (student, self.teacher))
            if len(ours) != len(theirs) or any(
                one != other for one, other in zip(ours, theirs, strict=True) if None not in (one, other)
            ):
                raise InvalidArgumentError(
                    f"`teacher` must have the student's {name}, {ours}. Received: {self.teacher.name!r} with {theirs}."
                )
        # A copy, because Distiller freezes its teacher: the caller's stays trainable, and may be the student itself.
        teacher = keras.models.clone_model(keras.Model(self.teacher.inputs[0], self.teacher.outputs[0]))
        set_weights(teacher, self.teacher.get_weights())
        return keras.distillation.Distiller(
            teacher=_to_logits(teacher),
            student=_to_logits(student),
            # By its name, "kl_divergence", Keras 3.15 takes the function and leaves out softmax and temperature: it
            # compares the logits themselves, clipped to 0..1.
            distillation_losses=keras.distillation.LogitsDistillation(self.temperature, keras.losses.KLDivergence()),
            student_loss_weight=self.alpha,
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict that differs if the loss or the teacher's weights differ."""
        digest = hashlib.sha256()
        for weight in self.teacher.get_weights():
            digest.update(np.asarray(weight).tobytes())
        return {"teacher_sha256": digest.hexdigest(), "temperature": self.temperature, "alpha": self.alpha}


def _to_logits(model: keras.Model) -> keras.Model:
    """The same layers up to the logits, in float32.

    Where the softmax is part of the last layer, or of a nested model, its logarithm stands for the logits: the two
    differ by one number an image, which no softmax of them sees.
    """
    outputs = model.outputs[0]
    if not gives_logits(model):
        last, read = maker(outputs)
        alone = lone_activation(last) == "softmax"
        outputs = read[0] if alone else keras.ops.log(keras.ops.maximum(outputs, _TINY))
    if outputs.dtype != "float32":
        outputs = keras.ops.cast(outputs, "float32")
    return keras.Model(model.inputs[0], outputs, name=model.name)
