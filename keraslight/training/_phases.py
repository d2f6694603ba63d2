"""Parts of a training between whose epochs something changes that a traced step can't: frozen layers, or a stage."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

from keraslight.errors import InvalidArgumentError
from keraslight.graph import flat_layers, owned_weights
from keraslight.training._augmentation import Augmentation
from keraslight.training._mixing import Mixing
from keraslight.training._progressive import Stage
from keraslight.training._recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Phase:
    """Consecutive epochs of the same kind.

    Attributes:
        first: Its first epoch, from 0.
        end: The epoch after its last one.
        frozen: Whether the recipe's frozen layers are frozen.
        stage: Values of progressive learning, or None.
        augmentation: Random changes of single images, or None.
        mixing: Mixtures of images.
    """

    first: int
    end: int
    frozen: bool
    stage: Stage | None
    augmentation: Augmentation | None
    mixing: Mixing

    def same_step(self, other: Phase | None) -> bool:
        """Whether a training step that was traced in the other phase is also that of this one."""
        if other is None or self.frozen != other.frozen:
            return False
        return (self.stage and self.stage.dropout) == (other.stage and other.stage.dropout)


def phases(recipe: Recipe) -> list[Phase]:
    """The phases of a training, in order."""

    def kind(epoch: int) -> tuple[bool, Stage | None]:
        freezes = recipe.freeze is not None or recipe.freeze_batch_norm
        frozen = freezes and (recipe.freeze_epochs is None or epoch < recipe.freeze_epochs)
        stage = recipe.progressive.at(epoch, recipe.epochs) if recipe.progressive is not None else None
        return frozen, stage

    borders = [epoch for epoch in range(recipe.epochs) if epoch == 0 or kind(epoch) != kind(epoch - 1)]
    found = []
    for first, end in zip(borders, [*borders[1:], recipe.epochs], strict=True):
        frozen, stage = kind(first)
        augmentation, mixing = recipe.augmentation, recipe.mixing
        if stage is not None:
            mixing = Mixing(stage.mixup, stage.cutmix, recipe.mix_probability)
            if recipe.progressive is not None and any(recipe.progressive.magnitude):
                base = augmentation or Augmentation()
                layers = base.rand_layers or 2
                augmentation = dataclasses.replace(base, rand_layers=layers, rand_magnitude=stage.magnitude)
        found.append(Phase(first, end, frozen, stage, augmentation, mixing))
    return found


def check_phases(model: keras.Model, recipe: Recipe) -> None:
    """Raises InvalidArgumentError for a recipe whose freezing or stages the model has no layers or sizes for."""
    if recipe.freeze is not None and not _frozen_weights(model, recipe):
        names = [layer.name for layer, _ in owned_weights(model)]
        raise InvalidArgumentError(
            "`freeze` must be a pattern of names of layers with weights, and leave some of them to train. "
            f"Received: {recipe.freeze!r}, which matches all or none of {', '.join(names[:8])}"
            f"{', ...' if len(names) > 8 else ''}."
        )
    if recipe.progressive is None:
        return
    sides = tuple(model.inputs[0].shape[1:3])
    if sides != (None, None):
        raise InvalidArgumentError(
            "`progressive` needs a model that takes images of any size: build it with "
            f"input_shape=(None, None, {model.inputs[0].shape[-1]}). Received: {model.name!r} for {sides}."
        )
    if any(recipe.progressive.dropout) and head_dropout(model) is None:
        raise InvalidArgumentError(
            "`progressive` sets the rate of the dropout before the last layer: build the model with dropout=0.1, say, "
            f"or pass dropout=(0, 0). Received: {model.name!r}, which has none."
        )


@contextlib.contextmanager
def entered(
    model: keras.Model, recipe: Recipe, phase: Phase, optimizer: Any
) -> Iterator[Sequence[keras.layers.BatchNormalization]]:
    """Makes the model that of a phase; what trains it has to be traced again. Gives the batch norms that it freezes."""
    with contextlib.ExitStack() as undo:
        norms = undo.enter_context(_frozen(model, recipe, optimizer)) if phase.frozen else []
        dropout = head_dropout(model) if phase.stage is not None else None
        if dropout is not None and phase.stage is not None:
            undo.callback(setattr, dropout, "rate", dropout.rate)
            dropout.rate = phase.stage.dropout
        yield norms


def head_dropout(model: keras.Model) -> keras.layers.Dropout | None:
    """The last dropout, before the last layer with a kernel; None without one."""
    found = [layer for layer in flat_layers(model) if isinstance(layer, keras.layers.Dropout)]
    return found[-1] if found else None


@contextlib.contextmanager
def thawed(norms: Sequence[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Makes frozen batch norms trainable while their model is saved: it would be loaded with frozen ones."""
    for norm in norms:
        norm.trainable = True
    try:
        yield
    finally:
        _freeze(norms)


def _freeze(norms: Iterable[keras.layers.BatchNormalization]) -> None:
    for norm in norms:
        variables = norm.trainable_variables
        norm.trainable = False
        for variable in variables if keras.backend.backend() == "jax" else ():
            variable.trainable = True  # as `_frozen` leaves the others


@contextlib.contextmanager
def _frozen(model: keras.Model, recipe: Recipe, optimizer: Any) -> Iterator[list[keras.layers.BatchNormalization]]:
    named = _frozen_weights(model, recipe)
    norms = []
    if recipe.freeze_batch_norm:
        layers = {id(layer) for layer, _ in named}
        norms = [n for n in _batch_norms(model) if n.trainable and (recipe.freeze is None or id(n) in layers)]
    # Variables rather than layers: a batch norm that isn't `trainable` would also keep its statistics.
    variables = [variable for layer, own in named if layer not in norms for variable in own]
    if keras.backend.backend() == "jax":  # where the trainer's lists of variables have to stay the optimizer's
        optimizer.freeze([*variables, *(variable for norm in norms for variable in norm.trainable_variables)])
    else:
        for variable in variables:
            variable.trainable = False
    _freeze(norms)
    try:
        yield norms
    finally:
        if keras.backend.backend() == "jax":
            optimizer.freeze([])
        for variable in variables:
            variable.trainable = True
        for norm in norms:
            norm.trainable = True


def _frozen_weights(model: keras.Model, recipe: Recipe) -> list[tuple[keras.Layer, list[keras.Variable]]]:
    """The layers that the recipe names, with their weights; empty if that is all of them, too."""
    if recipe.freeze is None:
        return []
    layers = owned_weights(model)
    if recipe.freeze == "*":
        kernels = [place for place, (_, own) in enumerate(layers) if any(len(weight.shape) > 1 for weight in own)]
        return layers[: kernels[-1]] if kernels else []
    named = [pair for pair in layers if fnmatch.fnmatchcase(pair[0].name, recipe.freeze)]
    return named if len(named) < len(layers) else []


def _batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in flat_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
