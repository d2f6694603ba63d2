"""The library's pruning algorithm, driven on Keras 3 variables.

The algorithm only wants `tf.Variable`s, so the model needs no wrappers and nothing has to be stripped afterwards.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_schedule


def make_schedule(kind: str, final_sparsity: float, begin: int, end: int, frequency: int):
    """A schedule whose last update falls exactly on step `end`.

    The library updates its masks at begin, begin + frequency, ... up to `end`. If `end` is not one of those steps, the
    polynomial never arrives at its final value and the model stays less sparse than asked. So the start is moved to
    the first step from which whole periods lead to the end.
    """
    begin = end - (end - begin) // frequency * frequency
    if kind == "constant" or begin == end:  # the polynomial divides by end - begin
        return pruning_schedule.ConstantSparsity(final_sparsity, begin, end, frequency)
    return pruning_schedule.PolynomialDecay(0.0, final_sparsity, begin, end, power=3, frequency=frequency)


class Masks:
    """The masks of some kernels, and the two things that happen to them in a training step.

    Args:
        kernels: The `tf.Variable`s to prune.
        schedule: `step -> (update now?, sparsity 0..1)`, as tensors.
        block_size: Height and width of the blocks that are zeroed together (2-D kernels only).
        m_by_n: Zeros among consecutive elements, such as (2, 4), or None.
    """

    def __init__(self, kernels, schedule, block_size=(1, 1), m_by_n=None):
        self.step = tf.Variable(0, dtype=tf.int32, trainable=False, name="pruning_step")
        self.masks = [tf.Variable(tf.ones_like(k), trainable=False, name="mask") for k in kernels]
        thresholds = [tf.Variable(0.0, dtype=k.dtype, trainable=False, name="threshold") for k in kernels]
        self._pruning = pruning_impl.Pruning(
            lambda: self.step,
            list(zip(kernels, self.masks, thresholds, strict=True)),
            schedule,
            block_size,
            "AVG",
            m_by_n,
        )
        # Sixty kernels one by one, twice a step, cost more than a small net's training step; as graphs they don't.
        self.advance, self.apply = tf.function(self.advance), tf.function(self.apply)

    def advance(self) -> None:
        """Before a training step: counts it, updates the masks if it is their turn and zeroes what they hide."""
        self.step.assign_add(1)
        self._pruning.conditional_mask_update()
        self._pruning.weight_mask_op()

    def apply(self) -> None:
        """After a training step: zeroes what the masks hide."""
        self._pruning.weight_mask_op()
