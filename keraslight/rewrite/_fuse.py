"""Makes an inference graph smaller without changing what it computes."""

import keras
import numpy as np

from keraslight.graph import Graph
from keraslight.graph.kinds import Affine, activation_of, affine, exact_kind, rank
from keraslight.preprocessing import LAYER_NAME
from keraslight.rewrite._reparameterize import reparameterized
from keraslight.rewrite.steps import Step, Steps

_NOT_ELEMENTWISE = ("softmax", "log_softmax", "glu", "linear")
"""Activations that stay layers: those over a whole axis, so that logits can still be read."""


def fused(graph: Graph) -> Graph:
    """Folds what can be folded; see `keraslight.compress.fuse`.

    Raises:
        CompressionError: A layer has no configuration.
    """
    steps = Steps(reparameterized(graph))
    _drop_training_only(steps)
    _fold_backward(steps)
    _fold_forward(steps)
    _merge(steps)
    _join_activations(steps)
    _fold_activations(steps)
    return steps.graph


def _drop_training_only(steps: Steps) -> None:
    inputs = keras.tree.flatten(steps.graph.inputs)
    floats = all("float" in tensor.dtype for tensor in inputs)
    for step in steps:
        row = exact_kind(step.node.kind)
        idle = row.training_only or _activation(step) == "linear"
        if not idle or step.call.in_training or len(step.call.inputs) != 1:
            continue
        if step.call.inputs[0] in inputs and None in steps.readers(step):
            continue  # a model whose output is its input
        if not floats and (row.augmentation or "float" not in step.call.inputs[0].dtype):
            continue  # it also makes floats of whole numbers
        steps.remove(step)


def _fold_backward(steps: Steps) -> None:
    for step in steps:
        folded, maker = _affine(step), steps.before(step)
        if folded is not None and maker is not None:
            maker.scale_outputs(*folded)
            steps.absorb(maker, step)


def _fold_forward(steps: Steps) -> None:
    for step in steps:
        folded = _affine(step)
        if folded is None or len(step.call.inputs) != 1 or step.call.in_training:
            continue
        if "float" not in step.call.inputs[0].dtype:
            continue  # it makes floats of whole numbers, too
        if step.call.name == LAYER_NAME:  # exporting looks for it, to know that a model takes raw pixels
            continue
        readers = steps.readers(step)
        if readers and all(
            reader is not None
            and reader.has_kernel
            and reader.kernel_kind in ("convolution", "depthwise", "dense")
            and (reader.unpadded or not np.any(folded[1]))
            for reader in readers
        ):
            for reader in readers:
                if reader is not None:
                    reader.scale_inputs(*folded)
            steps.remove(step)


def _merge(steps: Steps) -> None:
    """Merges two linear layers in a row."""
    for step in steps:
        first = steps.before(step)
        if first is None or not step.has_kernel or not step.pointwise:
            continue
        dense = step.kernel_kind == "dense"
        if dense != (first.kernel_kind == "dense") or not (dense or first.node.kind is step.node.kind):
            continue
        if not dense and first.node.config["groups"] > 1:
            continue
        second = step.kernel.reshape(step.kernel.shape[-2], step.kernel.shape[-1])
        kernel = first.kernel @ second
        if kernel.size > first.kernel.size + second.size:
            continue  # such as MobileNetV2's narrow projection before a wide expansion
        first.set_kernel(kernel, np.broadcast_to(first.bias, second.shape[0]) @ second + step.bias)
        config = step.node.config
        size = "units" if dense else "filters"
        trainable = first.trainable and step.trainable  # a kernel that holds a frozen one is frozen
        first.node.change(config={size: config[size], "activation": config["activation"], "trainable": trainable})
        steps.absorb(first, step)


def _join_activations(steps: Steps) -> None:
    """Makes a batch norm that only an activation reads a 1x1 depthwise convolution, which takes the activation in.

    Both go over the map once then, for the time of the activation alone.
    """
    for step in steps:
        readers = steps.readers(step)
        if not exact_kind(step.node.kind).batch_norm or not step.alone or step.call.in_training or len(readers) != 1:
            continue
        norm = step.call.layer
        folded = affine(norm)
        if folded is None or rank(norm) != 4 or readers[0] is None or _foldable(readers[0]) is None:
            continue
        if "float" not in step.call.inputs[0].dtype:
            continue
        scale, shift = folded
        convolution = keras.layers.DepthwiseConv2D(
            1, data_format="channels_last", dtype=norm.dtype_policy, name=step.call.name, trainable=norm.trainable
        )
        step.node.change(
            kind=keras.layers.DepthwiseConv2D,
            config=convolution.get_config(),
            weights=[scale.reshape(1, 1, -1, 1), shift],
        )
        step.kernel_kind = "depthwise"


def _fold_activations(steps: Steps) -> None:
    for step in steps:
        activation, maker = _foldable(step), steps.before(step)
        if activation is not None and maker is not None:
            maker.node.change(config={"activation": activation})
            steps.absorb(maker, step)


def _affine(step: Step) -> Affine | None:
    return affine(step.call.layer) if exact_kind(step.node.kind).affine else None  # only these need the layer


def _activation(step: Step) -> str | None:
    return None if step.kernel_kind else activation_of(step.call.layer)


def _foldable(step: Step) -> str | None:
    """The activation that a layer is, if layers with a kernel can take it in."""
    name = _activation(step)
    return None if name in _NOT_ELEMENTWISE else name
