"""The two ends of every architecture: the input and what is made of the last feature map."""

from __future__ import annotations

import keras
from keras import layers

from keraslight.blocks.conv import activate
from keraslight.errors import InvalidArgumentError

POOLINGS = (None, "avg", "max")


def image_input(
    input_shape: tuple[int | None, int | None, int], input_tensor: keras.KerasTensor | None, *, min_size: int = 32
) -> keras.KerasTensor:
    """The tensor that a builder starts from: `input_tensor`, or a new `keras.Input` named `images`.

    Args:
        input_shape: (H, W, C): sides of at least `min_size` pixels or None (any), 1 or more channels.
        input_tensor: (B, H, W, C); its shape is checked like `input_shape`, which is then not looked at.

    Raises:
        InvalidArgumentError: the shape breaks one of these rules.
    """
    if keras.config.image_data_format() != "channels_last":
        raise InvalidArgumentError(
            "keraslight builds channels-last models. Received: keras.config.image_data_format() = 'channels_first'."
        )
    shape = tuple(input_shape if input_tensor is None else input_tensor.shape[1:])
    if len(shape) != 3:
        raise InvalidArgumentError(f"`input_shape` must be (height, width, channels). Received: {shape}.")
    if any(side is not None and side < min_size for side in shape[:2]):
        raise InvalidArgumentError(f"`input_shape` needs sides of at least {min_size} pixels. Received: {shape}.")
    if shape[2] is None or shape[2] < 1:
        raise InvalidArgumentError(f"`input_shape` needs 1 or more channels. Received: {shape}.")
    return keras.Input(shape, name="images") if input_tensor is None else input_tensor


def feature_model(images: keras.KerasTensor, features: dict[str, keras.KerasTensor], *, name: str) -> keras.Model:
    """A model from images to a dict of feature maps, `{"stride_2": (B, H/2, W/2, C2), ...}`."""
    return keras.Model(_source(images), features, name=name)


def backbone(images: keras.KerasTensor, x: keras.KerasTensor, *, pooling: str | None = None, name: str) -> keras.Model:
    """A model without a classifier: (B, H, W, 3) -> the last map (B, h, w, C), or (B, C) where it is pooled.

    Args:
        pooling: None, `"avg"` or `"max"` over the last map.

    Raises:
        InvalidArgumentError: `pooling` is none of these.
    """
    if pooling not in POOLINGS:
        raise InvalidArgumentError(f"`pooling` must be one of {POOLINGS}. Received: {pooling!r}.")
    if pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(name="pool")(x)
    return keras.Model(_source(images), x, name=name)


def drop(x: keras.KerasTensor, dropout: float, *, name: str) -> keras.KerasTensor:
    """Dropout of a share of `x`, in [0, 1); 0 returns `x`.

    Raises:
        InvalidArgumentError: `dropout` is out of its range.
    """
    if not 0 <= dropout < 1:
        raise InvalidArgumentError(f"`dropout` must be in [0, 1). Received: dropout={dropout}.")
    return layers.Dropout(dropout, name=name)(x) if dropout else x


def fully_connected(
    x: keras.KerasTensor, units: int, *, side: int = 1, activation: str | None = "relu", name: str
) -> keras.KerasTensor:
    """A dense layer over a whole map, as the convolution that covers the map, so that it also takes larger ones.

    Source: Simonyan and Zisserman, https://arxiv.org/abs/1409.1556, section 3.2.

    Args:
        x: (B, H, W, C).
        units: Outputs F.
        side: Side of the map that the layer is made for, in pixels. On a larger map it is evaluated at every place; a
            smaller one makes it smaller, so that published weights no longer fit.
        activation: See `keraslight.blocks.conv.activate`.

    Returns:
        (B, max(H - side, 0) + 1, max(W - side, 0) + 1, F).
    """
    kernel = tuple(side if known is None else min(side, known) for known in x.shape[1:3])
    x = layers.Conv2D(units, kernel, padding="valid", name=name)(x)
    return activate(x, activation, name=f"{name}_act")


def classifier(
    images: keras.KerasTensor,
    x: keras.KerasTensor,
    *,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    dropout: float = 0.0,
    bias: bool = True,
    name: str,
) -> keras.Model:
    """A model that ends in a dense classifier.

    Args:
        images: The tensor that the graph starts from.
        x: (B, C) or (B, 1, 1, C).
        classes: Number of classes K, at least 1.
        classifier_activation: Applied to the logits as a layer named `probabilities`; None returns the logits.
        dropout: Share of the features that training zeroes, in [0, 1).
        bias: Whether the dense layer adds one.

    Returns:
        A model (B, H, W, channels) -> (B, K).

    Raises:
        InvalidArgumentError: `classes` or `dropout` is out of its range.
    """
    _check_classes(classes)
    if len(x.shape) == 4:
        x = layers.Flatten(name="flatten")(x)
    x = drop(x, dropout, name="dropout")
    x = layers.Dense(classes, use_bias=bias, name="classifier")(x)
    x = activate(x, classifier_activation, name="probabilities")
    return keras.Model(_source(images), x, name=name)


def convolutional_classifier(
    images: keras.KerasTensor,
    x: keras.KerasTensor,
    *,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    dropout: float = 0.0,
    activation: str | None = None,
    name: str,
) -> keras.Model:
    """A model that ends in a 1x1 convolution with one map a class and their means.

    Args:
        images: The tensor that the graph starts from.
        x: (B, H, W, C).
        classes, classifier_activation, dropout: As in `classifier`; the dropout comes before the convolution.
        activation: Between the convolution and the means.

    Returns:
        A model (B, H, W, channels) -> (B, classes).

    Raises:
        InvalidArgumentError: `classes` or `dropout` is out of its range.
    """
    _check_classes(classes)
    x = drop(x, dropout, name="dropout")
    x = layers.Conv2D(classes, 1, name="classifier")(x)
    x = activate(x, activation, name="classifier_act")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = activate(x, classifier_activation, name="probabilities")
    return keras.Model(_source(images), x, name=name)


def _check_classes(classes: int) -> None:
    if classes < 1:
        raise InvalidArgumentError(f"`classes` must be at least 1. Received: classes={classes}.")


def _source(images: keras.KerasTensor) -> keras.KerasTensor:
    """The model's input: `images` itself, or what a given input tensor was made from."""
    (source,) = keras.utils.get_source_inputs(images)  # as a list, Keras would warn at every call with a bare tensor
    return source
