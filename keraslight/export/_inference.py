"""A trained classifier -> the model that is served: raw pixels in, named outputs out, nothing left of the training."""

from __future__ import annotations

import logging
from typing import Any

import keras
import numpy as np

from keraslight.errors import InvalidArgumentError
from keraslight.graph import build, is_quantization_aware, read
from keraslight.graph.ends import final_activation, keeps_values, lone_activation, maker
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.rewrite import fused, halved, reparameterized

log = logging.getLogger(__name__)

DTYPES = ("float32", "float16", "bfloat16")
_PROBABILITY_ACTIVATIONS = ("softmax", "sigmoid")
_TINY = 1e-30  # a float32 probability that is still a normal number; its logarithm is -69


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
    inputs, outputs = (getattr(model, name, None) or [] for name in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4 or len(outputs[0].shape) != 2:
        raise InvalidArgumentError(
            "A servable needs a functional or sequential classifier with one input (B, H, W, C) and one output "
            f"(B, classes). Received: {type(model).__name__} with inputs {[tuple(i.shape) for i in inputs]}, outputs "
            f"{[tuple(o.shape) for o in outputs]}."
        )
    shape = tuple(inputs[0].shape[1:])
    if None in shape:
        raise InvalidArgumentError(f"A servable needs a fixed image size. Received: model input {(None, *shape)}.")
    return shape, outputs[0].shape[1]


def from_pixels_to_probabilities(model: Any, spec: Preprocessing | None, images: np.ndarray) -> Any:
    """The model with normalization in front (None: it has its own) and a softmax behind, each where it lacks them.

    Where the layers don't tell whether it gives probabilities, its answers to `images`, raw pixels, do.
    """
    if is_quantization_aware(model):
        return model if final_activation(model) in _PROBABILITY_ACTIVATIONS else _with_softmax(model)
    probabilities = final_activation(model) in _PROBABILITY_ACTIVATIONS or _sums_to_one(model, spec, images)
    if spec is None and probabilities:
        return model
    pixels = keras.Input(model.inputs[0].shape[1:], name="images")
    x = pixels if spec is None else ImageNormalization(spec)(pixels)
    x = model(x)
    if not probabilities:
        x = keras.layers.Softmax(name="probabilities")(x)
    return keras.Model(pixels, x, name=model.name)


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
        CompressionError: the model is subclassed, or a layer's configuration does not make it again.
    """
    if is_quantization_aware(model):
        if dtype != "float32" or embed:
            raise InvalidArgumentError(
                "A quantization-aware model must be exported in float32 and without `embed`. "
                f"Received: dtype={dtype!r}, embed={embed}."
            )
        return type(model)(model.inputs, _outputs(model), name=model.name)
    model = build(reparameterized(read(model)))
    outputs = _outputs(model)
    if embed:  # before fusing, which joins a linear layer of features with the classifier
        outputs["embedding"] = _embedding(model)
    graph = fused(read(keras.Model(model.inputs[0], outputs, name=model.name)))
    return build(graph if dtype == "float32" else halved(graph, dtype))


def _with_softmax(model: Any) -> Any:
    from keraslight.compress._tfmot.quantize import with_softmax  # with it comes tf_keras, which the model has loaded

    return with_softmax(model)


def _sums_to_one(model: keras.Model, spec: Preprocessing | None, images: np.ndarray) -> bool:
    """Whether all answers are distributions: then a softmax is in a layer that nobody can look into."""
    pixels = images.astype(np.float32)
    given = model(pixels if spec is None else ImageNormalization(spec)(pixels), training=False)
    answers = np.asarray(keras.ops.convert_to_numpy(given), np.float32)
    return bool((answers >= 0).all()) and np.allclose(answers.sum(axis=1), 1, atol=0.01)


def _outputs(model: Any) -> dict[str, Any]:
    """The symbolic probabilities and, before the last activation, the logits."""
    probabilities = model.outputs[0]
    tail = []  # what only gives the probabilities another shape
    last, read = maker(probabilities)
    while keeps_values(last):
        tail.append(last)
        last, read = maker(read[0])
    if lone_activation(last) in _PROBABILITY_ACTIVATIONS:
        logits = read[0]
    elif getattr(last, "activation", None) in (keras.activations.softmax, keras.activations.sigmoid):
        linear = type(last).from_config({**last.get_config(), "activation": "linear", "name": f"{last.name}_logits"})
        logits = linear(read[0])
        linear.set_weights(last.get_weights())
        probabilities = keras.layers.Activation(last.activation, name="probabilities")(logits)
        for layer in reversed(tail):
            probabilities = layer(probabilities)
    else:  # such as an average of softmaxes: the logarithm is their logits but for a number an image
        return {"probabilities": probabilities, "logits": keras.ops.log(keras.ops.maximum(probabilities, _TINY))}
    for layer in reversed(tail):
        logits = layer(logits)
    return {"probabilities": probabilities, "logits": logits}


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
