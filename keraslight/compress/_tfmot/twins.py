"""The tf_keras layer that does what a Keras 3 layer does."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from keraslight import layers as own
from keraslight.compress import _bridge
from keraslight.errors import UnmappableLayerError

# Classes that mean the same in both libraries, once the arguments that only one of them knows are left out. A class
# that is not listed is refused even if tf_keras has one of that name: some differ (hard sigmoid) without any error.
_SAME = (
    *("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense"),
    *("BatchNormalization", "LayerNormalization", "Rescaling", "ReLU", "ELU", "PReLU", "Softmax", "Identity"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D"),
    *("ZeroPadding2D", "Cropping2D", "UpSampling2D", "Flatten", "Reshape", "Permute", "RepeatVector"),
    *("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
)

_NOT_CARRIED = ("dtype", "seed", "autocast", "name")  # initializers, regularizers and constraints go by their endings


@tf_keras.utils.register_keras_serializable(package="keraslight")
class LayerScale(tf_keras.layers.Layer):
    """(..., C) -> (..., C): `y = x * gamma`, the twin of `keraslight.layers.LayerScale`."""

    def build(self, input_shape):
        self.gamma = self.add_weight("gamma", shape=(input_shape[-1],), initializer="ones")
        super().build(input_shape)

    def call(self, inputs):
        return inputs * self.gamma


@tf_keras.utils.register_keras_serializable(package="keraslight")
class LayerNorm(tf_keras.layers.Layer):
    """The twin of `keraslight.layers.LayerNorm`."""

    def __init__(self, epsilon, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        self.gamma = self.add_weight("gamma", shape=(input_shape[-1],), initializer="ones")
        self.beta = self.add_weight("beta", shape=(input_shape[-1],), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs):
        x = inputs - tf.reduce_mean(inputs, axis=-1, keepdims=True)
        x *= tf.math.rsqrt(tf.reduce_mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        return x * self.gamma + self.beta

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@tf_keras.utils.register_keras_serializable(package="keraslight")
class GRN(tf_keras.layers.Layer):
    """The twin of `keraslight.layers.GRN`."""

    def __init__(self, epsilon, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        self.gamma = self.add_weight("gamma", shape=(input_shape[-1],), initializer="zeros")
        self.beta = self.add_weight("beta", shape=(input_shape[-1],), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs):
        squares = tf.reduce_sum(inputs * inputs, axis=(1, 2), keepdims=True)
        norms = tf.sqrt(tf.maximum(squares, own.GRN.TINY))
        norms = norms / (tf.reduce_mean(norms, axis=-1, keepdims=True) + self.epsilon)
        return inputs + self.gamma * (inputs * norms) + self.beta

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@tf_keras.utils.register_keras_serializable(package="keraslight")
class ChannelSlice(tf_keras.layers.Layer):
    """(..., C) -> every `step`-th channel of a range: the twin of `keraslight.layers.ChannelSlice`."""

    def __init__(self, start=0, stop=None, step=1, **kwargs):
        super().__init__(**kwargs)
        self.start, self.stop, self.step = start, stop, step

    def call(self, inputs):
        return inputs[..., self.start : self.stop : self.step]

    def get_config(self):
        return {**super().get_config(), "start": self.start, "stop": self.stop, "step": self.step}


@tf_keras.utils.register_keras_serializable(package="keraslight")
class MatMul(tf_keras.layers.Layer):
    """Two (B, ., .) tensors -> their product over `axes`, each 1 or 2: `keras.layers.Dot` as one BATCH_MATMUL.

    tf_keras' own Dot transposes and reshapes around it.
    """

    def __init__(self, axes, **kwargs):
        super().__init__(**kwargs)
        self.axes = tuple(axes)

    def call(self, inputs):
        left, right = inputs
        return tf.matmul(left, right, transpose_a=self.axes[0] == 1, transpose_b=self.axes[1] == 2)

    def get_config(self):
        return {**super().get_config(), "axes": self.axes}


@tf_keras.utils.register_keras_serializable(package="keraslight")
class HardSigmoid(tf_keras.layers.Layer):
    """`relu6(x + 3) / 6`, as Keras 3 defines it; tf_keras' own is `clip(0.2 x + 0.5, 0, 1)`.

    Args:
        quantized: Also rounds both steps to 8 bits, over their exact ranges 0..6 and 0..1.
    """

    def __init__(self, quantized: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.quantized = quantized

    def call(self, inputs):
        six = tf.nn.relu6(inputs + 3.0)
        if not self.quantized:
            return six * (1 / 6)
        six = tf.quantization.fake_quant_with_min_max_args(six, 0.0, 6.0)
        return tf.quantization.fake_quant_with_min_max_args(six * (1 / 6), 0.0, 1.0)

    def get_config(self):
        return {**super().get_config(), "quantized": self.quantized}


def _hard_sigmoid(x):
    return tf.nn.relu6(x + 3.0) * (1 / 6)


def _hard_silu(x):
    return x * tf.nn.relu6(x + 3.0) * (1 / 6)  # the form that the LiteRT converter fuses into HARD_SWISH


# Keras 3 activation -> what tf_keras' `activation=` takes.
_ACTIVATIONS = {
    **{name: name for name in ("linear", "relu", "softmax", "sigmoid", "tanh", "gelu", "elu", "selu", "softplus")},
    **{name: name for name in ("softsign", "exponential")},
    "relu6": tf.nn.relu6,
    "silu": "swish",
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
}


def activation_name(layer) -> str:
    """The Keras 3 name of a layer's activation.

    Raises:
        UnmappableLayerError: it is a function of the user's own.
    """
    name = keras.activations.serialize(layer.activation)
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise UnmappableLayerError(
            f"An activation must be one of {sorted(_ACTIVATIONS)} to have a tf_keras twin. Received: "
            f"{name!r} in layer {layer.name!r}. Write it as a layer of its own and give that a twin with "
            "`keraslight.compress.register_twin`."
        )
    return name


def activation_twin(kind: str, name: str, quantized: bool = False) -> tf_keras.layers.Layer:
    """A layer that applies the Keras 3 activation `kind`."""
    if kind in ("relu", "relu6"):
        return tf_keras.layers.ReLU(6.0 if kind == "relu6" else None, name=name)
    if kind == "hard_sigmoid":
        return HardSigmoid(quantized, name=name)
    return tf_keras.layers.Activation(_ACTIVATIONS[kind], name=name)


def twin(layer, name: str, **changes) -> tf_keras.layers.Layer:
    """Makes the twin of one layer; the weights are copied when it is built.

    Args:
        layer: A Keras 3 layer or bare operation.
        name: The twin's name.
        **changes: Arguments of a stock tf_keras class that go before those of `layer`.

    Raises:
        UnmappableLayerError: there is none.
    """
    kind = type(layer)
    if kind in _bridge.twins:
        return _bridge.twins[kind](layer, name)
    if kind is own.LayerScale:
        return LayerScale(name=name, trainable=layer.trainable)
    if kind in (own.LayerNorm, own.GRN):
        return {own.LayerNorm: LayerNorm, own.GRN: GRN}[kind](layer.epsilon, name=name, trainable=layer.trainable)
    if kind is own.DropPath:
        return tf_keras.layers.Dropout(layer.rate, noise_shape=(None, 1, 1, 1), name=name)
    if kind is own.ChannelSlice:
        return ChannelSlice(layer.start, layer.stop, layer.step, name=name)
    if kind in (own.GroupedConv2D, own.BatchNorm):
        return _same(layer, name, changes)
    if kind is own.ImageNormalization:
        return tf_keras.layers.Rescaling(layer.scale, layer.offset, name=name)
    if kind is keras.layers.Activation:
        return activation_twin(activation_name(layer), name)
    if kind is keras.layers.LeakyReLU:
        return tf_keras.layers.LeakyReLU(layer.negative_slope, name=name)
    if kind is keras.layers.Normalization:
        mean, variance = (np.asarray(v) for v in (layer.mean, layer.variance))
        return tf_keras.layers.Normalization(layer.axis, mean.ravel(), variance.ravel(), layer.invert, name=name)
    if kind is keras.layers.Dot and not layer.normalize and _plain_axes(layer.axes):
        return MatMul(layer.axes, name=name)
    if kind.__name__ in _SAME and kind is getattr(keras.layers, kind.__name__, None):
        return _same(layer, name, changes)
    raise UnmappableLayerError(
        f"Every layer must have a tf_keras twin. Received: layer {layer.name!r} of class {kind.__module__}."
        f"{kind.__qualname__}. Build the model from stock layers (not bare operations or Lambda), or register a twin "
        "for that class with `keraslight.compress.register_twin`."
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
        config["activation"] = _ACTIVATIONS[activation_name(layer)]
    config["trainable"] = layer.trainable
    return cls(name=name, **{**config, **changes})
