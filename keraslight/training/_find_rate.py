"""The learning-rate range test: which rates a model learns with, tried in one pass of growing rates."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keraslight import _tasks
from keraslight._notebook import Report
from keraslight._pictures import new_figure
from keraslight.errors import InvalidArgumentError, TrainingError
from keraslight.graph import keeping_modes, without_auxiliary
from keraslight.training._data import ImageData
from keraslight.training._loss import training_loss
from keraslight.training._optimizer import make_optimizer
from keraslight.training._recipe import Recipe
from keraslight.training._trainer import check_fits, weights_of_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SMOOTHING = 0.9  # share of the average that stays in a step
_EXPLODED = 4.0  # times the least loss, where the test ends


@dataclasses.dataclass(frozen=True)
class LearningRateSearch(Report):
    """The result of `find_learning_rate`.

    Attributes:
        rates: The learning rate of each step.
        losses: The loss of each step, smoothed.
        suggestion: A peak rate for a recipe: where the loss falls fastest.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float

    def __str__(self) -> str:
        best = int(np.argmin(self.losses))
        return (
            f"Suggested peak learning rate: {self.suggestion:.2g}, where the loss falls fastest.\n"
            f"The loss is least, {self.losses[best]:.3g}, at {self.rates[best]:.2g}; "
            f"tried {self.rates[0]:.2g} to {self.rates[-1]:.2g} in {len(self.rates)} steps."
        )

    def plot(self) -> Figure:
        """The loss over the rate, with the suggestion."""
        figure = new_figure(7, 4)
        axes = figure.subplots()
        axes.plot(self.rates, self.losses)
        axes.axvline(self.suggestion, color="gray", linestyle="--", label=f"suggestion {self.suggestion:.2g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss (smoothed)")
        axes.grid(alpha=0.3)
        axes.legend()
        return figure


def find_learning_rate(
    model: keras.Model,
    data: ImageData,
    recipe: Recipe,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    task: str | None = None,
) -> LearningRateSearch:
    """Trains with a rate that grows exponentially from step to step, and looks where the loss falls.

    The model's weights are restored. Source: Smith, "Cyclical learning rates for training neural networks",
    https://arxiv.org/abs/1506.01186, section 3.3.

    Args:
        model: Functional or sequential model, as for `train`.
        data: Images of the model's input size.
        recipe: Everything but the schedule: batch size, decay, augmentation, class weights, seed.
        lowest: Rate of the first step, above 0.
        highest: Rate of the last step, above `lowest`. The test ends earlier where the loss explodes.
        steps: Number of steps, at least 10.
        task: As in `train`.

    Raises:
        InvalidArgumentError: A value is out of range, or the model doesn't fit the data: its size, its labels, or how
            its images are normalized.
        TrainingError: The loss isn't finite in the first step.
    """
    if not 0 < lowest < highest or steps < 10:
        raise InvalidArgumentError(
            "`lowest` must be above 0, `highest` above it, and `steps` at least 10. "
            f"Received: lowest={lowest}, highest={highest}, steps={steps}."
        )
    model = without_auxiliary(model)
    head = _tasks.read_head(model, task)
    check_fits(model, data, head)
    class_weights = weights_of_classes(recipe, data, head)
    before = [np.array(variable) for variable in model.variables]
    keras.utils.set_random_seed(recipe.seed)
    trained = keeping_modes(keras.Model(model.inputs[0], model.outputs[0]))
    optimizer = make_optimizer(trained, recipe.replace(accumulate=1), steps)
    growth = (highest / lowest) ** (1 / (steps - 1))
    optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(lowest, 1, growth)
    trained.compile(
        optimizer=optimizer,
        loss=training_loss(head, rows=data.targets.ndim == 2, label_smoothing=recipe.label_smoothing),
        jit_compile=False,
    )
    watch = _Watch(lowest, growth)
    epochs = math.ceil(steps / data.steps_per_epoch(recipe.batch_size))
    batches = data.train(
        recipe.batch_size,
        recipe.augmentation,
        recipe.seed,
        epochs=epochs,
        mixing=recipe.mixing,
        columns=model.outputs[0].shape[-1],
        class_weights=class_weights,
    )
    try:
        trained.fit(batches.take(steps), callbacks=[watch], verbose=0, shuffle=False)
    finally:
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)
    return watch.result()


class _Watch(keras.callbacks.Callback):
    """Notes rates and losses, and stops where the loss explodes."""

    def __init__(self, lowest: float, growth: float) -> None:
        super().__init__()
        self._lowest, self._growth = lowest, growth
        self._rates: list[float] = []
        self._losses: list[float] = []
        self._sum = self._average = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        seen = len(self._losses)
        total = float(logs["loss"]) * (seen + 1)  # Keras reports the mean of the epoch so far
        loss, self._sum = total - self._sum, total
        if math.isfinite(loss):
            self._average = _SMOOTHING * self._average + (1 - _SMOOTHING) * loss
            self._rates.append(self._lowest * self._growth**seen)
            self._losses.append(self._average / (1 - _SMOOTHING ** (seen + 1)))
        if not math.isfinite(loss) or (seen > 10 and self._losses[-1] > _EXPLODED * min(self._losses)):
            self.model.stop_training = True

    def result(self) -> LearningRateSearch:
        if not self._losses:
            raise TrainingError(
                "The loss must be finite with the lowest rate: look for damaged weights or targets. "
                f"Received: another loss in the first step, with learning_rate={self._lowest}."
            )
        slopes = np.gradient(np.asarray(self._losses)) if len(self._losses) > 1 else np.zeros(1)
        first = min(len(slopes) // 10, 10)  # the first steps say little: the average hasn't settled
        best = first + int(np.argmin(slopes[first:]))
        return LearningRateSearch(tuple(self._rates), tuple(self._losses), float(self._rates[best]))
