"""Which places of an image speak for a class: gradient-weighted class activation maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from keraslight.analysis._evaluate import evaluate, feature_maps, find_map, infer, one_image, to_numpy
from keraslight.analysis._gradient import gradient
from keraslight.analysis._graph import behaves_like, operation_name, trace
from keraslight.errors import InvalidArgumentError

_VIEWS = (layers.Flatten, layers.Reshape, layers.Identity, layers.Dropout)


class GradCam(NamedTuple):
    """A class activation map.

    Attributes:
        heat: (h, w) float32, at least 0, on the layer's own grid: how much each place raises the class's score.
        class_index: The class.
        score: The model's output for it.
        layer: The layer whose maps were weighed.
    """

    heat: np.ndarray
    class_index: int
    score: float
    layer: str


def grad_cam(model: keras.Model, image: Any, *, class_index: int | None = None, layer: str | None = None) -> GradCam:
    """Shows where a classifier looks: the maps of a layer, weighted by what they do to a class's score, summed.

    The weight of a channel is the mean over all places of the gradient of the score, before softmax or sigmoid, with
    respect to it; the sum over the channels is cut off at 0. Where the classifier is global average pooling and one
    dense layer, this is the class activation map of Zhou et al. (https://arxiv.org/abs/1512.04150), cut off at 0 and
    divided by the number of places.
    Source: Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2.

    Runs on Keras' TensorFlow, JAX and PyTorch backends.

    Args:
        model: A functional or built Sequential classifier of one image, (B, H, W, C) -> (B, classes), channels last,
            with any head. Nested models are opened.
        image: (H, W, C), as the model takes it.
        class_index: 0 to classes - 1; None takes the class with the highest output.
        layer: Name of a layer whose output is a map (B, h, w, c), `inner/conv` inside a nested model; if it is called
            several times, its last call counts. None takes the last map with more than one place.

    Raises:
        InvalidArgumentError: the model is no such classifier, the layer makes no map, the class is out of its range or
            the image does not fit.
    """
    batch = ops.convert_to_tensor(one_image(model, image))
    found, outputs = feature_maps(model, batch)
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise InvalidArgumentError(
            "`model` must be a classifier with one output (B, classes). "
            f"Received: outputs of shape {[tuple(t.shape) for t in outputs]}."
        )
    scores = to_numpy(outputs[0])[0]
    if class_index is None:
        class_index = int(scores.argmax())
    if not 0 <= class_index < len(scores):
        raise InvalidArgumentError(
            f"`class_index` must be from 0 to {len(scores) - 1}. Received: class_index={class_index}."
        )
    layer = next(reversed(found)) if layer is None else layer
    chosen, _, maps = find_map(layer, found)
    head = _class_layer(model)

    def score(replaced: Any) -> Any:
        def run(step: int, own: keras.Operation, args: tuple, kwargs: dict) -> Any:
            if step == chosen:
                return replaced
            return _linear(own, args, kwargs) if step == head else infer(step, own, args, kwargs)

        return ops.cast(evaluate(model, [batch], run)[0][0, class_index], "float32")

    weights = gradient(score, maps)[1].mean(axis=(1, 2))  # (1, c)
    heat = np.maximum((to_numpy(maps) * weights[:, None, None]).sum(axis=-1), 0)
    return GradCam(heat[0], class_index, float(scores[class_index]), layer)


def _class_layer(model: keras.Model) -> int | None:
    """The number of the call whose softmax or sigmoid makes the model's output; None without such a call."""
    graph = trace(model)
    calls = [call for call in graph.calls if call.inputs]
    makers = {id(tensor): step for step, call in enumerate(calls) for tensor in call.outputs}
    tensor = graph.outputs[0]
    while (step := makers.get(id(tensor))) is not None:
        own = calls[step].layer
        if behaves_like(own, (layers.Softmax,)) or operation_name(own) in ("ops.Softmax", "ops.Sigmoid"):
            return step
        if _activation(own) in ("softmax", "sigmoid"):
            return step
        cast = behaves_like(own, (layers.Activation,)) and _activation(own) == "linear"  # of mixed precision
        if not (cast or behaves_like(own, _VIEWS)):
            return None
        tensor = calls[step].inputs[0]
    return None


def _activation(layer: keras.Operation) -> str | None:
    return getattr(getattr(layer, "activation", None), "__name__", None)


def _linear(layer: keras.Layer, args: tuple, kwargs: dict) -> Any:
    """The layer's output before its softmax or sigmoid."""
    inputs = args[0] if args else next(iter(kwargs.values()))
    if not isinstance(layer, layers.Layer) or isinstance(layer, (layers.Softmax, layers.Activation)):
        return inputs
    # A twin without the activation: the caller's own layer must stay as it is.
    twin = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    twin.build(inputs.shape)
    twin.set_weights(layer.get_weights())
    return infer(0, twin, args, kwargs)
