"""The tf_keras layer that does what a Keras 3 layer does."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from keraslight import layers as own
from keraslight.compress._registered import TWINS
from keraslight.compress._tfmot import twin_layers
from keraslight.errors import UnmappableLayerError

# Classes that mean the same in both libraries, once the arguments that only one of them knows are left out. A class
# that is not listed runs as it is, even if tf_keras has one of that name: some differ (hard sigmoid) without any error.
_SAME = (
    *("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense"),
    *("BatchNormalization", "LayerNormalization", "Rescaling", "ReLU", "ELU", "PReLU", "Softmax", "Identity"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D"),
    *("ZeroPadding2D", "Cropping2D", "UpSampling2D", "Flatten", "Reshape", "Permute", "RepeatVector"),
    *("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
)

# Own layers without a kernel that TFLite could keep in int8: they run as they are.
_AS_IS = (
    *(own.LocalResponseNorm, own.CodeDistance, own.ChannelStatistics, own.CoordinatePooling, own.CoordinateSplit),
    *(own.MaxPoolWithIndices2D, own.MaxUnpool2D, own.C4GroupPooling),
    *(own.ConditionalConv2D, own.DeformableConv2D, own.C4LiftingConv2D, own.C4GroupConv2D),
)

# Layer scales of other libraries: (module, class). The factors stand on the last axis.
_LAYER_SCALES = {("keras.src.applications.convnext", "LayerScale"), ("kimm._src.layers.layer_scale", "LayerScale")}
# `inputs[0] + scale * inputs[1]`, with one number for the scale: (module, class).
_SCALED_ADDS = {("keras.src.applications.inception_resnet_v2", "CustomScaleLayer")}

_NOT_CARRIED = ("dtype", "seed", "autocast", "name")  # initializers, regularizers and constraints go by their endings


def _hard_sigmoid(x):
    return tf.nn.relu6(x + 3.0) * (1 / 6)


def _hard_silu(x):
    return x * tf.nn.relu6(x + 3.0) * (1 / 6)


# Keras 3 activation -> what tf_keras' `activation=` takes; Keras' other functions run as they are.
_ACTIVATIONS = {
    **{name: name for name in ("linear", "relu", "softmax", "sigmoid", "tanh", "gelu", "elu", "selu", "softplus")},
    **{name: name for name in ("softsign", "exponential")},
    "relu6": tf.nn.relu6,
    "silu": "swish",
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
}

# Bare operations that are activations.
_ACTIVATION_OPERATIONS = {
    **{"Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh", "Silu": "silu"},
    **{"HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu"},
}


def activation_name(layer) -> str:
    """The Keras 3 name of a layer's activation.

    Raises:
        UnmappableLayerError: it is a function of the user's own.
    """
    name = keras.activations.serialize(layer.activation)
    if isinstance(name, str):
        try:
            own_function = keras.activations.get(name) is not layer.activation
        except ValueError:  # no activation of that name
            own_function = True
        if not own_function:
            return name
    raise UnmappableLayerError(
        "An activation must be one of keras.activations to have a tf_keras twin. Received: "
        f"{name!r} in layer {layer.name!r}. Write it as a layer of its own and give that a twin with "
        "`keraslight.compress.register_twin`."
    )


def _activation(kind: str):
    return _ACTIVATIONS[kind] if kind in _ACTIVATIONS else keras.activations.get(kind)


def activation_twin(kind: str, name: str, quantized: bool = False) -> tf_keras.layers.Layer:
    """A layer that applies the Keras 3 activation `kind`."""
    if kind in ("relu", "relu6"):
        return tf_keras.layers.ReLU(6.0 if kind == "relu6" else None, name=name)
    if kind == "hard_sigmoid":
        return twin_layers.HardSigmoid(quantized, name=name)
    if kind == "hard_silu" and quantized:
        return twin_layers.HardSilu(name=name)
    return tf_keras.layers.Activation(_activation(kind), name=name)


def activation_of(layer) -> str | None:
    """The activation that a Keras 3 `Activation` layer or bare operation applies, or None if it is something else."""
    if type(layer) is keras.layers.Activation:
        return activation_name(layer)
    return _ACTIVATION_OPERATIONS.get(type(layer).__name__) if is_operation(layer) else None


def is_scaled_add(layer) -> bool:
    """Whether a layer adds a scaled second input to its first, as those of InceptionResNetV2 do."""
    return (type(layer).__module__, type(layer).__name__) in _SCALED_ADDS


def is_operation(layer) -> bool:
    """Whether a call in a graph is a bare operation, such as `x + 3`."""
    return not isinstance(layer, keras.layers.Layer)


def apply(layer, name: str, made: dict, args: tuple, kwargs: dict, around=lambda twin: twin):
    """Calls the twin of a Keras 3 layer or bare operation, and makes it unless `made` has it.

    Args:
        layer: The Keras 3 layer or operation.
        name: Its unique name; an operation's second call gets a number behind it.
        made: Name -> twin; the new one is added.
        args, kwargs: As of the Keras 3 call, with tf_keras tensors.
        around: As in `transcribe.to_tf_keras`.

    Returns:
        What the twin gives.
    """
    if is_operation(layer) and type(layer) not in TWINS and activation_of(layer) is None:
        unique, n = name, 2
        while unique in made:  # every call has numbers of its own, so it gets a twin of its own
            unique, n = f"{name}_call_{n}", n + 1
        made[unique], tensors = twin_layers.operation_call(layer, unique, args, kwargs)
        return made[unique](tensors)
    if name not in made:
        made[name] = around(twin(layer, name))
    return made[name](*args, **kwargs)


def twin(layer, name: str, **changes) -> tf_keras.layers.Layer:
    """Makes the twin of one layer; the weights are copied when it is built.

    Args:
        layer: A Keras 3 layer.
        name: The twin's name.
        **changes: Arguments of a stock tf_keras class that go before those of `layer`.

    Raises:
        UnmappableLayerError: there is none.
    """
    kind = type(layer)
    if kind in TWINS:
        return TWINS[kind](layer, name)
    if activation_of(layer) is not None:
        return activation_twin(activation_of(layer), name)
    if kind is own.LayerScale or (kind.__module__, kind.__name__) in _LAYER_SCALES:
        return twin_layers.LayerScale(name=name, trainable=layer.trainable)
    if is_scaled_add(layer):
        return twin_layers.ScaledAdd(layer.scale, name=name)
    if kind in (own.LayerNorm, own.GRN):
        cls = {own.LayerNorm: twin_layers.LayerNorm, own.GRN: twin_layers.GRN}[kind]
        return cls(layer.epsilon, name=name, trainable=layer.trainable)
    if kind is own.DropPath:
        return tf_keras.layers.Dropout(layer.rate, noise_shape=(None, 1, 1, 1), name=name)
    if kind is own.ChannelSlice:
        return twin_layers.ChannelSlice(layer.start, layer.stop, layer.step, name=name)
    if kind in (own.GroupedConv2D, own.BatchNorm):
        return _same(layer, name, changes)
    if kind is own.ImageNormalization:
        return tf_keras.layers.Rescaling(layer.scale, layer.offset, name=name)
    if kind is keras.layers.LeakyReLU:
        return tf_keras.layers.LeakyReLU(layer.negative_slope, name=name)
    if kind is keras.layers.Normalization:
        mean, variance = (np.asarray(v) for v in (layer.mean, layer.variance))
        return tf_keras.layers.Normalization(layer.axis, mean.ravel(), variance.ravel(), layer.invert, name=name)
    if kind is keras.layers.Dot and not layer.normalize and _plain_axes(layer.axes):
        return twin_layers.MatMul(layer.axes, name=name)
    stock = kind is getattr(keras.layers, kind.__name__, None) and kind is not keras.layers.Lambda
    if stock and kind.__name__ in _SAME:
        return _same(layer, name, changes)
    if stock or kind in _AS_IS:
        return twin_layers.KerasLayer(layer, name=name, trainable=layer.trainable)
    raise UnmappableLayerError(
        f"Every layer must have a tf_keras twin. Received: layer {layer.name!r} of class {kind.__module__}."
        f"{kind.__qualname__}. Build the model from stock layers (no Lambda), or register a twin for that class: "
        f"`keraslight.compress.register_twin({kind.__name__})(make)`; with `keraslight.compress.run_in_keras` as "
        "`make` the twin runs the Keras 3 layer as it is, in float."
    )


def _plain_axes(axes) -> bool:
    return isinstance(axes, list | tuple) and len(axes) == 2 and set(axes) <= {1, 2}


def _same(layer, name: str, changes: dict) -> tf_keras.layers.Layer:
    stock = {own.GroupedConv2D: "Conv2D", own.BatchNorm: "BatchNormalization"}
    cls = getattr(tf_keras.layers, stock.get(type(layer), type(layer).__name__))
    known = {parameter for base in cls.__mro__ for parameter in inspect.signature(base.__init__).parameters}
    config = {
        key: value
        for key, value in layer.get_config().items()
        if key in known
        and key not in _NOT_CARRIED
        and not key.endswith(("_initializer", "_regularizer", "_constraint"))
    }
    if "activation" in config:
        config["activation"] = _activation(activation_name(layer))
    config["trainable"] = layer.trainable
    if cls is tf_keras.layers.Conv2D and _overruns_memory(layer):
        cls = twin_layers.PointwiseConv2D
    return cls(name=name, **{**config, **changes})


def _overruns_memory(layer) -> bool:
    """Whether oneDNN's gradient of a convolution writes outside its memory: see `keraslight.layers.GroupedConv2D`."""
    return (
        tuple(layer.kernel_size) == (1, 1)
        and max(layer.strides) > 1
        and layer.groups == 1
        and layer.kernel.shape[2] < 16
        and layer.data_format == "channels_last"
    )
