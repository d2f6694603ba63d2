"""A model's calls with their layers as class, config and weights, so that they can be rewritten."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from keraslight.compress import _affine, _graph
from keraslight.layers import DropPath, GroupedConv2D
from keraslight.layers._augmentation import AUGMENTATIONS
from keraslight.preprocessing import LAYER_NAME

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, GroupedConv2D, keras.layers.Conv3D)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
KERNELS = (*CONVOLUTIONS, *DEPTHWISE, *SEPARABLE, *TRANSPOSED, keras.layers.Dense)
TRAINING_ONLY = (
    *(keras.layers.Dropout, keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, DropPath),
    *(keras.layers.GaussianNoise, keras.layers.GaussianDropout, keras.layers.AlphaDropout, keras.layers.Identity),
    *AUGMENTATIONS,
)
_NOT_ELEMENTWISE = ("softmax", "log_softmax", "glu", "linear")
"""Activations that stay layers: those over a whole axis, so that logits can still be read."""


@dataclasses.dataclass(eq=False)
class Step:
    """A call that can be rewritten: its layer as class, config and weights.

    Attributes:
        alone: Whether the layer is called once.
    """

    call: _graph.Call
    config: dict[str, Any]
    weights: list[np.ndarray]
    alone: bool

    @property
    def kind(self) -> type:
        return type(self.call.layer)

    @property
    def has_kernel(self) -> bool:
        """Whether it is one of Keras' layers with a kernel, free to be changed."""
        kernels = 2 if self.kind in SEPARABLE else 1
        return (
            self.kind in KERNELS
            and self.alone
            and self.config.get("data_format", "channels_last") == "channels_last"
            and len(self.weights) == kernels + self.config["use_bias"]  # a low-rank or quantized one has more
            and len(self.call.inputs) == 1
        )

    @property
    def linear(self) -> bool:
        return self.config["activation"] == "linear"

    @property
    def pointwise(self) -> bool:
        """Whether each output pixel comes from one input pixel and all its channels."""
        return self.kind is keras.layers.Dense or (
            self.kind in CONVOLUTIONS
            and {*self.config["kernel_size"], *self.config["strides"], self.config["groups"]} == {1}
        )

    @property
    def unpadded(self) -> bool:
        return self.kind is keras.layers.Dense or (
            self.kind in (*CONVOLUTIONS, *DEPTHWISE)
            and (self.config["padding"] == "valid" or set(self.config["kernel_size"]) == {1})
        )

    def set_kernel(self, kernel: np.ndarray, bias: np.ndarray) -> None:
        """Replaces the last kernel and the bias."""
        kept = self.weights[: len(self.weights) - 1 - self.config["use_bias"]]
        self.config["use_bias"] = True
        self.weights = [*kept, kernel, bias]

    @property
    def kernel(self) -> np.ndarray:
        """The kernel that makes the output channels, in float64."""
        return np.asarray(self.weights[-2 if self.config["use_bias"] else -1], np.float64)

    @property
    def bias(self) -> np.ndarray | float:
        return np.asarray(self.weights[-1], np.float64) if self.config["use_bias"] else 0.0


class Rewriter:
    def __init__(self, graph: _graph.Graph):
        self.graph = graph
        uses: dict[int, int] = {}
        for call in graph.calls:
            uses[id(call.layer)] = uses.get(id(call.layer), 0) + 1
        self.steps = [
            Step(
                call,
                {**call.layer.get_config(), "name": call.name},
                call.layer.get_weights() if getattr(call.layer, "weights", ()) else [],
                uses[id(call.layer)] == 1,
            )
            for call in graph.calls
        ]
        steps = {id(step.call): step for step in self.steps}
        self.maker = {tensor: step for step in self.steps for tensor in step.call.outputs}
        self.readers = {
            tensor: [None if call is None else steps[id(call)] for call in calls]
            for tensor, calls in graph.consumers().items()
        }

    def remove(self, step: Step) -> None:
        """Takes a call of one input and one output away: who read its output now reads its input."""
        (before,), after = step.call.inputs, step.call.outputs[0]

        def moved(leaf):
            return before if leaf == after else leaf

        readers = self.readers.pop(after, [])
        for reader in readers:
            if reader is None:
                self.graph.outputs = keras.tree.map_structure(moved, self.graph.outputs)
            else:
                reader.call.args = keras.tree.map_structure(moved, reader.call.args)
                reader.call.kwargs = keras.tree.map_structure(moved, reader.call.kwargs)
        self.readers[before] = [reader for reader in self.readers[before] if reader is not step] + readers
        self.steps.remove(step)

    def before(self, step: Step) -> Step | None:
        """The layer with a kernel that feeds only this call and is linear."""
        if len(step.call.inputs) != 1 or step.call.kwargs.get("training"):
            return None
        tensor = step.call.inputs[0]
        maker = self.maker.get(tensor)
        found = maker is not None and self.readers[tensor] == [step] and maker.has_kernel and maker.linear
        return maker if found else None

    def drop_training_only(self) -> None:
        inputs = keras.tree.flatten(self.graph.inputs)
        floats = all("float" in layer.dtype for layer in self.graph.input_layers)
        for step in list(self.steps):
            idle = step.kind in TRAINING_ONLY or (
                step.kind is keras.layers.Activation and step.config["activation"] == "linear"
            )
            if not idle or step.call.kwargs.get("training") or len(step.call.inputs) != 1:
                continue
            if step.call.inputs[0] in inputs and None in self.readers[step.call.outputs[0]]:
                continue  # a model whose output is its input
            if step.kind in AUGMENTATIONS and not floats:
                continue  # it also makes floats of whole numbers
            self.remove(step)

    def fold_backward(self) -> None:
        for step in list(self.steps):
            affine, maker = _affine.read(step.call.layer), self.before(step)
            if affine is None or maker is None:
                continue
            self.put_out(maker, *affine)
            self.remove(step)

    def put_out(self, step: Step, scale, shift) -> None:
        """Makes a linear layer give `scale * y + shift` where it gave `y`."""
        kernel = step.kernel
        if step.kind in DEPTHWISE:
            # (..., channels, multiplier), whose output channel is channel * multiplier + m.
            channels = np.broadcast_to(scale, np.prod(kernel.shape[-2:])).reshape(kernel.shape[-2:])
        elif step.kind in TRANSPOSED:  # (..., out, in)
            channels = np.broadcast_to(scale, kernel.shape[-2])[:, None]
        else:
            channels = scale
        step.set_kernel(kernel * channels, self._bias_like(step, step.bias * scale + shift))

    @staticmethod
    def _bias_like(step: Step, bias) -> np.ndarray:
        shape = step.kernel.shape
        if step.kind in DEPTHWISE:
            channels = int(np.prod(shape[-2:]))
        else:
            channels = shape[-2] if step.kind in TRANSPOSED else shape[-1]
        return np.broadcast_to(np.asarray(bias, np.float64), channels)

    def fold_forward(self) -> None:
        for step in list(self.steps):
            affine = _affine.read(step.call.layer)
            if affine is None or len(step.call.inputs) != 1 or step.call.kwargs.get("training"):
                continue
            if step.call.name == LAYER_NAME:  # exporting looks for it, to know that a model takes raw pixels
                continue
            scale, shift = affine
            readers = self.readers[step.call.outputs[0]]
            if not readers or not all(
                reader is not None
                and reader.has_kernel
                and reader.kind in (*CONVOLUTIONS, *DEPTHWISE, keras.layers.Dense)
                and (reader.unpadded or not np.any(shift))
                for reader in readers
            ):
                continue
            for reader in readers:
                self.take_in(reader, scale, shift)
            self.remove(step)

    def take_in(self, step: Step, scale, shift) -> None:
        """Makes a layer read `x` where it read `scale * x + shift`."""
        kernel = step.kernel
        if step.kind in DEPTHWISE:
            inputs = np.arange(kernel.shape[-2])[:, None]
        else:
            inside, outputs = kernel.shape[-2:]
            groups = step.config.get("groups", 1)
            # Output channel o reads the channels of its group.
            inputs = np.arange(inside)[:, None] + np.arange(outputs) // (outputs // groups) * inside
        count = int(inputs.max()) + 1
        scale, shift = (np.broadcast_to(np.asarray(value, np.float64), count)[inputs] for value in (scale, shift))
        added = (kernel * shift).sum(axis=tuple(range(kernel.ndim - 2)))
        added = added.reshape(-1) if step.kind in DEPTHWISE else added.sum(axis=0)
        bias = self._bias_like(step, step.bias + added)
        step.set_kernel(kernel * scale, bias)

    def merge_linear(self) -> None:
        for step in list(self.steps):
            first = self.before(step)
            if first is None or not step.has_kernel or not step.pointwise:
                continue
            dense = step.kind is keras.layers.Dense
            if dense != (first.kind is keras.layers.Dense) or not (dense or first.kind is step.kind):
                continue
            if not dense and first.config["groups"] > 1:
                continue
            second = step.kernel.reshape(step.kernel.shape[-2:])
            kernel = first.kernel @ second
            if kernel.size > first.kernel.size + second.size:
                continue  # such as MobileNetV2's narrow projection before a wide expansion
            bias = np.broadcast_to(first.bias, second.shape[0]) @ second + step.bias
            first.set_kernel(kernel, np.broadcast_to(bias, second.shape[1]))
            size = "units" if dense else "filters"
            first.config[size] = step.config[size]
            first.config["activation"] = step.config["activation"]
            self.remove(step)

    def join_activations(self) -> None:
        """Makes a batch norm that only an activation reads a 1x1 depthwise convolution, which takes the activation in.

        Both go over the map once then, for the time of the activation alone.
        """
        for step in self.steps:
            norm, readers = step.call.layer, self.readers.get(step.call.outputs[0], [])
            alone = step.alone and not step.call.kwargs.get("training") and len(readers) == 1
            if not alone or readers[0] is None or _activation(readers[0]) is None:
                continue
            affine = _affine.read(norm) if isinstance(norm, keras.layers.BatchNormalization) else None
            if affine is None or _affine.rank(norm) != 4:
                continue
            scale, shift = affine
            step.call.layer = keras.layers.DepthwiseConv2D(
                1, data_format="channels_last", dtype=norm.dtype_policy, name=step.call.name
            )
            step.config, step.weights = step.call.layer.get_config(), [scale.reshape(1, 1, -1, 1), shift]

    def fold_activations(self) -> None:
        for step in list(self.steps):
            activation, maker = _activation(step), self.before(step)
            if activation is not None and maker is not None:
                maker.config["activation"] = activation
                self.remove(step)

    def model(self, name: str) -> keras.Model:
        """Builds what is left."""
        self.graph.calls = [step.call for step in self.steps]
        by_call = {id(step.call): step for step in self.steps}
        layers: dict[str, Any] = {}
        weights: dict[str, list[np.ndarray]] = {}

        def call_layer(call, args, kwargs):
            step = by_call[id(call)]
            if call.name not in layers:
                layers[call.name] = step.kind.from_config(step.config)
                weights[call.name] = step.weights
            return layers[call.name](*args, **kwargs)

        rebuilt = self.graph.model(name, call_layer)
        for layer_name, values in weights.items():
            if values:
                _graph.fill_weights(layers[layer_name], layer_name, values)
        return rebuilt


def _activation(step: Step) -> str | None:
    """The name of the activation that a layer is, if layers with a kernel can take it in."""
    if step.kind is keras.layers.ReLU:
        if step.config["negative_slope"] or step.config["threshold"]:
            return None
        return {None: "relu", 6.0: "relu6"}.get(step.config["max_value"])
    if step.kind is keras.layers.Activation:
        name = step.config["activation"]
        return name if isinstance(name, str) and name not in _NOT_ELEMENTWISE else None
    return None
