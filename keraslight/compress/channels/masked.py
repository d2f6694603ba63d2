"""A model whose channels are removed by masks: one traced training step for all widths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keraslight import _tasks
from keraslight._tasks import Head
from keraslight.compress.channels.groups import Groups
from keraslight.errors import InvalidArgumentError
from keraslight.graph import any_names, copy, following_batch_norms, keeping_modes, read

_LEFT = 0.01  # of a batch norm's old statistics after a short training


class MaskedNet:
    """A copy of a model, in which the weights of removed channels are zero and stay so in training.

    To trace a training step takes seconds, so that all widths share one. Moving averages of batch norms have a smaller
    momentum in it, with which they follow the weights in as few steps.

    Args:
        model: The model. It is not changed.
        head: What its outputs are.
        names: The groups whose channels may be removed.
        batches: Labeled batches as they will come.
        rows: Whether labels of a softmax are rows.
        learning_rate: Learning rate of the short trainings.
        steps: Steps of each of them.

    Attributes:
        model: The copy.
    """

    def __init__(
        self,
        model: keras.Model,
        head: Head,
        names: Iterable[str],
        batches: tf.data.Dataset,
        *,
        rows: bool,
        learning_rate: float,
        steps: int,
    ) -> None:
        self.model = copy(model)
        self._head, self._steps = head, steps
        self._loss = _tasks.loss(head, rows=rows)
        self._training = keeping_modes(self.model)
        if not self.model.trainable_variables:
            raise InvalidArgumentError(
                f"`model` must have weights to train. Received: {model.name!r}, all of whose layers are frozen."
            )
        self._optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=1e-4)
        self._optimizer.build(self.model.trainable_variables)
        self._fresh = [np.asarray(variable) for variable in self._optimizer.variables]
        self._groups = self.groups()
        smallest = self._groups.masks({name: np.arange(1) for name in names})
        self._masks = [
            (weight, tf.Variable(np.ones(mask.shape), dtype=weight.dtype, trainable=False)) for weight, mask in smallest
        ]
        self._step = self._traced_step(batches.element_spec)
        self._infer = self._traced_inference(batches.element_spec[0])

    def groups(self) -> Groups:
        """The groups, with the weights that the model has now."""
        return Groups(read(self.model, opaque=True))

    def state(self) -> list[np.ndarray]:
        """Copies of all weights, statistics and states of random layers."""
        return [np.array(variable) for variable in self.model.variables]

    def restore(self, state: Iterable[np.ndarray], kept: Mapping[str, np.ndarray]) -> None:
        """Gives the model the weights that `state` returned, without the channels that aren't kept."""
        for variable, value in zip(self.model.variables, state, strict=True):
            variable.assign(value)
        masks = {id(weight): mask for weight, mask in self._groups.masks(kept)}
        for weight, mask in self._masks:
            mask.assign(np.broadcast_to(masks.get(id(weight), np.ones(1, np.float32)), mask.shape))
            weight.assign(weight * mask)

    def train(self, batches: tf.data.Dataset) -> None:
        """Trains for `steps` steps."""
        for variable, value in zip(self._optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        for batch in itertools.islice(batches, self._steps):
            self._step(*batch)

    def judge(self, batches: tf.data.Dataset) -> tuple[float, float]:
        """The loss and the accuracy on labeled batches."""
        outputs, targets = [], []
        for images, labels, *_ in batches:
            outputs.append(np.asarray(self._infer(images), np.float32))
            targets.append(np.asarray(labels))
        found, wanted = np.concatenate(outputs), np.concatenate(targets)
        if self._head.task != "softmax":
            wanted = wanted.reshape(found.shape)
        loss = float(self._loss(wanted, found))
        return loss, float(_tasks.score(self._head, found, wanted)) if math.isfinite(loss) else math.nan

    def _traced_inference(self, spec: tf.TensorSpec) -> Any:
        def infer(images: tf.Tensor) -> tf.Tensor:
            with any_names():
                return self.model(images, training=False)

        return tf.function(infer, autograph=False).get_concrete_function(tf.TensorSpec((None, *spec.shape[1:])))

    def _traced_step(self, spec: Any) -> Any:
        trained = self.model.trainable_variables

        def step(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor | None = None) -> None:
            with any_names(), tf.GradientTape() as tape:
                outputs = self._training(images, training=True)
                if self._head.task != "softmax":
                    labels = tf.reshape(labels, tf.shape(outputs))
                loss = tf.add_n([self._loss(labels, outputs, weights), *self._training.losses])
            gradients = tape.gradient(loss, [variable.value for variable in trained])
            pairs = [(g, variable) for g, variable in zip(gradients, trained, strict=True) if g is not None]
            self._optimizer.apply_gradients(pairs)
            for weight, mask in self._masks:
                weight.assign(weight * mask)

        norms = following_batch_norms(self.model)
        momenta = [norm.momentum for norm in norms]
        try:
            for norm in norms:
                norm.momentum = min(norm.momentum, _LEFT ** (1 / self._steps))
            return tf.function(step, autograph=False).get_concrete_function(*spec)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
