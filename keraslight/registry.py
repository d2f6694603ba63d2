"""Families of architectures, their variants and published weights by name. Imports no architecture and no Keras."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from keraslight.errors import InvalidArgumentError, UnknownModelError
from keraslight.preprocessing import Preprocessing

TASKS = ("classification", "detection", "segmentation")


class Backbone(NamedTuple):
    """The classifier whose maps a detector or segmenter reads.

    Args:
        name: Name as for `keraslight.create_model`. A published id brings that checkpoint's padding and normalization.
        taps: Maps, largest first: names of layers, or keys such as `"stride_16"` of the model's feature maps.
        arguments: Further keyword arguments of the classifier's builder.
    """

    name: str
    taps: tuple[str, ...]
    arguments: Mapping[str, Any] = {}


class Variant(NamedTuple):
    """One row of a family's table. A test builds the model and recounts `parameters` and `macs`.

    Args:
        arguments: Keyword arguments that make the builder build this variant.
        input_size: Side of the square input that the figures refer to, in pixels.
        parameters: Number of parameters with these channels and classes, without batch-norm statistics.
        macs: Multiply-adds for one image of that size.
        checkpoint: Id of the weights that the defaults are made for, a key of `keraslight.weights.CHECKPOINTS`. None if
            none are published.
        channels: Channels of the input.
        classes: Number of classes. A detector's don't count the background; of a segmenter's it is one.
        task: One of `TASKS`.
        backbone: Classifier that a detector or segmenter is built on. None if it has no other network below it.
    """

    arguments: Mapping[str, Any]
    input_size: int
    parameters: int
    macs: int
    checkpoint: str | None
    channels: int = 3
    classes: int = 1000
    task: str = "classification"
    backbone: Backbone | None = None


@dataclasses.dataclass(frozen=True)
class Family:
    """A builder with its table.

    Attributes:
        name: Name of the builder.
        prefix: What the short form of a name leaves out.
        builder: Function that builds a variant.
        variants: Full name -> row.
        taps: Strides of the maps that a detector or segmenter reads of any classifier, largest map first; empty for
            families without a backbone.
    """

    name: str
    prefix: str
    builder: Callable[..., Any]
    variants: Mapping[str, Variant]
    taps: tuple[int, ...] = ()

    @property
    def task(self) -> str:
        """What its models are for, one of `TASKS`."""
        return next(iter(self.variants.values())).task

    @property
    def paper(self) -> str:
        """The first line of the architecture's file."""
        return (sys.modules[self.builder.__module__].__doc__ or "").partition("\n")[0]

    def full_name(self, variant: str) -> str:
        """Returns a variant's full name: both `"conv_small"` and `"mobilenet_v4_conv_small"` give the latter.

        Raises:
            UnknownModelError: The family has no such variant.
        """
        for name in (variant, self.prefix + variant):
            if name in self.variants:
                return name
        choices = ", ".join(repr(name.removeprefix(self.prefix)) for name in self.variants)
        raise UnknownModelError(f"`variant` of {self.name} must be one of {choices}. Received: {variant!r}.")


class Published(NamedTuple):
    """What is known about published weights without loading them.

    Args:
        variant: Full name of the model that they belong to.
        top1: Reported ImageNet-1k top-1 accuracy, in percent.
        preprocessing: Preprocessing that they were trained with.
    """

    variant: str
    top1: float | None
    preprocessing: Preprocessing


FAMILIES: dict[str, Family] = {}
"""Name of a classifier's builder -> its family. Importing `keraslight.architectures` fills it."""

DENSE: dict[str, Family] = {}
"""The same for detectors and segmenters, which answer for places of an image. Importing `keraslight.dense` fills it."""

PUBLISHED: dict[str, Published] = {}
"""Id of a checkpoint -> what is known about it. Importing `keraslight.weights` fills it."""


def families() -> dict[str, Family]:
    """All families by the names of their builders: classifiers, then detectors and segmenters."""
    return FAMILIES | DENSE


def register(
    variants: Mapping[str, Variant], *, prefix: str, taps: tuple[int, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a builder, which takes the name of a variant first, under every name in its table.

    Args:
        variants: Full name -> row. The first one is the default.
        prefix: What the short form of a name leaves out, as in `MobileNetV4("conv_small")`.
        taps: See `Family`.

    Raises:
        InvalidArgumentError: Another family has a variant of the same name.
    """

    def decorate(builder: Callable[..., Any]) -> Callable[..., Any]:
        clash = [name for other in families().values() for name in other.variants if name in variants]
        if clash:
            raise InvalidArgumentError(f"Model names must be unique. Received again: {', '.join(clash)}.")
        family = Family(builder.__name__, prefix, builder, variants, taps)
        (FAMILIES if family.task == TASKS[0] else DENSE)[family.name] = family
        return builder

    return decorate
