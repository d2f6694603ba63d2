"""Progressive learning: small images and weak regularization first."""

from __future__ import annotations

import dataclasses

from keraslight.errors import InvalidArgumentError


@dataclasses.dataclass(frozen=True)
class Stage:
    """Values of one stage of progressive learning.

    Attributes:
        number: From 0.
        size: Side of the training images, in pixels.
        magnitude: Strength of RandAugment.
        mixup: Alpha of MixUp; 0 for none.
        cutmix: Alpha of CutMix; 0 for none.
        dropout: Rate of the dropout before the last layer.
    """

    number: int
    size: int
    magnitude: float
    mixup: float
    cutmix: float
    dropout: float


@dataclasses.dataclass(frozen=True)
class Progressive:
    """Training in stages, over which image size and regularization grow together.

    Each pair has the values of the first and of the last stage; those between lie on a line, and the epochs are shared
    equally. The gain is time: most epochs run on small images, and accuracy stays. Source: Tan and Le,
    "EfficientNetV2", https://arxiv.org/abs/2104.00298, section 4.2, algorithm 1, and table 6, whose values for
    EfficientNetV2-S are the defaults. (The authors' code trains at other sizes: its stages end, rather than begin, on
    the line.)

    Args:
        stages: Number of stages, at least 1.
        size: Sides of the square training images, in pixels, at least 1. Validation always uses the data's own size,
            which should not be smaller than the last.
        magnitude: Strength of RandAugment, in [0, 30], of two layers unless the recipe's augmentation says another
            number; (0, 0) leaves the augmentation as it is.
        mixup: Alpha of MixUp, at least 0; 0 for none.
        cutmix: Alpha of CutMix, at least 0; 0 for none.
        dropout: Rate of the dropout before the last layer, in [0, 1).

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    stages: int = 4
    size: tuple[int, int] = (128, 300)
    magnitude: tuple[float, float] = (5.0, 15.0)
    mixup: tuple[float, float] = (0.0, 0.0)
    cutmix: tuple[float, float] = (0.0, 0.0)
    dropout: tuple[float, float] = (0.1, 0.3)

    def __post_init__(self) -> None:
        if self.stages < 1:
            raise InvalidArgumentError(f"`stages` must be at least 1. Received: stages={self.stages}.")
        for field, low, high, interval in (
            ("size", 1, float("inf"), "at least 1"),
            ("magnitude", 0, 30, "in [0, 30]"),
            ("mixup", 0, float("inf"), "at least 0"),
            ("cutmix", 0, float("inf"), "at least 0"),
            ("dropout", 0, 0.999999, "in [0, 1)"),
        ):
            pair = tuple(getattr(self, field))
            object.__setattr__(self, field, pair)  # a list, from JSON
            if len(pair) != 2 or not all(low <= value <= high for value in pair):
                raise InvalidArgumentError(
                    f"`{field}` must be two values, of the first and the last stage, {interval}. "
                    f"Received: {field}={pair}."
                )

    def stage(self, number: int) -> Stage:
        """The values of a stage, from 0."""
        share = number / (self.stages - 1) if self.stages > 1 else 1.0

        def between(pair: tuple[float, float]) -> float:
            return pair[0] + (pair[1] - pair[0]) * share

        return Stage(
            number,
            round(between(self.size)),
            between(self.magnitude),
            between(self.mixup),
            between(self.cutmix),
            between(self.dropout),
        )

    def at(self, epoch: int, epochs: int) -> Stage:
        """The values in an epoch, from 0, of a training of `epochs`."""
        return self.stage(min(epoch * self.stages // epochs, self.stages - 1))

    def scaled(self, size: int) -> Progressive:
        """The same growth for images whose last side is `size`."""
        return dataclasses.replace(self, size=(max(round(self.size[0] * size / self.size[1]), 1), size))

    def table(self, epochs: int) -> str:
        """The stages of a training of `epochs` as text, a line each."""
        lines = ["stage  epochs     size  magnitude  mixup  cutmix  dropout"]
        for number in range(self.stages):
            members = [epoch + 1 for epoch in range(epochs) if self.at(epoch, epochs).number == number]
            here = self.stage(number)
            span = f"{members[0]}-{members[-1]}" if members else "-"
            lines.append(
                f"{number + 1:5}  {span:<9}  {here.size:4}  {here.magnitude:9.3g}  {here.mixup:5.3g}  "
                f"{here.cutmix:6.3g}  {here.dropout:7.3g}"
            )
        return "\n".join(lines)
