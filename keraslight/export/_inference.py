"""Rewrites of a trained classifier into what is served: raw pixels in, named outputs, nothing left of the training."""

import dataclasses
import functools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keraslight._tasks import Head, probabilities as probabilities_of
from keraslight.errors import InvalidArgumentError
from keraslight.export._frozen import INPUT_NAME, OUTPUT_NAME, VALUES_NAME
from keraslight.graph import Call, Graph, Node, Tensor
from keraslight.graph.ends import keeps_values, lone_activation, maker
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.rewrite import float_inputs, fused, reparameterized

log = logging.getLogger(__name__)

DTYPES = ("float32", "float16", "bfloat16")
_PROBABILITY_ACTIVATIONS = ("softmax", "sigmoid")
_TINY = 1e-30  # a float32 probability that is still a normal number; its logarithm is -69
_EPSILON = 2.0**-24  # 1 minus this is the largest float32 below 1
_LOGIT = (  # z = -log(1 / p - 1), at least about -69 and at most 16.6
    lambda p: keras.ops.maximum(p, _TINY),
    keras.ops.reciprocal,  # whose last bit may be wrong
    lambda x: keras.ops.subtract(x, 1.0),
    lambda x: keras.ops.maximum(x, _EPSILON),
    keras.ops.log,
    keras.ops.negative,
)
_DISTRIBUTION = Head("softmax", 0, None)  # probabilities


def raw_pixels(shape: tuple[int, int, int]) -> Preprocessing:
    """The preprocessing of a model that carries none; logs a warning."""
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


Predict = Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]


def predictor(model: Any, spec: Preprocessing | None, head: Head, *, pair: bool = False) -> Predict:
    """What the servable of a model must return for raw pixels (B, H, W, C), with the normalization of `spec` in front.

    The model is called as it is: `predict` would compile it. `pair`: see `inference_graph`.
    """
    normalize = None if spec is None else ImageNormalization(spec)

    def predict(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        pixels = images.astype(np.float32)
        outputs = model(pixels if normalize is None else normalize(pixels), training=False)
        values = probabilities_of(head, keras.ops.convert_to_numpy(outputs))
        return np.concatenate([1 - values, values], axis=1) if pair else values

    return predict


def normalized(graph: Graph, spec: Preprocessing | None) -> Graph:
    """A copy of a graph that takes one input, `images`, float32 with an open batch, behind the normalization `spec`."""
    copy = graph.copy()
    (tensor,) = keras.tree.flatten(copy.inputs)
    copy.inputs = images = tensor if spec is None else copy.new_tensor((None, *tensor.shape[1:]))
    copy.input_calls = []  # its name is free again
    layer = keras.layers.InputLayer(shape=tensor.shape[1:], name=copy.unique_name(INPUT_NAME))
    copy.input_calls = [Call(Node(layer, layer.name), layer.name, (), {}, [images])]
    if spec is not None:
        copy.append(ImageNormalization(spec), images)
        copy.calls[-1].outputs = [tensor]
        copy.calls.insert(0, copy.calls.pop())
    return copy


def inference_graph(graph: Graph, head: Head = _DISTRIBUTION, *, pair: bool = False, embed: bool = False) -> Graph:
    """What the signatures compute, from a graph of raw pixels -> (B, K).

    Batch norms are folded and parallel branches fused. The result is a graph float32 (B, H, W, C) ->
    {"probabilities": (B, K), "logits": (B, K)[, "embedding": (B, D)]}, or {"outputs": (B, K)[, ...]} of a regression.

    Args:
        graph: The model's graph.
        head: What its outputs are.
        pair: Whether the one score of a `binary` model becomes a row for two classes, of which it is the second.
        embed: Whether to return the penultimate features.
    """
    copy = reparameterized(float_inputs(graph)).copy()
    embedding = {"embedding": _embedding(copy)} if embed else {}  # before fusing, which joins linear layers
    copy.outputs = {**_named(copy, head, pair), **embedding}
    copy.drop_unused()
    return fused(copy)


def _named(graph: Graph, head: Head, pair: bool) -> dict[str, Tensor]:
    """The outputs by name; appends what is missing."""
    (output,) = keras.tree.flatten(graph.outputs)
    if not head.ranks:
        return {VALUES_NAME: output}
    if head.activation is None:
        outputs = _with_logits(graph, head)
    else:
        layer = keras.layers.Activation(head.activation, name=OUTPUT_NAME)
        outputs = {OUTPUT_NAME: graph.append(layer, output), "logits": output}
    if pair:  # softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)]
        logits = graph.append(lambda x: keras.ops.pad(x, [[0, 0], [1, 0]]), outputs["logits"])
        outputs = {OUTPUT_NAME: graph.append(keras.layers.Softmax(name="pair"), logits), "logits": logits}
    return outputs


def _with_logits(graph: Graph, head: Head) -> dict[str, Tensor]:
    """Appends the logits, before the last activation, to a graph of probabilities, and returns both."""
    makers = graph.makers()
    (probabilities,) = keras.tree.flatten(graph.outputs)
    tail: list[Call] = []  # what only gives the probabilities another shape, the last call first
    last = makers.get(probabilities)
    while last is not None and keeps_values(last.layer):
        tail.append(last)
        last = makers.get(last.inputs[0])
    layer: Any = None if last is None else last.layer
    if last and lone_activation(layer) in _PROBABILITY_ACTIVATIONS:
        logits = last.inputs[0]
    elif last and getattr(layer, "activation", None) in (keras.activations.softmax, keras.activations.sigmoid):
        node = last.node.copy()
        node.name = graph.unique_name(f"{last.name}_logits")
        node.change(config={"activation": "linear", "name": node.name})
        logits = _call_again(graph, [dataclasses.replace(last, node=node)], last.inputs[0])
        probabilities = graph.append(keras.layers.Activation(layer.activation, name=OUTPUT_NAME), logits)
        probabilities = _call_again(graph, tail, probabilities)
    elif head.task == "softmax":  # such as an average: the logarithm is the logits except for one number per image
        floor = graph.append(lambda x: keras.ops.maximum(x, _TINY), probabilities)
        return {OUTPUT_NAME: probabilities, "logits": graph.append(keras.ops.log, floor)}
    else:  # p = sigmoid(z), so z = -log(1 / p - 1)
        odds: Any = probabilities
        for step in _LOGIT:
            odds = graph.append(step, odds)
        return {OUTPUT_NAME: probabilities, "logits": odds}
    return {OUTPUT_NAME: probabilities, "logits": _call_again(graph, tail, logits)}


def _call_again(graph: Graph, calls: Sequence[Call], tensor: Tensor) -> Tensor:
    """Appends calls of one input each, of which the last one comes first, on another tensor."""
    for call in reversed(calls):

        def moved(leaf: Any, old: Tensor = call.inputs[0], new: Tensor = tensor) -> Any:
            return new if leaf == old else leaf

        args, kwargs = keras.tree.map_structure(moved, (call.args, call.kwargs))
        tensor = graph.new_tensor(call.outputs[0].shape, call.outputs[0].dtype)
        graph.calls.append(dataclasses.replace(call, args=args, kwargs=kwargs, outputs=[tensor]))
    return tensor


def _embedding(graph: Graph) -> Tensor:
    """What the last layer with a kernel reads, as (B, D): maps are averaged."""
    for call in reversed(graph.calls):
        if issubclass(call.node.kind, keras.layers.Dense | keras.layers.Conv2D):
            features = call.inputs[0]
            if len(features.shape) == 4:
                features = graph.append(keras.layers.GlobalAveragePooling2D(name="embedding"), features)
            return features
    raise InvalidArgumentError(
        "`embed` needs a classifier layer (Dense or Conv2D), whose inputs are the features. "
        f"Received: {graph.name!r} without one."
    )


def quantized_named(model: Any, head: Head, *, pair: bool = False) -> Any:
    """A quantization-aware model with the outputs of `inference_graph`; it shares all layers."""
    outputs = model.outputs[0]
    if not head.ranks:
        return type(model)(model.inputs, {VALUES_NAME: outputs}, name=model.name)
    if head.activation is not None:
        tf_keras = sys.modules["tf_keras"]  # loaded with the model; Keras 3 can't extend it
        activated = tf_keras.layers.Activation(head.activation, name=OUTPUT_NAME)(outputs)
        named = {OUTPUT_NAME: activated, "logits": outputs}
    else:
        named = {OUTPUT_NAME: outputs, "logits": _quantized_logits(outputs, head)}
    if pair:
        logits = tf.pad(named["logits"], [[0, 0], [1, 0]])
        named = {OUTPUT_NAME: tf.nn.softmax(logits), "logits": logits}
    return type(model)(model.inputs, named, name=model.name)


def _quantized_logits(probabilities: Any, head: Head) -> Any:
    """The logits of a quantization-aware model of probabilities."""
    tail = []  # what only gives the probabilities another shape
    last, inputs = maker(probabilities)
    while keeps_values(last):
        tail.append(last)
        last, inputs = maker(inputs[0])
    if lone_activation(last) in _PROBABILITY_ACTIVATIONS:
        return functools.reduce(lambda tensor, layer: layer(tensor), reversed(tail), inputs[0])
    if head.task == "softmax":
        return tf.math.log(tf.maximum(probabilities, _TINY))
    return -tf.math.log(tf.maximum(1 / tf.maximum(probabilities, _TINY) - 1, _EPSILON))
