"""The parts of an image that speak for a class: gradient-weighted class activation maps."""

import dataclasses
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keraslight.analysis._gradient import gradient
from keraslight.analysis._maps import feature_maps, find_map, one_image, to_numpy
from keraslight.errors import InvalidArgumentError
from keraslight.graph import Call, Graph, infer, read, run, without_auxiliary
from keraslight.graph.ends import keeps_values, lone_activation
from keraslight.graph.kinds import kind

_PROBABILITIES = ("softmax", "sigmoid")


class GradCam(NamedTuple):
    """A class activation map.

    Attributes:
        heat: (h, w) float32, at least 0, on the layer's own grid: how much each pixel raises the score of the class.
        class_index: Index of the class.
        score: Output of the model for the class.
        layer: Layer whose maps were weighted.
    """

    heat: np.ndarray
    class_index: int
    score: float
    layer: str


def grad_cam(model: keras.Model, image: Any, *, class_index: int | None = None, layer: str | None = None) -> GradCam:
    """Shows where a classifier looks: the sum of a layer's maps, weighted by their effect on the score of a class.

    The weight of a channel is the mean over all pixels of the gradient of the score, before softmax or sigmoid, with
    respect to the channel. The sum over the channels is clipped at 0. If the classifier is global average pooling and
    one dense layer, this is the class activation map of Zhou et al. (https://arxiv.org/abs/1512.04150), clipped at 0
    and divided by the number of pixels.
    Source: Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2.

    Runs on Keras' TensorFlow, JAX and PyTorch backends.

    Args:
        model: A functional or built Sequential classifier of one image, (B, H, W, C) -> (B, classes), channels last,
            with any head. Nested models are opened.
        image: (H, W, C), as the model takes it.
        class_index: 0 to classes - 1. None takes the class with the highest output.
        layer: Name of a layer whose output is a map (B, h, w, c), `inner/conv` inside a nested model. If it is called
            several times, the last call is used. None takes the last map with more than one pixel.

    Raises:
        InvalidArgumentError: The model is not such a classifier, the layer makes no map, the class is out of range or
            the image doesn't fit.
    """
    graph = read(without_auxiliary(model), opaque=True)
    batch = ops.convert_to_tensor(one_image(graph, image))
    found, outputs = feature_maps(graph, batch)
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise InvalidArgumentError(
            "`model` must be a classifier with one output (B, classes). "
            f"Received: outputs of shape {[tuple(output.shape) for output in outputs]}."
        )
    scores = to_numpy(outputs[0])[0]
    class_index = int(scores.argmax()) if class_index is None else class_index
    if not 0 <= class_index < len(scores):
        raise InvalidArgumentError(
            f"`class_index` must be from 0 to {len(scores) - 1}. Received: class_index={class_index}."
        )
    layer = next(reversed(found)) if layer is None else layer
    chosen, maps = find_map(layer, found)
    last = _last_activation(graph)
    linear = None if last is None else _without_activation(last)

    def score(replaced: Any) -> Any:
        def call_layer(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if call is chosen:
                return replaced
            return infer(linear if linear is not None and call is last else call, args, kwargs)

        (output,) = keras.tree.flatten(run(graph, [batch], call_layer))
        return ops.cast(output[0, class_index], "float32")

    weights = gradient(score, maps)[1].mean(axis=(1, 2))  # (1, c)
    heat = np.maximum((to_numpy(maps) * weights[:, None, None]).sum(axis=-1), 0)
    return GradCam(heat[0], class_index, float(scores[class_index]), layer)


def _last_activation(graph: Graph) -> Call | None:
    """Returns the call whose softmax or sigmoid makes the model's output; None without one."""
    makers = graph.makers()
    call = makers.get(keras.tree.flatten(graph.outputs)[0])
    while call is not None:
        layer = call.layer
        own = getattr(getattr(layer, "activation", None), "__name__", None)
        if lone_activation(layer) in _PROBABILITIES or own in _PROBABILITIES:
            return call
        if not (keeps_values(layer) or kind(layer).view):
            return None
        call = makers.get(call.inputs[0])
    return None


def _without_activation(call: Call) -> Call:
    """Returns the call without its softmax or sigmoid. The model's own layer stays as it is."""
    if lone_activation(call.layer) is not None:
        return dataclasses.replace(call, form=lambda *args, **kwargs: next(iter((*args, *kwargs.values()))))
    node = call.node.copy()
    node.change(config={"activation": "linear"})
    node.layer(call.inputs)  # built here: on JAX, not inside the gradient
    return dataclasses.replace(call, node=node)
