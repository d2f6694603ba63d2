"""AdamW as a recipe describes it: schedule, decay, clipping, accumulation, and rates that fall from layer to layer."""

import re
from collections.abc import Iterable
from typing import Any

import keras

from keraslight.graph import owned_weights
from keraslight.training._recipe import Recipe

_BLOCK = re.compile(r"(.*?(?:stage\d+(?:_block\d+)?|block\d+))(?:_|$)")
_MIDDLE = 12  # groups between stem and head at most, as in https://arxiv.org/abs/2201.03545, appendix A.3


def make_optimizer(model: keras.Model, recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a training with `steps` batches per epoch, not built."""
    updates, warmup = recipe.epochs * steps // recipe.accumulate, recipe.warmup * steps // recipe.accumulate
    schedule = keras.optimizers.schedules.CosineDecay(
        # Not from 0, which would waste the first step. Without a warm-up, this is the peak itself.
        initial_learning_rate=recipe.learning_rate / (warmup + 1),
        decay_steps=max(updates - warmup, 1),
        alpha=recipe.final_learning_rate,
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    arguments: dict[str, Any] = {
        "name": "adamw",  # not numbered by Keras: MLflow refuses other parameters for a resumed run
        "weight_decay": recipe.weight_decay,
        "beta_1": recipe.beta_1,
        "epsilon": recipe.epsilon,
        "global_clipnorm": recipe.clip_norm,
        "gradient_accumulation_steps": recipe.accumulate if recipe.accumulate > 1 else None,
    }
    optimizer: Any
    freezes = recipe.freeze is not None or recipe.freeze_batch_norm
    if recipe.layer_decay == 1 and not (freezes and keras.backend.backend() == "jax"):
        optimizer = keras.optimizers.AdamW(schedule, **arguments)
    else:
        groups = layer_groups(model)
        last = max(groups.values())
        scales = [recipe.layer_decay ** (last - groups[id(variable)]) for variable in model.trainable_variables]
        optimizer = LayerwiseAdamW(scales, schedule, **arguments)
    # By rank, not by name: biases, normalization and layer scales are vectors in all architectures.
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) <= 1])
    return optimizer


class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW with a factor for the learning rate of each variable, and for its decay, which is relative to the rate.

    Scaled gradients would not do: Adam divides by their size. With `freeze`, some variables don't change: on JAX an
    optimizer always gets the gradients of all variables that it was built for.

    Args:
        scales: The factors, in the order of the variables that the optimizer is built for.
        *args: Arguments of AdamW.
        **kwargs: Further arguments of AdamW.
    """

    def __init__(self, scales: list[float], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scales = list(scales)
        self._frozen: frozenset[int] = frozenset()

    def freeze(self, variables: Iterable[keras.Variable]) -> None:
        """Leaves these variables, and no others, as they are, with their moments; to be traced again."""
        self._frozen = frozenset(map(self._get_variable_index, variables))

    def apply(self, grads: list[Any], trainable_variables: Any = None) -> None:
        frozen = self._frozen
        grads = (
            [keras.ops.zeros_like(g) if place in frozen else g for place, g in enumerate(grads)] if frozen else grads
        )
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, learning_rate * self._scales[self._get_variable_index(variable)])

    def _apply_weight_decay(self, variables: Any) -> None:
        for variable in variables:
            if self._use_weight_decay(variable) and self._get_variable_index(variable) not in self._frozen:
                rate = self.learning_rate * self.weight_decay * self._scales[self._get_variable_index(variable)]
                variable.assign(variable - variable * keras.ops.cast(rate, variable.dtype))


def layer_groups(model: keras.Model) -> dict[int, int]:
    """Groups of layers from the input to the output: id of a trainable variable -> number of its group.

    0 is the stem, and the last is the head. Between them are up to 12 groups of consecutive blocks, which the names of
    layers tell; of models whose names don't, each layer with a kernel is a block.
    """
    units: list[tuple[str, list[keras.Variable]]] = []
    for layer, variables in owned_weights(model):
        found = _BLOCK.match(layer.name)
        vectors = all(len(variable.shape) <= 1 for variable in variables)
        name = found[1] if found else layer.name
        if units and ((found and units[-1][0] == name) or (not found and vectors)):
            units[-1][1].extend(variables)
        else:
            units.append((name, variables))
    blocks = [place for place, (name, _) in enumerate(units) if _BLOCK.match(name)]
    first, end = (blocks[0], blocks[-1] + 1) if blocks else (1, len(units) - 1)
    if end == len(units):  # without a head of its own name
        end -= 1
    middle = max(end - first, 0)
    groups = min(middle, _MIDDLE)
    stem = 1 if first else 0
    numbers: dict[int, int] = {}
    for place, (_, variables) in enumerate(units):
        if place < first:
            number = 0
        elif place < end:
            number = stem + (place - first) * groups // middle
        else:
            number = stem + groups
        numbers |= {id(variable): number for variable in variables}
    return numbers
