"""What is searched: the block rows of MobileNetV3 and MobileNetV4, as a fixed number of choices.

All rows of a stage are equal, except for the first one's stride. Whichever depth a stage has, its choices are the same:
samplers model choices that all trials have, and draw those that only some have at random.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import keras
from optuna.trial import BaseTrial

from keraslight.architectures import mobilenet_v3, mobilenet_v4
from keraslight.errors import InvalidArgumentError
from keraslight.preprocessing import Preprocessing
from keraslight.zoo import create_model

STEP = 8  # of all channels, as in both papers
_STEMS = (8, 24)
_WIDTHS = ((16, 32), (24, 64), (32, 96), (64, 160))
_HEADS = ((64, 384), (64, 512))


@dataclasses.dataclass(frozen=True)
class RowSpace(abc.ABC):
    """What both spaces share. Subclasses say which rows a stage's choices make.

    Attributes:
        variant: Model whose arguments `sample` replaces.
    """

    variant: ClassVar[str]

    stages: tuple[tuple[int, int], ...] = _WIDTHS[:3]
    depth: tuple[int, int] = (1, 3)
    stem: tuple[int, int] = _STEMS
    head: tuple[tuple[int, int], tuple[int, int]] = _HEADS

    def __post_init__(self) -> None:
        for name in ("stages", "head"):
            object.__setattr__(self, name, tuple(tuple(pair) for pair in getattr(self, name)))
        for name in ("depth", "stem"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.stages:
            raise InvalidArgumentError("`stages` must have at least one pair of channels. Received: none.")
        for name, pair in [
            *(("stages", p) for p in self.stages),
            *(("head", p) for p in self.head),
            ("stem", self.stem),
        ]:
            if len(pair) != 2 or not 0 < pair[0] <= pair[1] or any(value % STEP for value in pair):
                raise InvalidArgumentError(
                    f"`{name}` must be pairs of fewest and most channels, multiples of {STEP}. Received: {pair}."
                )
        if len(self.head) != 2:
            raise InvalidArgumentError(f"`head` must have two pairs of channels. Received: {self.head}.")
        if len(self.depth) != 2 or not 1 <= self.depth[0] <= self.depth[1]:
            raise InvalidArgumentError(f"`depth` must be fewest and most rows, at least 1. Received: {self.depth}.")

    @classmethod
    def for_images(cls, side: int) -> Self:
        """The space for images of that side, in pixels: so many stages that the last map is 3 to 7 pixels wide.

        Images of more than 112 pixels end in larger maps, after four stages.
        """
        if side < 32:
            raise InvalidArgumentError(f"`side` must be at least 32 pixels. Received: {side}.")
        return cls(stages=_WIDTHS[: min(round(math.log2(side)) - 3, len(_WIDTHS))])

    @abc.abstractmethod
    def sample(self, trial: BaseTrial) -> dict[str, Any]:
        """The arguments of the builder that a trial's choices make."""

    def build(self, arguments: dict[str, Any], ends: dict[str, Any]) -> keras.Model:
        """A net with random weights.

        Args:
            arguments: What `sample` returned.
            ends: Further arguments of `create_model`, such as `classes`.
        """
        return create_model(self.variant, **arguments, **ends)

    def code(self, arguments: dict[str, Any], ends: dict[str, Any]) -> str:
        """The program that builds the net as `build` does."""
        rows = [row for stage in arguments["stages"] for row in stage]
        module, kinds = type(rows[0]).__module__, sorted({type(row).__name__ for row in rows})
        names = ["create_model"]
        if any(isinstance(value, Preprocessing) for value in ends.values()):
            names.insert(0, "Preprocessing")
        lines = [
            f"from keraslight import {', '.join(names)}",
            f"from {module} import {', '.join(kinds)}",
            "",
            "model = create_model(",
            f'    "{self.variant}",',
        ]
        for name, value in {**arguments, **ends}.items():
            lines += _stages(value) if name == "stages" else [f"    {name}={value!r},"]
        return "\n".join([*lines, ")\n"])

    def _channels(self, trial: BaseTrial, name: str, pair: tuple[int, int]) -> int:
        return trial.suggest_int(name, *pair, step=STEP)


def _stages(stages: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["    stages=("]
    for stage in stages:
        lines += ["        (", *(f"            {row!r}," for row in stage), "        ),"]
    return [*lines, "    ),"]


def _check_kernels(name: str, kernels: tuple[int, ...], *, none: bool) -> None:
    if not kernels or any(kernel % 2 == 0 and not (none and kernel == 0) for kernel in kernels) or min(kernels) < 0:
        rule = "odd numbers, or 0 for none" if none else "odd numbers"
        raise InvalidArgumentError(f"`{name}` must be sides of kernels, {rule}. Received: {kernels}.")


def _check_expansions(expansions: tuple[float, ...]) -> None:
    if not expansions or min(expansions) < 1:
        raise InvalidArgumentError(f"`expansions` must be numbers of at least 1. Received: {expansions}.")


@dataclasses.dataclass(frozen=True)
class MobileNetV3Space(RowSpace):
    """Rows of MobileNetV3: inverted residuals with a kernel, an expansion, squeeze-and-excitation and an activation.

    Source: Howard et al., "Searching for MobileNetV3", https://arxiv.org/abs/1905.02244, section 4, whose rows it has;
    the choices are few enough for some dozens of trials.

    Args:
        stages: Fewest and most channels of each stage, multiples of 8. Each stage halves the sides.
        depth: Fewest and most rows of a stage.
        stem: Fewest and most channels of the stem, which halves the sides first.
        head: Fewest and most channels of the convolutions before and after the pooling.
        kernels: Sides of depthwise kernels, odd.
        expansions: Expanded channels as multiples of the previous row's, at least 1; 1 has no expansion.
        squeeze: Whether rows may have squeeze-and-excitation.
        activations: Activations of the rows; and of stem and head, chosen on their own.

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    variant: ClassVar[str] = "mobilenet_v3_small_100"

    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (2, 3, 4, 6)
    squeeze: bool = True
    activations: tuple[str, ...] = (mobilenet_v3.RE, mobilenet_v3.HS)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("kernels", "expansions", "activations"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_kernels("kernels", self.kernels, none=False)
        _check_expansions(self.expansions)
        if not self.activations:
            raise InvalidArgumentError("`activations` must have at least one. Received: none.")

    def sample(self, trial: BaseTrial) -> dict[str, Any]:
        """Arguments of `MobileNetV3`: `stem`, `stages`, `head` and `activation`."""
        stem = before = self._channels(trial, "stem", self.stem)
        stages = []
        for s, widths in enumerate(self.stages):
            channels, depth = (
                self._channels(trial, f"stage{s}_channels", widths),
                trial.suggest_int(f"stage{s}_depth", *self.depth),
            )
            kernel = trial.suggest_categorical(f"stage{s}_kernel", self.kernels)
            expansion = trial.suggest_categorical(f"stage{s}_expansion", self.expansions)
            squeeze = trial.suggest_categorical(f"stage{s}_squeeze", (False, True)) if self.squeeze else False
            activation = trial.suggest_categorical(f"stage{s}_activation", self.activations)
            rows = []
            for b in range(depth):
                stride = 1 if b else 2
                rows.append(mobilenet_v3.Row(kernel, before * expansion, channels, squeeze, activation, stride))
                before = channels
            stages.append(tuple(rows))
        head = tuple(self._channels(trial, f"head{n}", widths) for n, widths in enumerate(self.head))
        activation = trial.suggest_categorical("activation", self.activations)
        return {"stem": stem, "stages": tuple(stages), "head": head, "activation": activation}


@dataclasses.dataclass(frozen=True)
class MobileNetV4Space(RowSpace):
    """Rows of MobileNetV4: universal inverted bottlenecks with two optional depthwise convolutions.

    Source: Qin et al., "MobileNetV4", https://arxiv.org/abs/2404.10518, section 4: the forms of the block are what that
    search chooses in its second, fine stage.

    Args:
        stages: Fewest and most channels of each stage, multiples of 8. Each stage halves the sides.
        depth: Fewest and most rows of a stage.
        stem: Fewest and most channels of the stem, which halves the sides first.
        head: Fewest and most channels of the convolutions before and after the pooling.
        starts, middles: Sides of the depthwise kernels before and after the expansion, odd; 0 for none. Where a stage
            has neither, its first row, which halves the sides, has the smallest of `middles` (3 if they are all 0).
        expansions: Expanded channels as multiples of the previous row's, at least 1.
        fused: Whether the first stage may have fused rows, with one full convolution of 3x3, in place of these.

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    variant: ClassVar[str] = "mobilenet_v4_conv_small"

    starts: tuple[int, ...] = (0, 3, 5)
    middles: tuple[int, ...] = (0, 3, 5)
    expansions: tuple[float, ...] = (2, 3, 4, 6)
    fused: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("starts", "middles", "expansions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_kernels("starts", self.starts, none=True)
        _check_kernels("middles", self.middles, none=True)
        _check_expansions(self.expansions)

    def sample(self, trial: BaseTrial) -> dict[str, Any]:
        """Arguments of `MobileNetV4`: `stem`, `stages` and `head`."""
        stem = self._channels(trial, "stem", self.stem)
        stages: list[tuple[mobilenet_v4.Block, ...]] = []
        for s, widths in enumerate(self.stages):
            channels = self._channels(trial, f"stage{s}_channels", widths)
            depth = trial.suggest_int(f"stage{s}_depth", *self.depth)
            start = trial.suggest_categorical(f"stage{s}_start", self.starts)
            middle = trial.suggest_categorical(f"stage{s}_middle", self.middles)
            expansion = trial.suggest_categorical(f"stage{s}_expansion", self.expansions)
            if s == 0 and self.fused and trial.suggest_categorical("stage0_fused", (False, True)):
                down: mobilenet_v4.Block = mobilenet_v4.Fused(3, expansion, channels, 2)
                other: mobilenet_v4.Block = mobilenet_v4.Fused(3, expansion, channels)
            else:
                first = middle if start or middle else min(filter(None, self.middles), default=3)
                down = mobilenet_v4.UIB(start, first, expansion, channels, 2)
                other = mobilenet_v4.UIB(start, middle, expansion, channels)
            stages.append((down, *(depth - 1) * (other,)))
        before, after = (self._channels(trial, f"head{n}", widths) for n, widths in enumerate(self.head))
        stages.append((mobilenet_v4.Conv(1, before),))
        return {"stem": stem, "stages": tuple(stages), "head": after}


SPACES: dict[str, type[RowSpace]] = {"mobilenet_v3": MobileNetV3Space, "mobilenet_v4": MobileNetV4Space}
"""Name of a space, as the command line takes it -> its class."""
