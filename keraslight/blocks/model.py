"""The two ends of every architecture: the image input and what follows the last feature map."""

import numbers
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import KerasTensor, layers

from keraslight.blocks.conv import activate, check_activation
from keraslight.errors import InvalidArgumentError


class Head(NamedTuple):
    """The classifier that the caller of a builder asked for.

    Args:
        classes: Number of classes K, at least 1.
        activation: Activation of the logits, applied in a layer named `probabilities`; None returns the logits.
        dropout: Dropout rate before the classifier, in [0, 1).
    """

    classes: int
    activation: str | None
    dropout: float


def check_head(classes: int | None, activation: str | None, dropout: float | None) -> None:
    """Raises InvalidArgumentError if one of them is out of range. None: not given."""
    if classes is not None and (not isinstance(classes, numbers.Integral) or classes < 1):
        kind = "" if isinstance(classes, numbers.Integral) else ", which is not an integer"
        raise InvalidArgumentError(f"`classes` must be at least 1. Received: classes={classes!r}{kind}.")
    check_activation(activation)
    if dropout is not None and not 0 <= dropout < 1:
        raise InvalidArgumentError(f"`dropout` must be in [0, 1). Received: dropout={dropout}.")


def image_input(
    input_shape: tuple[int | None, int | None, int], input_tensor: KerasTensor | None, *, min_size: int = 32
) -> KerasTensor:
    """Returns the tensor that a builder starts from: `input_tensor`, or a new `keras.Input` named `images`.

    Its shape is (H, W, C) with sides of at least `min_size` pixels or None (any size), and at least 1 channel; anything
    else raises InvalidArgumentError. A given tensor, (B, H, W, C), makes `input_shape` irrelevant.
    """
    if keras.config.image_data_format() != "channels_last":
        raise InvalidArgumentError(
            "keraslight builds channels-last models. Received: keras.config.image_data_format() = 'channels_first'."
        )
    shape = tuple(input_shape if input_tensor is None else input_tensor.shape[1:])
    if len(shape) != 3:
        raise InvalidArgumentError(f"`input_shape` must be (height, width, channels). Received: {shape}.")
    check_sides(shape, min_size)
    if shape[2] is None or shape[2] < 1:
        raise InvalidArgumentError(f"`input_shape` needs 1 or more channels. Received: {shape}.")
    return keras.Input(shape, name="images") if input_tensor is None else input_tensor


def check_sides(shape: tuple[int | None, ...], min_size: int) -> None:
    """Raises InvalidArgumentError if an image of `shape`, (H, W, C), has a side below `min_size` pixels."""
    if any(side is not None and side < min_size for side in shape[:2]):
        raise InvalidArgumentError(f"`input_shape` needs sides of at least {min_size} pixels. Received: {shape}.")


def drop(x: KerasTensor, dropout: float, *, name: str) -> KerasTensor:
    """Applies dropout at a rate in [0, 1); any other raises InvalidArgumentError. A rate of 0 returns `x`."""
    if not 0 <= dropout < 1:
        raise InvalidArgumentError(f"`dropout` must be in [0, 1). Received: dropout={dropout}.")
    return layers.Dropout(dropout, name=name)(x) if dropout else x


def fully_connected(
    x: KerasTensor, units: int, *, side: int = 1, activation: str | None = "relu", name: str
) -> KerasTensor:
    """Applies a dense layer over a whole map: (B, H, W, C) -> (B, max(H - side, 0) + 1, max(W - side, 0) + 1, units).

    It is written as the convolution that covers a map of `side` x `side` pixels. On a larger map it is evaluated at
    every position. A smaller map shrinks the kernel, so that published weights no longer fit.
    Source: Simonyan and Zisserman, https://arxiv.org/abs/1409.1556, section 3.2.
    """
    kernel = tuple(side if known is None else min(side, known) for known in x.shape[1:3])
    x = layers.Conv2D(units, kernel, padding="valid", name=name)(x)
    return activate(x, activation, name=f"{name}_act")


def classifier(x: KerasTensor, head: Head, *, bias: bool = True) -> KerasTensor:
    """Applies dropout and a dense classifier: (B, C) or (B, 1, 1, C) -> (B, classes)."""
    _check_classes(head.classes)
    if len(x.shape) == 4:
        x = layers.Flatten(name="flatten")(x)
    x = drop(x, head.dropout, name="dropout")
    x = layers.Dense(head.classes, use_bias=bias, name="classifier")(x)
    return activate(x, head.activation, name="probabilities")


def pooled_classifier(x: KerasTensor, head: Head, *, keepdims: bool = False, bias: bool = True) -> KerasTensor:
    """Applies global average pooling and a dense classifier, the top of most networks: (B, H, W, C) -> (B, classes).

    With `keepdims` the pooling keeps the map's two sides, which a layer named `flatten` then removes.
    """
    return classifier(layers.GlobalAveragePooling2D(keepdims=keepdims, name="pool")(x), head, bias=bias)


def convolutional_classifier(x: KerasTensor, head: Head, *, activation: str | None = None) -> KerasTensor:
    """Applies dropout and a 1x1 convolution with one map per class, and averages each: (B, H, W, C) -> (B, classes).

    The activation sits between the convolution and the averages.
    """
    _check_classes(head.classes)
    x = drop(x, head.dropout, name="dropout")
    x = layers.Conv2D(head.classes, 1, name="classifier")(x)
    x = activate(x, activation, name="classifier_act")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return activate(x, head.activation, name="probabilities")


class Network(NamedTuple):
    """What a family builds from the images.

    Args:
        features: Last map of each resolution, `{"stride_2": (B, H / 2, W / 2, C), ...}`.
        last: The map that the top starts from, and the output of a model without its top.
        top: Function from the last map and a `Head` to the model's output: a tensor or a dict of tensors.
        needs_top: Name of a true argument of the family that is an error without the top; empty for none.
    """

    features: dict[str, KerasTensor]
    last: KerasTensor
    top: Callable[[KerasTensor, Head], KerasTensor | dict[str, KerasTensor]] = pooled_classifier
    needs_top: str = ""


def _check_classes(classes: int) -> None:
    if classes < 1:
        raise InvalidArgumentError(f"`classes` must be at least 1. Received: classes={classes}.")
