"""The library's pruning algorithm, driven on Keras 3 variables.

The algorithm only wants `tf.Variable`s, so the model needs no wrappers and nothing has to be stripped afterwards.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras import (
    prune,
    pruning_callbacks,
    pruning_impl,
    pruning_schedule,
)

from keraslight.compress._tfmot import transcribe
from keraslight.graph import Graph, graph_name


def make_schedule(
    kind: str, final_sparsity: float, begin: int, end: int, frequency: int
) -> pruning_schedule.PruningSchedule:
    """A schedule whose last update falls exactly on step `end`.

    The library updates its masks at begin, begin + frequency, ... up to `end`. If `end` is not one of those steps, the
    polynomial never arrives at its final value and the model stays less sparse than asked. So the start is moved to
    the first step from which whole periods lead to the end.
    """
    begin = end - (end - begin) // frequency * frequency
    if kind == "constant" or begin == end:  # the polynomial divides by end - begin
        return pruning_schedule.ConstantSparsity(final_sparsity, begin, end, frequency)
    return pruning_schedule.PolynomialDecay(0.0, final_sparsity, begin, end, power=3, frequency=frequency)


class LinearTimePruning(pruning_impl.Pruning):
    """The library's algorithm and masks; only the threshold is found another way.

    The library sorts all magnitudes of a kernel to read one of them, the smallest that stays. For ResNet-18 that took
    two to four times as long as a training step of 16 images of 96x96; selecting that one magnitude is linear in their
    number.
    """

    def _update_mask(self, weights: tf.Variable) -> tuple[tf.Tensor, tf.Tensor]:
        sparsity = self._pruning_schedule(self._step_fn())[1]
        magnitudes = tf.abs(weights)
        count = tf.size(magnitudes)
        kept = tf.round(tf.cast(count, tf.float32) * (1 - sparsity))
        kept = tf.clip_by_value(tf.cast(kept, tf.int32), 1, count)  # float32 is inexact beyond 2**24 weights
        threshold = tf.raw_ops.NthElement(input=tf.reshape(magnitudes, [-1]), n=kept - 1, reverse=True)
        return threshold, tf.cast(magnitudes >= threshold, weights.dtype)

    def _validate_block(self) -> None:
        """No check: `settings.check_blocks` was there before, and 1x1 kernels are welcome here."""

    def _maybe_update_block_mask(self, weights: tf.Variable) -> tuple[tf.Tensor, tf.Tensor]:
        """As the library's, but a 1x1 kernel is the matrix of its channels, and all blocks begin at its first weight.

        The library centers blocks that don't divide a side, and fails on matrices of one block's width.
        """
        height, width = self._block_size
        if self._sparsity_m_by_n or height * width == 1:
            return super()._maybe_update_block_mask(weights)
        rows, columns = weights.shape[-2:]
        missing = [[0, -rows % height], [0, -columns % width]]

        def sums(matrix: tf.Tensor) -> tf.Tensor:
            padded = tf.pad(matrix, missing)
            blocks = tf.reshape(padded, (padded.shape[0] // height, height, padded.shape[1] // width, width))
            return tf.reduce_sum(blocks, (1, 3))

        magnitudes = tf.abs(tf.reshape(weights, (rows, columns)))
        threshold, kept = self._update_mask(sums(magnitudes) / sums(tf.ones_like(magnitudes)))
        mask = tf.repeat(tf.repeat(kept, height, axis=0), width, axis=1)[:rows, :columns]
        return threshold, tf.reshape(mask, weights.shape)

    def update(self) -> None:
        """Updates the masks and zeroes what they hide, if the step is one of the schedule's."""
        due = tf.equal(self._step_fn(), 1) if self._sparsity_m_by_n else self._pruning_schedule(self._step_fn())[0]
        self.conditional_mask_update()
        tf.cond(due, self.weight_mask_op, tf.no_op)


class Masks:
    """The masks of some kernels, and the two things that happen to them in a training step.

    Args:
        groups: `(kernels, schedule)` pairs: `tf.Variable`s to prune, and `step -> (update now?, sparsity 0..1)`, as
            tensors.
        block_size: Input and output channels that are zeroed together, of matrices and 1x1 kernels.
        m_by_n: Zeros among consecutive elements, such as (2, 4), or None.
    """

    def __init__(
        self,
        groups: Iterable[tuple[list[tf.Variable], Any]],
        block_size: tuple[int, int] = (1, 1),
        m_by_n: tuple[int, int] | None = None,
    ) -> None:
        self.step = tf.Variable(0, dtype=tf.int32, trainable=False, name="pruning_step")
        self._prunings = []
        for kernels, schedule in groups:
            variables = [
                (
                    kernel,
                    tf.Variable(tf.ones_like(kernel), trainable=False, name="mask"),
                    tf.Variable(tf.zeros((), kernel.dtype), trainable=False, name="threshold"),
                )
                for kernel in kernels
            ]
            self._prunings.append(LinearTimePruning(lambda: self.step, variables, schedule, block_size, "AVG", m_by_n))
        # Sixty kernels one by one, twice a step, cost more than a small net's training step; as graphs they don't.
        self._advance_all, self._mask_all = tf.function(self._advance), tf.function(self._mask)

    def advance(self) -> None:
        """Before a training step: counts it, and if it is the masks' turn, updates them and zeroes what they hide.

        Otherwise the weights are as `apply` left them: masking them twice a step would only cost time.
        """
        self._advance_all()

    def apply(self) -> None:
        """After a training step: zeroes what the masks hide."""
        self._mask_all()

    def _advance(self) -> None:
        self.step.assign_add(1)
        for pruning in self._prunings:
            pruning.update()

    def _mask(self) -> None:
        for pruning in self._prunings:
            pruning.weight_mask_op()


def wrap(
    graph: Graph,
    name: str,
    schedules: dict[str, Any],
    block_size: tuple[int, int] = (1, 1),
    m_by_n: tuple[int, int] | None = None,
) -> tf_keras.Model:
    """The float twin of a graph, with the library's pruning wrapper around some layers.

    Args:
        schedules: Layer name -> its schedule; the others stay as they are.
    """
    schedules = {graph_name(layer): schedule for layer, schedule in schedules.items()}

    def around(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
        schedule = schedules.get(layer.name)
        if schedule is None:
            return layer
        return prune.prune_low_magnitude(layer, schedule, block_size=block_size, sparsity_m_by_n=m_by_n)

    return transcribe.to_tf_keras(graph, name, around)


def step_callback() -> tf_keras.callbacks.Callback:
    """The callback without which the wrappers refuse to train."""
    return pruning_callbacks.UpdatePruningStep()


def strip(wrapped: tf_keras.Model) -> dict[str, list[np.ndarray]]:
    """The weights of every layer inside its wrapper, by the name of the layer, which is a `graph_name`."""
    layers = prune.strip_pruning(wrapped).layers
    return {layer.name: layer.get_weights() for layer in layers if layer.weights}
