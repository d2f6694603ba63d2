"""Magnitude pruning of Keras 3 models while they train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras

from keraslight.compress._fine_tune import check_callback, check_epochs, check_loss, fine_tune
from keraslight.compress.pruning import settings as _settings
from keraslight.compress.pruning.sparsity import kernel_of, targets
from keraslight.errors import InvalidArgumentError
from keraslight.graph import check_finite, copy as copy_model, read, without_auxiliary

if TYPE_CHECKING:
    from keraslight.training import Distillation


class Pruning(keras.callbacks.Callback):
    """Zeroes the smallest weights of a model during its own `fit`.

    With the polynomial schedule the sparsity at step t is `final * (1 - (1 - (t - begin) / (end - begin)) ** 3)`, for
    each kernel separately. Masked weights are zero before and after every step, so validation and checkpoints see the
    sparse model; a later update of the masks may restore a weight. After `end_step` the masks stay fixed and the
    remaining weights (and batch norms) settle: leave at least a quarter of the training for that, and call
    `settle_batch_norms` afterwards if momenta are long. In a `keras.distillation.Distiller` it prunes the student.
    Frozen layers (`trainable=False`) are not pruned.

    Source: Zhu and Gupta, "To prune, or not to prune", https://arxiv.org/abs/1710.01878.

    Args:
        final_sparsity: Target share of zeros in each kernel, in (0, 1). It is reached or slightly exceeded; in kernels
            of fewer than 50 weights it is rounded to whole weights. Or a dictionary of shares by name pattern
            (`fnmatch`), such as `{"stage0_*": 0.5, "*": 0.8}`: the first pattern that matches a layer applies, and a
            layer that none matches is not pruned.
        schedule: `"polynomial"`, `"constant"` (all at once at `begin_step`), or a schedule object of
            tensorflow_model_optimization, which then replaces the steps and fractions below.
        begin_step, end_step: First and last training step (counted from 1 in each `fit`) that update the masks; None
            uses the fractions instead.
        begin_fraction, end_fraction: The same as shares of the training, 0..1.
        frequency: Steps between two updates; None spreads about 20 updates.
        layers: Name patterns (`fnmatch`) of the layers to prune; None uses those of `policy`.
        policy: `"default"` prunes every Conv2D, SeparableConv2D (its 1x1 kernel) and Dense except the first
            convolution; `"xnnpack"` prunes what XNNPACK's sparse kernels run on ARM processors: 1x1 convolutions
            without stride, dilation and groups. They run only if more than two thirds of all their weights are zeros.
        block_size: Consecutive input and output channels that are zeroed together, in kernels of Dense layers and 1x1
            convolutions. None is (1, 1), or for `"xnnpack"` (1, 4): four output channels that read the same input take
            about half of the instructions.
        m_by_n: Zeros among consecutive input channels, such as (2, 4), set once at the first step; sparsity and
            schedule are then ignored.

    Raises:
        InvalidArgumentError: An argument is out of range, a pattern matches nothing, the model runs several steps per
            execution, or fractions are given for a training of unknown length.
        CompressionError: The model is subclassed, or Keras does not run on TensorFlow.
        MissingDependencyError: tensorflow-model-optimization is not installed.
    """

    def __init__(
        self,
        final_sparsity: float | Mapping[str, float] = 0.7,
        schedule: Any = "polynomial",
        *,
        begin_step: int | None = None,
        end_step: int | None = None,
        begin_fraction: float = 0.0,
        end_fraction: float = 0.6,
        frequency: int | None = None,
        layers: str | Sequence[str] | None = None,
        policy: str = "default",
        block_size: tuple[int, int] | None = None,
        m_by_n: tuple[int, int] | None = None,
    ):
        super().__init__()
        _settings.check(final_sparsity, schedule, policy, block_size, m_by_n)
        if not 0 <= begin_fraction < end_fraction <= 1:
            raise InvalidArgumentError(
                "`begin_fraction` and `end_fraction` must be in 0..1, in this order. "
                f"Received: begin_fraction={begin_fraction}, end_fraction={end_fraction}."
            )
        _settings.check_steps(begin_step, end_step, frequency)
        self.final_sparsity = final_sparsity
        self.schedule = schedule
        self.begin_step, self.end_step = begin_step, end_step
        self.begin_fraction, self.end_fraction = begin_fraction, end_fraction
        self.frequency = frequency
        self.layers, self.policy = layers, policy
        self.block_size, self.m_by_n = _settings.blocks_of(block_size, policy), m_by_n
        self._masks: Any = None  # a `_tfmot.pruning.Masks`

    def on_train_begin(self, logs: Any = None) -> None:
        check_callback(self.model, "Pruning")
        distilled = isinstance(self.model, keras.distillation.Distiller)
        pruned = self.model.student if distilled else self.model
        chosen = targets(pruned, self.final_sparsity, self.layers, self.policy)
        _settings.check_blocks(chosen, self.block_size)
        begin, end = self._steps()
        chosen_schedules = _settings.schedules(chosen, self.schedule, begin, end, self.frequency, self.block_size)
        groups: dict[int, tuple[list[Any], Any]] = {}
        for name, (layer, _) in chosen.items():
            schedule = chosen_schedules[name]
            groups.setdefault(id(schedule), ([], schedule))[0].append(kernel_of(layer).value)
        from keraslight.compress._tfmot import pruning

        self._masks = pruning.Masks(list(groups.values()), self.block_size, self.m_by_n)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._masks.advance()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._masks.apply()

    def _steps(self) -> tuple[int, int]:
        """The first and the last step that update the masks."""
        begin, end = self.begin_step, self.end_step
        if not isinstance(self.schedule, str) or self.m_by_n is not None:
            return begin or 1, end or begin or 1  # the schedule has its own steps, or none are needed
        if begin is None or end is None:
            steps, epochs = self.params.get("steps"), self.params.get("epochs")
            if not steps or not epochs:
                raise InvalidArgumentError(
                    "`begin_step` and `end_step` must be given where Keras does not know the number of steps. "
                    f"Received: begin_step={begin}, end_step={end}, an unknown number of steps per epoch."
                )
            end = max(int(self.end_fraction * steps * epochs), 1) if end is None else end
            begin = min(max(int(self.begin_fraction * steps * epochs), 1), end) if begin is None else begin
        return begin, end


def prune(
    model: keras.Model,
    data: Any,
    *,
    sparsity: float | Mapping[str, float] = 0.7,
    epochs: int = 3,
    validation_data: Any = None,
    learning_rate: float = 3e-3,
    schedule: Any = "polynomial",
    layers: str | Sequence[str] | None = None,
    policy: str = "default",
    block_size: tuple[int, int] | None = None,
    m_by_n: tuple[int, int] | None = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    loss: Any = None,
    task: str | None = None,
    distillation: Distillation | None = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int | str = "auto",
) -> keras.Model:
    """Fine-tunes a copy of a trained model while `Pruning` zeroes its smallest weights.

    Trains with AdamW and a cosine-decayed learning rate. The masks grow over the first 60% of the steps, and at the end
    the batch norms get the statistics of the sparse model (`settle_batch_norms`), which the metrics of the epochs don't
    reflect yet. `seed` sets the global seeds of Python, NumPy and TensorFlow, so that a run can be repeated.

    Frozen layers (`trainable=False`) are left as they are, and so are the statistics of batch norms that are frozen or
    in a part that the model calls with `training=False`, which stays in inference mode.

    Args:
        model: A trained functional or sequential image classifier. It is not changed. Auxiliary heads are left out.
        data: Images and labels: a pair of arrays, which are shuffled, or a tf.data.Dataset, a keras.utils.PyDataset, a
            PyTorch DataLoader, or another iterable or generator of such pairs, of one image or of a batch. It must end,
            but its length need not be known. A generator is read once and kept in memory. Labels are integers, or rows
            of one number per class; for `multi-label` rows of zeros and ones, for `binary` 0 or 1, and for `regression`
            numbers.
        sparsity: Share of zeros in each pruned kernel, in (0, 1), or shares by name pattern.
        epochs: Passes over `data`, at least 1.
        validation_data: As `data`, or None.
        learning_rate: Initial (highest) learning rate. A few hundred steps need nearly that of the training: in 220
            steps, nets trained on digits at 5e-3 lost 0.3 (RepVGG) and 1.3 points (ShuffleNetV2) at 3e-3, but 1.5 and
            4.0 at 1e-3. Of 22 families only SqueezeNet, which has no normalization, lost more than 1.5 points at 3e-3:
            3.3, but at most 1.3 in twice as many steps with half the batch size.
        schedule, layers, policy, block_size, m_by_n: As in `Pruning`.
        callbacks: Additional Keras callbacks.
        loss: A Keras loss; None uses the loss of the model's task: cross-entropy, for `multi-label` and `binary` of
            each score by itself, or for `regression` the mean squared error.
        task: What the outputs are: `"softmax"` (one of several classes), `"multi-label"` (independent scores),
            `"binary"` (one score) or `"regression"`. None takes what the final activation says (softmax, sigmoid, or
            several logits) or what the model remembers. The result remembers it.
        distillation: A teacher to distill in addition to learning the labels, usually `model` itself:
            `keraslight.training.Distillation(model)`. It determines the loss.
        batch_size: Images per batch if `data` is arrays.
        seed: Seed of the shuffling, dropout and everything else.
        verbose: As in `fit`.

    Returns:
        The pruned copy, compiled, with the model's layer names.

    Raises:
        InvalidArgumentError: An argument is out of range, a pattern matches no layer, the teacher has other classes or
            another image shape, both `distillation` and `loss` are given, the task must be said, or the labels don't
            fit it.
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
        MissingDependencyError: tensorflow-model-optimization is not installed.
    """
    check_epochs(epochs)
    model = without_auxiliary(model)
    check_loss(loss, distillation)
    pruning = Pruning(sparsity, schedule, layers=layers, policy=policy, block_size=block_size, m_by_n=m_by_n)
    targets(model, sparsity, layers, policy)  # a wrong pattern fails before the copy is made
    keras.utils.set_random_seed(seed)
    check_finite(read(model).layers())
    copy = copy_model(model)
    fine_tune(
        copy,
        data,
        epochs=epochs,
        validation_data=validation_data,
        learning_rate=learning_rate,
        callbacks=[pruning, *callbacks],
        loss=loss,
        task=task,
        distillation=distillation,
        batch_size=batch_size,
        seed=seed,
        verbose=verbose,
    )
    return copy
