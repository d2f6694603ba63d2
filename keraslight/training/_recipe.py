"""Hyperparameters of a training run."""

from __future__ import annotations

import dataclasses
from typing import Any

from keraslight.errors import InvalidArgumentError
from keraslight.preprocessing import Preprocessing
from keraslight.training._augmentation import Augmentation


@dataclasses.dataclass(frozen=True)
class Recipe:
    """AdamW with linear warm-up and cosine decay to zero.

    Args:
        epochs: Passes over the training images, at least 1.
        batch_size: Images per step, at least 1.
        learning_rate: Peak learning rate, above 0.
        warmup_epochs: Epochs until the peak, in 0..epochs - 1; None for 3, or all but the last one of fewer.
        weight_decay: Decoupled weight decay, relative to the learning rate, at least 0. Not applied to vectors: biases,
            normalization and layer scales.
        label_smoothing: Share of the target to distribute over all classes, in [0, 1).
        auxiliary_weight: Weight of the loss of each auxiliary head, as those of `GoogLeNet(auxiliary=True)`, at least
            0.
        augmentation: Random changes to the training images, or None.
        seed: Random seed for shuffling, augmentation and dropout.
        patience: Number of epochs without improvement after which training stops, at least 1; None for all epochs.
            With a cosine schedule, the last epochs are usually the best, so None is the better choice.

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup_epochs: int | None = None
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    auxiliary_weight: float = 0.3
    augmentation: Augmentation | None = None
    seed: int = 0
    patience: int | None = None

    def __post_init__(self) -> None:
        for field, valid, rule in (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "positive"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("auxiliary_weight", self.auxiliary_weight >= 0, "at least 0"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("patience", self.patience is None or self.patience >= 1, "at least 1 or None"),
        ):
            if not valid:
                raise InvalidArgumentError(f"`{field}` must be {rule}. Received: {field}={getattr(self, field)}.")
        if not 0 <= self.warmup < self.epochs:
            raise InvalidArgumentError(
                "`warmup_epochs` must be at least 0 and less than `epochs`. "
                f"Received: warmup_epochs={self.warmup_epochs}, epochs={self.epochs}."
            )

    @property
    def warmup(self) -> int:
        """Epochs until the peak."""
        return min(3, self.epochs - 1) if self.warmup_epochs is None else self.warmup_epochs

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serializable dict, as read by `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Restores a value from `to_dict`."""
        augmentation = values.get("augmentation")
        return cls(**values | {"augmentation": Augmentation(**augmentation) if augmentation else None})


DIGITS_PREPROCESSING = Preprocessing(
    size=(48, 48), crop_mode="squash", interpolation="bilinear", mean=(0.5,), std=(0.5,)
)
"""Preprocessing for scikit-learn's digits, enlarged from 8x8, as `DIGITS_RECIPE` expects them."""

# Measured with mobilenet_v4_conv_small from random weights on the default split (359 held-out images), seeds 0, 1, 2:
# best epoch 99.16% in all three, last epoch 99.16%, 98.89%, 98.89%; 91 to 107 s on two shared cores, including about
# 20 s for tracing the graph.
# Tried and rejected: 8 epochs (98.3% with seed 1); 32x32, where the last map is a single pixel (98.6% to 98.9% in 12
# epochs, at nearly the same cost: small steps are all overhead); 64x64 and a learning rate of 4e-3 (no gain).
DIGITS_RECIPE = Recipe(
    epochs=12,
    batch_size=32,
    learning_rate=2e-3,
    warmup_epochs=1,
    weight_decay=0.05,
    label_smoothing=0.1,
    augmentation=Augmentation(shift=0.08, rotate_degrees=10, zoom=0.1, brightness=0.05, edges="constant"),
)
"""Recipe for `load_digits(DIGITS_PREPROCESSING)`: 99% accuracy in under two minutes on two CPU cores."""
