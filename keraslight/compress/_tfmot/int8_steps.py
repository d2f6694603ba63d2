"""The steps of the int8-friendly graph: what each tf_keras layer becomes in the int8 file."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tf_keras

from keraslight.compress._tfmot import twin_layers
from keraslight.graph.kinds import base_kind, kind

_KERNELS = (
    *(tf_keras.layers.Conv2D, tf_keras.layers.DepthwiseConv2D, tf_keras.layers.Dense),
    tf_keras.layers.Conv2DTranspose,
)
_AFFINE = (tf_keras.layers.BatchNormalization, twin_layers.ChannelScale, twin_layers.ScaleOf)
# Layers whose int8 form keeps its input's scale, or has a fixed one that the converter knows (softmax, sigmoid, tanh).
# A quantizer of its own behind an average pooling makes the converter fail ("violate the same scale constraint").
# Bare operations and layers that run as Keras has them say so in `graph.kinds`.
_SILENT = (
    *(tf_keras.layers.Reshape, tf_keras.layers.Permute, tf_keras.layers.Flatten, tf_keras.layers.RepeatVector),
    *(tf_keras.layers.ZeroPadding2D, tf_keras.layers.Cropping2D, tf_keras.layers.UpSampling2D),
    *(tf_keras.layers.MaxPooling2D, tf_keras.layers.AveragePooling2D, tf_keras.layers.GlobalMaxPooling2D),
    *(tf_keras.layers.Dropout, tf_keras.layers.SpatialDropout2D, tf_keras.layers.Softmax, twin_layers.HardSigmoid),
    *(tf_keras.layers.GaussianNoise, tf_keras.layers.GaussianDropout, tf_keras.layers.Identity),
    twin_layers.Channels,
)

# Of two maps, with an activation that the file's operator takes in.
_SUMS = ("Add", "Subtract", "Multiply")

_INT8_ACTIVATIONS = (
    "linear",
    "relu",
    "softmax",
    "sigmoid",
    "tanh",
    "gelu",
    "swish",
    "relu6",
    "_hard_silu",
    "exponential",
)
_NORMALIZATIONS = (keras.layers.LayerNormalization, keras.layers.GroupNormalization, keras.layers.RMSNormalization)
_NO_INT8_FORM = (tf_keras.layers.ELU, tf_keras.layers.Dot, tf_keras.layers.Normalization, tf_keras.layers.Average)


@dataclasses.dataclass
class Step:
    """One call of a tf_keras layer in the int8-friendly graph.

    Attributes:
        layer: The tf_keras layer.
        kind: `"conv"` (has a kernel), `"affine"` (a factor and an offset per channel, folds into the convolution
            before it), `"sum"` (or product, of two maps), `"relu"` (fuses into what is before it), `"silent"` (gets no
            quantizer), or `"other"`.
        name: The Keras 3 layer that it comes from.
        args, kwargs: Structures with tf_keras tensors.
        output: The tensor that it makes, or a structure of several.
    """

    layer: tf_keras.layers.Layer
    kind: str
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def outputs(self) -> list[Any]:
        """The tensors that it makes."""
        return keras.tree.flatten(self.output)

    def why_float(self) -> str | None:
        """Why the file computes it in float although its ends are quantized; None if it is int8."""
        layer = self.layer
        runs_norm = isinstance(layer, twin_layers.KerasLayer) and isinstance(layer.source, _NORMALIZATIONS)
        if runs_norm or isinstance(layer, twin_layers.Norm):
            return "its statistics (mean, square, root) need more than 8 bits"
        if isinstance(layer, twin_layers.KerasLayer):
            # The kernels of the C4 convolutions are rounded in the file, a range per channel, and not in training.
            int8 = twin_layers.has_int8_form(layer.source)
            return None if int8 else "it runs as Keras has it, with no quantizers inside"
        if isinstance(layer, twin_layers.KerasOperation):
            operation = type(layer.source).__name__
            int8 = twin_layers.has_int8_form(layer.source)
            return None if int8 else f"the operation {operation} has no int8 form here"
        if isinstance(layer, tf_keras.layers.Activation):
            name = getattr(layer.activation, "__name__", str(layer.activation))
            return None if name in _INT8_ACTIVATIONS else f"the activation {name} has no int8 form"
        if isinstance(layer, tf_keras.layers.Rescaling) and np.any(layer.offset):
            return "its product and its sum have no quantizer between them"  # on maps it is a convolution, in int8
        if isinstance(layer, tf_keras.layers.ReLU) and (layer.threshold or layer.max_value not in (None, 6.0)):
            return "of ReLUs with an upper limit the converter has only that with 6 in int8"
        if isinstance(layer, _NO_INT8_FORM):
            return f"the converter has no int8 form of {type(layer).__name__}"
        if type(layer).__module__.partition(".")[0] not in ("tf_keras", "keraslight"):
            return "it is a registered twin, with no quantizers inside"
        return None


def kind_of(layer: tf_keras.layers.Layer) -> str:
    """The `Step.kind` of a tf_keras layer."""
    if isinstance(layer, _AFFINE):
        return "affine"
    if isinstance(layer, tf_keras.layers.Add | tf_keras.layers.Subtract | tf_keras.layers.Multiply):
        return "sum"
    if isinstance(layer, twin_layers.KerasOperation):
        name = type(layer.source).__name__
        return "silent" if kind(layer.source).int8 == "moves" else "sum" if name in _SUMS else "other"
    if isinstance(layer, twin_layers.KerasLayer):
        return "silent" if base_kind(type(layer.source)).int8 == "moves" else "other"
    if isinstance(layer, tf_keras.layers.ReLU):
        fuses = not layer.negative_slope and not layer.threshold and layer.max_value in (None, 6.0)
        return "relu" if fuses else "other"
    if isinstance(layer, _SILENT):
        return "silent"
    if isinstance(layer, tf_keras.layers.Activation):
        name = getattr(layer.activation, "__name__", "")
        return "silent" if name in ("softmax", "sigmoid", "tanh", "linear") else "other"
    if isinstance(layer, _KERNELS):
        return "conv"
    return "other"
