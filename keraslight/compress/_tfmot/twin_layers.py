"""tf_keras layers that do what keraslight's own Keras 3 layers, bare operations and other libraries' layers do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
import tf_keras

from keraslight import layers as own
from keraslight.graph import any_names
from keraslight.graph.kinds import UNKNOWN, base_kind, kind
from keraslight.rewrite.xnnpack import channel_slice, in_float, needs_float, safe_form

Config = dict[str, Any]
_register = tf_keras.utils.register_keras_serializable
# Functions of Keras 3, which AutoGraph need not translate.
_layer_norm = tf.autograph.experimental.do_not_convert(own.LayerNorm.call)
_response_norm = tf.autograph.experimental.do_not_convert(own.GRN.call)
_channel_slice = tf.autograph.experimental.do_not_convert(channel_slice)


@_register(package="keraslight", name="LayerScale")
class ChannelScale(tf_keras.layers.Layer):
    """(..., C) -> (..., C): `y = x * gamma`, with one factor per channel."""

    def build(self, input_shape: Any) -> None:
        self.gamma = self.add_weight("gamma", shape=(input_shape[-1],), initializer="ones")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.gamma


@_register(package="keraslight")
class ScaledAdd(tf_keras.layers.Layer):
    """Two tensors of one shape -> `x + scale * y`, the twin of the layer that closes InceptionResNetV2's blocks."""

    def __init__(self, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        return inputs[0] + self.scale * inputs[1]

    def get_config(self) -> Config:
        return {**super().get_config(), "scale": self.scale}


@_register(package="keraslight")
class ScaleOf(tf_keras.layers.Layer):
    """(..., C) -> (..., C): the product of a batch norm without its sum, with its variables.

    `norm(a) + ScaleOf(norm)(b)` is `norm(a + b)` with the batch norm's own statistics.

    Args:
        norm: A built tf_keras batch norm.
    """

    def __init__(self, norm: tf_keras.layers.BatchNormalization | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.link(norm)

    def link(self, norm: tf_keras.layers.BatchNormalization | str) -> None:
        """Sets the batch norm; a file has its name."""
        self._norm: Callable[[], Any] = lambda: norm  # hidden: its variables are counted where it is called

    @property
    def norm_name(self) -> str:
        """Name of the batch norm."""
        norm = self._norm()
        return norm if isinstance(norm, str) else norm.name

    def get_config(self) -> Config:
        return {**super().get_config(), "norm": self.norm_name}

    def factor(self) -> tf.Tensor:
        """What it multiplies by, (C,). While a file is read, that is one."""
        norm = self._norm()
        if isinstance(norm, str):
            return tf.constant(1.0)
        scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
        return scale if norm.gamma is None else scale * norm.gamma

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.factor()


class Norm(tf_keras.layers.Layer):
    """A normalization with a learned factor and offset per channel, computed by the Keras 3 layer's own `call`."""

    GAMMA = "ones"

    def __init__(self, epsilon: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        self.gamma = self.add_weight("gamma", shape=(input_shape[-1],), initializer=self.GAMMA)
        self.beta = self.add_weight("beta", shape=(input_shape[-1],), initializer="zeros")
        super().build(input_shape)

    def get_config(self) -> Config:
        return {**super().get_config(), "epsilon": self.epsilon}


@_register(package="keraslight", name="LayerNorm")
class ChannelNorm(Norm):
    """The twin of `keraslight.layers.LayerNorm`."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _layer_norm(self, inputs)


@_register(package="keraslight", name="GRN")
class ResponseNorm(Norm):
    """The twin of `keraslight.layers.GRN`."""

    GAMMA, TINY = "zeros", own.GRN.TINY

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _response_norm(self, inputs)


@_register(package="keraslight", name="ChannelSlice")
class Channels(tf_keras.layers.Layer):
    """(..., C) -> every `step`-th channel of a range."""

    def __init__(self, start: int = 0, stop: int | None = None, step: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start, self.stop, self.step = start, stop, step

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _channel_slice(inputs, slice(self.start, self.stop, self.step))

    def get_config(self) -> Config:
        return {**super().get_config(), "start": self.start, "stop": self.stop, "step": self.step}


@_register(package="keraslight")
class MatMul(tf_keras.layers.Layer):
    """Two (B, ., .) tensors -> their product over `axes`, each 1 or 2: `keras.layers.Dot` as one BATCH_MATMUL.

    tf_keras' own Dot transposes and reshapes around it.
    """

    def __init__(self, axes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes = tuple(axes)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        left, right = inputs
        return tf.matmul(left, right, transpose_a=self.axes[0] == 1, transpose_b=self.axes[1] == 2)

    def get_config(self) -> Config:
        return {**super().get_config(), "axes": self.axes}


@_register(package="keraslight")
class HardSigmoid(tf_keras.layers.Layer):
    """`relu6(x + 3) / 6`, as Keras 3 defines it; tf_keras' own is `clip(0.2 x + 0.5, 0, 1)`.

    Args:
        quantized: Also rounds both steps to 8 bits, over their exact ranges 0..6 and 0..1.
    """

    def __init__(self, quantized: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.quantized = quantized

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        six = tf.nn.relu6(inputs + 3.0)
        if not self.quantized:
            return six * (1 / 6)
        six = tf.quantization.fake_quant_with_min_max_args(six, 0.0, 6.0)
        return tf.quantization.fake_quant_with_min_max_args(six * (1 / 6), 0.0, 1.0)

    def get_config(self) -> Config:
        return {**super().get_config(), "quantized": self.quantized}


@_register(package="keraslight")
class HardSilu(tf_keras.layers.Layer):
    """`x * relu6(x + 3) / 6` as a product with the gate, whose steps are rounded to 8 bits.

    The gate's sum, its product and this one run in XNNPACK; see `keraslight.rewrite.xnnpack.hard_silu`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = HardSigmoid(quantized=True)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.gate(inputs)


@_register(package="keraslight")
class PointwiseConv2D(tf_keras.layers.Conv2D):
    """A strided 1x1 convolution that drops the unused pixels first.

    oneDNN's gradient of the plain one writes outside its memory with fewer than 16 input channels: see
    `keraslight.layers.GroupedConv2D`.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        rows, columns = self.strides
        return tf.nn.convolution(inputs[:, ::rows, ::columns], kernel)

    def get_prunable_weights(self) -> list[tf.Variable]:
        return [self.kernel]  # tensorflow_model_optimization requires it of subclasses of Conv2D


@_register(package="keraslight")
class SettlingBatchNormalization(tf_keras.layers.BatchNormalization):
    """A batch norm that uses and follows the batches' statistics in its first training steps, then keeps its own.

    Args:
        steps: Number of these training steps.
    """

    def __init__(self, steps: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = steps

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.taken = self.add_weight("taken", dtype=tf.int64, initializer="zeros", trainable=False)

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        if training is None:
            training = tf_keras.backend.learning_phase()
        if isinstance(training, bool | int) and not training:
            return super().call(inputs, training=False)  # the file's graph: no condition in it
        training = tf.cast(training, tf.bool)
        settling = tf.logical_and(training, self.taken < self.steps)
        self.taken.assign_add(tf.cast(training, tf.int64))
        return super().call(inputs, training=settling)

    def get_config(self) -> Config:
        return {**super().get_config(), "steps": self.steps}


def has_int8_form(source: Any) -> bool:
    """Whether a file computes a layer or bare operation in int8 where only its ends are rounded."""
    if not isinstance(source, keras.layers.Layer):
        return kind(source).int8 is not None
    return base_kind(type(source)).int8 is not None or getattr(source, "mode", None) == "max"  # of C4GroupPooling


@_register(package="keraslight")
class KerasLayer(tf_keras.layers.Layer):
    """Runs a Keras 3 layer as it is, on variables of its own that start with the layer's values.

    Args:
        source: The built Keras 3 layer. It is not changed.
    """

    def __init__(self, source: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._source: Callable[[], Any] = lambda: (
            source
        )  # hidden: tf_keras would take it for a layer of its own and list its weights
        self._takes_training = "training" in inspect.signature(source.call).parameters
        self._twins: dict[str, tf.Variable] = {}
        for weight in (*source.trainable_variables, *source.non_trainable_variables):
            self._twins[weight.path] = self.add_weight(
                f"{len(self._twins)}_{weight.name}",  # numbered, because an inner layer may use the same name
                shape=weight.shape,
                dtype=weight.dtype,
                initializer=tf_keras.initializers.Constant(keras.ops.convert_to_numpy(weight)),
                trainable=weight.trainable,
            )

    @property
    def source(self) -> keras.layers.Layer:
        """The Keras 3 layer."""
        return self._source()

    def variables_of(self, weights: Sequence[keras.Variable]) -> list[tf.Variable]:
        """The variables that stand for the source's `weights`."""
        return [self._twins[weight.path] for weight in weights]

    def call(self, *args: Any, training: Any = None, **kwargs: Any) -> Any:
        source = self.source
        if self._takes_training:
            kwargs["training"] = training
        learned, others = (
            self.variables_of(weights) for weights in (source.trainable_variables, source.non_trainable_variables)
        )

        def run(*args: Any, **kwargs: Any) -> Any:
            with any_names():
                outputs, updated = source.stateless_call(learned, others, *args, **kwargs)
            if training is not False:
                for variable, value in zip(others, updated, strict=True):
                    variable.assign(value)
            return outputs

        form = safe_form(source)
        if form is not None:
            return in_float(form)(*args)
        # The others that are known neither end by choosing or averaging nor lose by an int8 operation inside.
        return (in_float(run) if needs_float(source) or kind(source) is UNKNOWN else run)(*args, **kwargs)

    def get_config(self) -> Config:
        return {**super().get_config(), "source": keras.saving.serialize_keras_object(self.source)}

    @classmethod
    def from_config(cls, config: Config) -> KerasLayer:
        return cls(**{**config, "source": keras.saving.deserialize_keras_object(config["source"])})


@_register(package="keraslight")
class KerasOperation(tf_keras.layers.Layer):
    """(list of tensors) -> what a bare Keras 3 operation, such as `x + 3` or `keras.ops.split`, makes of them.

    Args:
        source: The operation; it has no state.
        template: (args, kwargs) of its call, with `hole(n)` in place of the n-th tensor.
    """

    def __init__(self, source: Any, template: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._parts: Callable[[], tuple[Any, Any]] = lambda: (
            source,
            template,
        )  # hidden from tf_keras' tracking of attributes

    @property
    def source(self) -> Any:
        """The operation."""
        return self._parts()[0]

    def call(self, inputs: Sequence[tf.Tensor]) -> Any:
        source, template = self._parts()
        # A model that is read or copied calls with a bare tensor what was called with a list of one.
        tensors = inputs if isinstance(inputs, list | tuple) else [inputs]
        holes = {hole(n): tensor for n, tensor in enumerate(tensors)}

        def fill(leaf: Any) -> Any:
            return holes.get(leaf, leaf) if isinstance(leaf, str) else leaf

        args, kwargs = keras.tree.map_structure(fill, template)
        form = safe_form(source) or source.call
        return (form if has_int8_form(source) else in_float(form))(*args, **kwargs)

    def get_config(self) -> Config:
        source, template = (keras.saving.serialize_keras_object(part) for part in self._parts())
        return {**super().get_config(), "source": source, "template": template}

    @classmethod
    def from_config(cls, config: Config) -> KerasOperation:
        source, template = (keras.saving.deserialize_keras_object(config[key]) for key in ("source", "template"))
        return cls(**{**config, "source": source, "template": template})


def hole(n: int) -> str:
    """What stands for the n-th tensor in a `KerasOperation`'s template."""
    return f"tensor {n} of the call"


def operation_call(
    source: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[KerasOperation, list[tf.Tensor]]:
    """The twin of one call of a bare operation, and the tensors to call it with."""
    tensors: list[tf.Tensor] = []

    def dig(leaf: Any) -> Any:
        if not tf.is_tensor(leaf):
            return leaf
        tensors.append(leaf)
        return hole(len(tensors) - 1)

    template = keras.tree.map_structure(dig, (args, kwargs))
    return KerasOperation(source, template, name=name), tensors


# keraslight's own layers with a twin: class -> function of the layer and the twin's name.
TWINS: dict[type, Callable[[Any, str], tf_keras.layers.Layer]] = {
    own.LayerScale: lambda layer, name: ChannelScale(name=name, trainable=layer.trainable),
    own.LayerNorm: lambda layer, name: ChannelNorm(layer.epsilon, name=name, trainable=layer.trainable),
    own.GRN: lambda layer, name: ResponseNorm(layer.epsilon, name=name, trainable=layer.trainable),
    own.DropPath: lambda layer, name: tf_keras.layers.Dropout(layer.rate, noise_shape=(None, 1, 1, 1), name=name),
    own.ChannelSlice: lambda layer, name: Channels(layer.start, layer.stop, layer.step, name=name),
    own.ImageNormalization: lambda layer, name: tf_keras.layers.Rescaling(layer.scale, layer.offset, name=name),
}
