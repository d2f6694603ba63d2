"""Magnitude pruning of Keras 3 models while they train."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keraslight.compress import _data, _graph
from keraslight.compress._sparsity import prunable_layers
from keraslight.errors import CompressionError, InvalidArgumentError

_SCHEDULES = ("polynomial", "constant")
_UPDATES = 20  # mask updates in a training, unless `frequency` says otherwise


class Pruning(keras.callbacks.Callback):
    """Zeroes the smallest weights of a model during its own `fit`.

    The masks follow Zhu and Gupta, "To prune, or not to prune", https://arxiv.org/abs/1710.01878: with the polynomial
    schedule the sparsity at step t is `final * (1 - (1 - (t - begin) / (end - begin)) ** 3)`, each kernel on its own.
    Weights that a mask hides are zero before and after every step, so validation and checkpoints see the sparse model;
    a later update of the masks may let one back in. After `end_step` the masks stay as they are and the remaining
    weights (and batch norms) settle: leave at least a quarter of the training for that.

    Args:
        final_sparsity: Share of zeros to reach in each kernel, in (0, 1). It is reached or passed by a hair.
        schedule: `"polynomial"`, `"constant"` (all at once at `begin_step`), or a schedule object of
            tensorflow_model_optimization, which then decides alone.
        begin_step, end_step: First and last training step (counted from 1 in each `fit`) that update the masks; None
            takes the fractions instead.
        begin_fraction, end_fraction: The same as shares of the training, 0..1.
        frequency: Steps between two updates; None spreads about 20 of them.
        layers: Name patterns (`fnmatch`) of the layers to prune; None takes every Conv2D and Dense but the first
            convolution.
        block_size: Height and width of blocks that go together; more than (1, 1) only for Dense kernels.
        m_by_n: Zeros among consecutive input channels, such as (2, 4); set once at the first step.

    Raises:
        InvalidArgumentError: an argument is out of range, a pattern matches nothing, the model runs several steps an
            execution, or fractions are given for a training of unknown length.
        CompressionError: the model is subclassed, or Keras does not run on TensorFlow.
        MissingDependencyError: tensorflow-model-optimization is not installed.
    """

    def __init__(
        self,
        final_sparsity: float = 0.7,
        schedule: Any = "polynomial",
        *,
        begin_step: int | None = None,
        end_step: int | None = None,
        begin_fraction: float = 0.0,
        end_fraction: float = 0.6,
        frequency: int | None = None,
        layers: str | Sequence[str] | None = None,
        block_size: tuple[int, int] = (1, 1),
        m_by_n: tuple[int, int] | None = None,
    ):
        super().__init__()
        if not 0 < final_sparsity < 1:
            raise InvalidArgumentError(f"`final_sparsity` must be in (0, 1). Received: {final_sparsity}.")
        if isinstance(schedule, str) and schedule not in _SCHEDULES:
            raise InvalidArgumentError(
                f"`schedule` must be one of {_SCHEDULES} or a schedule object. Received: {schedule!r}."
            )
        if not 0 <= begin_fraction < end_fraction <= 1:
            raise InvalidArgumentError(
                "`begin_fraction` and `end_fraction` must be in 0..1, in this order. "
                f"Received: begin_fraction={begin_fraction}, end_fraction={end_fraction}."
            )
        if frequency is not None and frequency < 1:
            raise InvalidArgumentError(f"`frequency` must be at least 1. Received: {frequency}.")
        for name, step in (("begin_step", begin_step), ("end_step", end_step)):
            if step is not None and step < 1:
                raise InvalidArgumentError(f"`{name}` must be at least 1. Received: {step}.")
        if begin_step is not None and end_step is not None and begin_step > end_step:
            raise InvalidArgumentError(
                f"`begin_step` must not be after `end_step`. Received: begin_step={begin_step}, end_step={end_step}."
            )
        self.final_sparsity = final_sparsity
        self.schedule = schedule
        self.begin_step, self.end_step = begin_step, end_step
        self.begin_fraction, self.end_fraction = begin_fraction, end_fraction
        self.frequency = frequency
        self.layers = layers
        self.block_size, self.m_by_n = tuple(block_size), m_by_n
        self._masks = None

    def on_train_begin(self, logs=None):
        if keras.backend.backend() != "tensorflow":
            raise CompressionError(
                f"Pruning needs Keras' TensorFlow backend. Received: backend={keras.backend.backend()!r}."
            )
        if self.model.steps_per_execution != 1:
            raise InvalidArgumentError(
                "Pruning needs `compile(steps_per_execution=1)`, because the masks apply between steps. "
                f"Received: steps_per_execution={self.model.steps_per_execution}."
            )
        kernels = [layer.kernel.value for layer in prunable_layers(self.model, self.layers).values()]
        if self.block_size != (1, 1) and any(kernel.shape.rank != 2 for kernel in kernels):
            raise InvalidArgumentError(
                "`block_size` above (1, 1) must come with `layers` that match Dense layers only. "
                f"Received: block_size={self.block_size}, layers={self.layers!r}."
            )
        from keraslight.compress._tfmot import pruning

        self._masks = pruning.Masks(kernels, self._make_schedule(kernels), self.block_size, self.m_by_n)

    def on_train_batch_begin(self, batch, logs=None):
        self._masks.advance()

    def on_train_batch_end(self, batch, logs=None):
        self._masks.apply()

    def _make_schedule(self, kernels):
        if not isinstance(self.schedule, str):
            return self.schedule
        begin, end = self.begin_step, self.end_step
        if begin is None or end is None:
            steps, epochs = self.params.get("steps"), self.params.get("epochs")
            if not steps or not epochs:
                raise InvalidArgumentError(
                    "`begin_step` and `end_step` must be given where Keras does not know the number of steps. "
                    f"Received: begin_step={begin}, end_step={end}, steps an epoch unknown."
                )
            end = max(int(self.end_fraction * steps * epochs), 1) if end is None else end
            begin = min(max(int(self.begin_fraction * steps * epochs), 1), end) if begin is None else begin
        # The library rounds the number of weights it keeps, so a kernel of 3,072 may end a weight short of 70%. Half
        # a weight of the smallest kernel more makes every kernel reach what was asked.
        more = min(0.5 / min(int(kernel.shape.num_elements()) for kernel in kernels), 0.01)
        from keraslight.compress._tfmot import pruning

        frequency = self.frequency or max((end - begin) // _UPDATES, 1)
        return pruning.make_schedule(self.schedule, min(self.final_sparsity + more, 0.9999), begin, end, frequency)


def prune(
    model: keras.Model,
    data: Any,
    *,
    sparsity: float = 0.7,
    epochs: int = 3,
    validation_data: Any = None,
    learning_rate: float = 1e-3,
    schedule: Any = "polynomial",
    layers: str | Sequence[str] | None = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    loss: Any = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int | str = "auto",
) -> keras.Model:
    """Fine-tunes a copy of a trained model while `Pruning` zeroes its smallest weights.

    AdamW with a cosine-decayed learning rate; the masks grow over the first 60% of the steps. `seed` sets the global
    seeds of Python, NumPy and TensorFlow, so that a run can be repeated.

    Args:
        model: A trained functional or sequential image classifier. It is not changed.
        data: A tf.data.Dataset of (images, integer labels) batches, or a pair of arrays, which are shuffled.
        sparsity: Share of zeros in each pruned kernel, in (0, 1).
        epochs: Passes over `data`, at least 1.
        validation_data: As `data`, or None.
        learning_rate: The highest one, at the first step.
        schedule, layers: As in `Pruning`.
        callbacks: More Keras callbacks.
        loss: A Keras loss; None takes the cross-entropy of integer labels, on probabilities or logits as the model's
            last layer gives them.
        batch_size: For arrays.
        seed: Seed of the shuffling, dropout and everything else.
        verbose: As in `fit`.

    Returns:
        The pruned copy, compiled, with the model's layer names.

    Raises:
        InvalidArgumentError: an argument is out of range or a pattern matches no layer.
        CompressionError: the model is subclassed.
        MissingDependencyError: tensorflow-model-optimization is not installed.
    """
    if epochs < 1:
        raise InvalidArgumentError(f"`epochs` must be at least 1. Received: {epochs}.")
    pruning = Pruning(sparsity, schedule, layers=layers)
    prunable_layers(model, layers)  # a wrong pattern should not wait for the copy
    graph = _graph.read(model)
    keras.utils.set_random_seed(seed)
    copy = _graph.copy(model)
    train = _data.batches(data, batch_size, seed)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * _data.steps_in(train), alpha=0.01)
    copy.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-4),
        loss=loss or keras.losses.SparseCategoricalCrossentropy(from_logits=not _data.gives_probabilities(graph)),
        metrics=["accuracy"],
        jit_compile=False,  # "auto" means XLA, which makes convolutions several times slower on a CPU
    )
    copy.fit(
        train,
        epochs=epochs,
        validation_data=None if validation_data is None else _data.batches(validation_data, batch_size),
        callbacks=[pruning, *callbacks],
        shuffle=False,  # a data set shuffles itself; Keras warns otherwise
        verbose=verbose,
    )
    return copy
