"""The tf_keras layer that does what a Keras 3 layer does."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from keraslight import layers as own
from keraslight.compress import _registered
from keraslight.compress._tfmot import twin_layers
from keraslight.errors import UnmappableLayerError
from keraslight.graph import is_frozen, kinds

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
_STOCK = {own.GroupedConv2D: "Conv2D", own.BatchNorm: "BatchNormalization"}

_NOT_CARRIED = ("dtype", "seed", "autocast", "name")  # initializers, regularizers and constraints go by their endings

Around = Callable[[tf_keras.layers.Layer], tf_keras.layers.Layer]
"""tf_keras layer -> the layer to call in its place, such as a wrapper whose `set_weights` takes its inner weights."""


def _hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu6(x + 3.0) * (1 / 6)


def _hard_silu(x: tf.Tensor) -> tf.Tensor:
    return x * tf.nn.relu6(x + 3.0) * (1 / 6)


# Keras 3 activation -> what tf_keras' `activation=` takes; Keras' other functions run as they are.
_ACTIVATIONS: dict[str, Any] = {
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


def activation_name(layer: Any) -> str:
    """The Keras 3 name of a layer's activation.

    Raises:
        UnmappableLayerError: It is a function of the user's own.
    """
    name = kinds.activation_name(layer)
    if name is None:
        own = getattr(layer.activation, "__name__", layer.activation)
        raise UnmappableLayerError(
            "An activation must be one of keras.activations to have a tf_keras twin. Received: "
            f"{own!r} in layer {layer.name!r}. Write it as a layer of its "
            "own and give that a twin with `keraslight.compress.register_twin`."
        )
    return name


def _activation(name: str) -> Any:
    return _ACTIVATIONS[name] if name in _ACTIVATIONS else keras.activations.get(name)


def activation_twin(activation: str, name: str, quantized: bool = False) -> tf_keras.layers.Layer:
    """A layer that applies a Keras 3 activation, given by its name."""
    if activation in ("relu", "relu6"):
        return tf_keras.layers.ReLU(6.0 if activation == "relu6" else None, name=name)
    if activation == "hard_sigmoid":
        return twin_layers.HardSigmoid(quantized, name=name)
    if activation == "hard_silu" and quantized:
        return twin_layers.HardSilu(name=name)
    return tf_keras.layers.Activation(_activation(activation), name=name)


def activation_of(layer: Any) -> str | None:
    """The activation that a Keras 3 `Activation` layer or bare operation applies, or None if it is something else."""
    if type(layer) is keras.layers.Activation:
        return activation_name(layer)
    return _ACTIVATION_OPERATIONS.get(type(layer).__name__) if is_operation(layer) else None


def is_scaled_add(layer: Any) -> bool:
    """Whether a layer adds a scaled second input to its first, as those of InceptionResNetV2 do."""
    return (type(layer).__module__, type(layer).__name__) in kinds.SCALED_ADDS


def is_operation(layer: Any) -> bool:
    """Whether a call in a graph is a bare operation, such as `x + 3`."""
    return not isinstance(layer, keras.layers.Layer)


def apply(
    layer: Any,
    name: str,
    made: dict[str, tf_keras.layers.Layer],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    around: Around = lambda twin: twin,
) -> Any:
    """Calls the twin of a Keras 3 layer or bare operation, and makes it unless `made` has it.

    Args:
        layer: The Keras 3 layer or operation.
        name: Its unique name; an operation's second call gets a number behind it.
        made: Name -> twin; the new one is added.
        args, kwargs: As of the Keras 3 call, with tf_keras tensors.
        around: Put around each new twin.

    Returns:
        What the twin gives.
    """
    if is_operation(layer) and type(layer) not in _registered.TWINS and activation_of(layer) is None:
        unique, n = name, 2
        while unique in made:  # every call has numbers of its own, so it gets a twin of its own
            unique, n = f"{name}_call_{n}", n + 1
        made[unique], tensors = twin_layers.operation_call(layer, unique, args, kwargs)
        return made[unique](tensors)
    if name not in made:
        made[name] = around(twin(layer, name))
    return made[name](*args, **kwargs)


def twin(layer: Any, name: str, **changes: Any) -> tf_keras.layers.Layer:
    """Makes the twin of one layer; the weights are copied when it is built.

    Args:
        layer: A Keras 3 layer.
        name: The twin's name.
        **changes: Arguments of a stock tf_keras class that take precedence over those of `layer`.

    Raises:
        UnmappableLayerError: There is none.
    """
    kind = type(layer)
    for registered in (_registered.TWINS, twin_layers.TWINS):
        if kind in registered:
            return registered[kind](layer, name)
    activation = activation_of(layer)
    if activation is not None:
        return activation_twin(activation, name)
    if (kind.__module__, kind.__name__) in kinds.LAYER_SCALES:
        return twin_layers.ChannelScale(name=name, trainable=layer.trainable)
    if is_scaled_add(layer):
        return twin_layers.ScaledAdd(layer.scale, name=name)
    if kind in _STOCK:
        return _same(layer, name, changes)
    if kind is keras.layers.LeakyReLU:
        return tf_keras.layers.LeakyReLU(layer.negative_slope, name=name)
    if kind is keras.layers.Normalization:
        mean, variance = (np.asarray(v) for v in (layer.mean, layer.variance))  # with sides of 1 for other axes
        kept = [mean.shape[axis] for axis in layer.axis]
        mean, variance = mean.reshape(kept), variance.reshape(kept)
        return tf_keras.layers.Normalization(layer.axis, mean, variance, layer.invert, name=name)
    if kind is keras.layers.Dot and not layer.normalize and _plain_axes(layer.axes):
        return twin_layers.MatMul(layer.axes, name=name)
    stock = kind is getattr(keras.layers, kind.__name__, None) and kind is not keras.layers.Lambda
    cosine = kind is keras.layers.Dot and layer.normalize
    if stock and kind.__name__ in _SAME and not cosine:
        return _same(layer, name, changes)
    if stock or kind is getattr(own, kind.__name__, None):  # of which TFLite could keep no kernel in int8
        return twin_layers.KerasLayer(layer, name=name, trainable=layer.trainable)
    raise UnmappableLayerError(
        f"Every layer must have a tf_keras twin. Received: layer {layer.name!r} of class {kind.__module__}."
        f"{kind.__qualname__}. Build the model from stock layers (no Lambda), or register a twin for that class: "
        f"`keraslight.compress.register_twin({kind.__name__})(make)`; with `keraslight.compress.run_in_keras` as "
        "`make` the twin runs the Keras 3 layer as it is, in float."
    )


def _plain_axes(axes: Any) -> bool:
    return isinstance(axes, list | tuple) and len(axes) == 2 and set(axes) <= {1, 2}


def _same(layer: Any, name: str, changes: dict[str, Any]) -> tf_keras.layers.Layer:
    cls = getattr(tf_keras.layers, _STOCK.get(type(layer), type(layer).__name__))
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
    config["trainable"] = not is_frozen(layer)
    if cls is tf_keras.layers.Conv2D and _overruns_memory(layer):
        cls = twin_layers.PointwiseConv2D
    return cls(name=name, **{**config, **changes})


def _overruns_memory(layer: Any) -> bool:
    """Whether oneDNN's gradient of a convolution writes outside its memory: see `keraslight.layers.GroupedConv2D`."""
    return (
        tuple(layer.kernel_size) == (1, 1)
        and max(layer.strides) > 1
        and layer.groups == 1
        and layer.kernel.shape[2] < 16
        and layer.data_format == "channels_last"
    )
