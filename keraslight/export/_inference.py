"""A trained classifier -> the model that is served: raw pixels in, named outputs out, nothing left of the training."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import keras

from keraslight.compress import fuse, reparameterize
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.export.litert._convert import is_quantization_aware
from keraslight.layers import GRN, ImageNormalization, LayerNorm, LocalResponseNorm
from keraslight.layers._weights import set_weights
from keraslight.preprocessing import Preprocessing

log = logging.getLogger(__name__)

DTYPES = ("float32", "float16", "bfloat16")
_PROBABILITY_ACTIVATIONS = ("softmax", "sigmoid")
# Sums over many values, and variances as small as their epsilon: sixteen bits are too few for these.
_NORMALIZATIONS = (
    GRN,
    ImageNormalization,
    LayerNorm,
    LocalResponseNorm,
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
)


def own_preprocessing(model: Any) -> Preprocessing | None:
    """What a model that takes raw pixels says of its preprocessing; None for one that takes normalized images."""
    for layer in model.layers:
        if isinstance(layer, ImageNormalization):
            return layer.preprocessing
    return getattr(model, "preprocessing", None)


def raw_pixels(shape: tuple[int, int, int]) -> Preprocessing:
    """What stands for the preprocessing of a model that says nothing of it."""
    height, width, channels = shape
    log.warning(
        "The model carries no preprocessing (no ImageNormalization layer), so the servable gives it raw pixels 0..255, "
        "resized and cropped to %dx%d. If it was trained on normalized images, pass that Preprocessing, such as "
        "keraslight.model_info(name).preprocessing.",
        height,
        width,
    )
    return Preprocessing((height, width), mean=(0.0,) * channels, std=(1 / 255,) * channels)


def shapes(model: Any) -> tuple[tuple[int, int, int], int]:
    """Image shape (H, W, C) and number of classes of a classifier with one input and one output."""
    inputs, outputs = model.inputs, model.outputs
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4 or len(outputs[0].shape) != 2:
        raise InvalidArgumentError(
            "A servable needs a classifier with one input (B, H, W, C) and one output (B, classes). Received: inputs "
            f"{[tuple(i.shape) for i in inputs]}, outputs {[tuple(o.shape) for o in outputs]}."
        )
    shape = tuple(inputs[0].shape[1:])
    if None in shape:
        raise InvalidArgumentError(f"A servable needs a fixed image size. Received: model input {(None, *shape)}.")
    return shape, outputs[0].shape[1]


def from_pixels_to_probabilities(model: Any, spec: Preprocessing | None) -> Any:
    """The model with normalization in front (None: it has its own) and a softmax behind, each where it lacks them."""
    if is_quantization_aware(model):
        return model
    probabilities = _ends_in_probabilities(model)
    if spec is None and probabilities:
        return model
    images = keras.Input(model.inputs[0].shape[1:], name="images")
    x = images if spec is None else ImageNormalization(spec)(images)
    x = model(x)
    if not probabilities:
        x = keras.layers.Softmax(name="probabilities")(x)
    return keras.Model(images, x, name=model.name)


def inference_model(model: Any, *, dtype: str = "float32", embed: bool = False) -> Any:
    """What the signatures compute: batch norms are folded and parallel branches fused.

    Args:
        model: Raw pixels -> probabilities, as `from_pixels_to_probabilities` gives it. It is not changed. A
            quantization-aware one stays as it is: its ranges belong to its layers.
        dtype: Of the weights and the computation. Normalizations and the last activation stay in float32.
        embed: Whether to give the penultimate features too.

    Returns:
        A model float32 (B, H, W, C) -> {"probabilities": (B, K), "logits": (B, K)[, "embedding": (B, D)]}.

    Raises:
        InvalidArgumentError: a quantization-aware model with another dtype or with `embed`, or no layer from which an
            embedding could be taken.
        CompressionError: the model is subclassed, so that it can't be folded.
    """
    if is_quantization_aware(model):
        if dtype != "float32" or embed:
            raise InvalidArgumentError(
                "A quantization-aware model must be exported in float32 and without `embed`. "
                f"Received: dtype={dtype!r}, embed={embed}."
            )
        return type(model)(model.inputs, _outputs(model), name=model.name)
    with contextlib.suppress(CompressionError):  # it has no parallel branches; `fuse` says if it has no graph
        model = reparameterize(model)
    outputs = _outputs(model)
    if embed:  # before fusing, which joins a linear layer of features with the classifier
        outputs["embedding"] = _embedding(model)
    return _in_dtype(fuse(keras.Model(model.inputs[0], outputs, name=model.name)), dtype)


def _ends_in_probabilities(model: keras.Model) -> bool:
    last = model.outputs[0]._keras_history.operation
    return isinstance(last, keras.layers.Softmax) or _activation(last) in _PROBABILITY_ACTIVATIONS


def _activation(layer: Any) -> str | None:
    return getattr(getattr(layer, "activation", None), "__name__", None)


def _outputs(model: Any) -> dict[str, Any]:
    """The symbolic probabilities and, before the last activation, the logits."""
    probabilities = model.outputs[0]
    history = probabilities._keras_history
    if not isinstance(model, keras.Model):  # tf_keras: the last layer remembers its call without quantizers, too
        return {"probabilities": probabilities, "logits": history.layer.get_input_at(history.node_index)}
    last = history.operation
    inputs = last._inbound_nodes[history.node_index].input_tensors[0]
    if isinstance(last, keras.layers.Softmax | keras.layers.Activation):
        return {"probabilities": probabilities, "logits": inputs}
    linear = type(last).from_config({**last.get_config(), "activation": "linear", "name": f"{last.name}_logits"})
    logits = linear(inputs)
    linear.set_weights(last.get_weights())
    return {"probabilities": keras.layers.Activation(last.activation, name="probabilities")(logits), "logits": logits}


def _embedding(model: keras.Model) -> keras.KerasTensor:
    """What the last layer with a kernel reads, as (B, D): maps are averaged."""
    for layer in reversed(model.layers):
        if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D):
            features = layer.input
            if len(features.shape) == 4:
                features = keras.layers.GlobalAveragePooling2D(name="embedding")(features)
            return features
    raise InvalidArgumentError(
        "`embed` needs a classifier layer (Dense or Conv2D), whose inputs are the features. "
        f"Received: {model.name!r} without one."
    )


def _in_dtype(model: keras.Model, dtype: str) -> keras.Model:
    """A copy whose layers hold and compute `dtype`."""
    if dtype == "float32":
        return model
    outputs = {output._keras_history.operation for output in model.outputs}
    ends = {layer for layer in outputs if isinstance(layer, keras.layers.Softmax | keras.layers.Activation)}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if not isinstance(layer, (*_NORMALIZATIONS, keras.layers.InputLayer)) and layer not in ends:
            config["dtype"] = dtype
        return type(layer).from_config(config)

    clone = keras.models.clone_model(model, clone_function=copy)
    set_weights(clone, model.get_weights())
    return clone
