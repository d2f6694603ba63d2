"""tf_keras layers that do what keraslight's own Keras 3 layers, bare operations and other people's layers do."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import tensorflow as tf
import tf_keras

from keraslight.layers import GRN as KerasGRN


@tf_keras.utils.register_keras_serializable(package="keraslight")
class LayerScale(tf_keras.layers.Layer):
    """(..., C) -> (..., C): `y = x * gamma`, the twin of `keraslight.layers.LayerScale`."""

    def build(self, input_shape):
        self.gamma = self.add_weight("gamma", shape=(input_shape[-1],), initializer="ones")
        super().build(input_shape)

    def call(self, inputs):
        return inputs * self.gamma


@tf_keras.utils.register_keras_serializable(package="keraslight")
class ScaledAdd(tf_keras.layers.Layer):
    """Two tensors of one shape -> `x + scale * y`, the twin of the layer that closes InceptionResNetV2's blocks.

    Args:
        scale: A number.
    """

    def __init__(self, scale, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs):
        return inputs[0] + self.scale * inputs[1]

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


@tf_keras.utils.register_keras_serializable(package="keraslight")
class ScaleOf(tf_keras.layers.Layer):
    """(..., C) -> (..., C): the product of a batch norm without its sum, with its variables.

    `norm(a) + ScaleOf(norm)(b)` is `norm(a + b)` with the batch norm's own statistics.

    Args:
        norm: A built tf_keras batch norm.
    """

    def __init__(self, norm, **kwargs):
        super().__init__(**kwargs)
        self._norm = lambda: norm  # hidden: its variables are counted where it is called

    def call(self, inputs):
        norm = self._norm()
        scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
        return inputs * (scale if norm.gamma is None else scale * norm.gamma)


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
        norms = tf.sqrt(tf.maximum(squares, KerasGRN.TINY))
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
        channels = inputs.shape[-1]
        plain = self.step == 1 or self.start >= self.step or self.stop is not None or channels % self.step
        if plain or None in inputs.shape[1:]:
            return inputs[..., self.start : self.stop : self.step]
        # XNNPACK knows no slices with steps.
        rows = tf.transpose(tf.reshape(inputs, (-1, self.step)))[self.start : self.start + 1]
        return tf.reshape(rows, (-1, *inputs.shape[1:-1], channels // self.step))

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


@tf_keras.utils.register_keras_serializable(package="keraslight")
class HardSilu(tf_keras.layers.Layer):
    """`x * relu6(x + 3) / 6` as a product with the gate, whose steps are rounded to 8 bits.

    The converter would make HARD_SWISH of the plain formula, for which XNNPACK has no int8 kernel: TensorFlow Lite's
    own took over half of an int8 MobileNetV3's time. The gate's sum, its product and this one run in XNNPACK.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gate = HardSigmoid(quantized=True)

    def call(self, inputs):
        return inputs * self.gate(inputs)


@tf_keras.utils.register_keras_serializable(package="keraslight")
class PointwiseConv2D(tf_keras.layers.Conv2D):
    """A strided 1x1 convolution that leaves the unused pixels out before.

    oneDNN's gradient of the plain one writes outside its memory with fewer than 16 input channels: see
    `keraslight.layers.GroupedConv2D`.
    """

    def convolution_op(self, inputs, kernel):
        rows, columns = self.strides
        return tf.nn.convolution(inputs[:, ::rows, ::columns], kernel)

    def get_prunable_weights(self):
        return [self.kernel]  # tensorflow_model_optimization asks subclasses of Conv2D for it


@tf_keras.utils.register_keras_serializable(package="keraslight")
class SettlingBatchNormalization(tf_keras.layers.BatchNormalization):
    """A batch norm that uses and follows the batches' statistics in its first training steps, then keeps its own.

    Args:
        steps: How many training steps.
    """

    def __init__(self, steps: int, **kwargs):
        super().__init__(**kwargs)
        self.steps = steps

    def build(self, input_shape):
        super().build(input_shape)
        self.taken = self.add_weight("taken", dtype=tf.int64, initializer="zeros", trainable=False)

    def call(self, inputs, training=None):
        if training is None:
            training = tf_keras.backend.learning_phase()
        if isinstance(training, bool | int) and not training:
            return super().call(inputs, training=False)  # the file's graph: no condition in it
        training = tf.cast(training, tf.bool)
        settling = tf.logical_and(training, self.taken < self.steps)
        self.taken.assign_add(tf.cast(training, tf.int64))
        return super().call(inputs, training=settling)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}


@tf_keras.utils.register_keras_serializable(package="keraslight")
class KerasLayer(tf_keras.layers.Layer):
    """Runs a Keras 3 layer as it is, on variables of its own that start with the layer's values.

    Args:
        source: The built Keras 3 layer. It is not changed.
    """

    def __init__(self, source, **kwargs):
        super().__init__(**kwargs)
        self._source = lambda: source  # hidden: tf_keras would take it for a layer of its own and ask for its weights
        self._takes_training = "training" in inspect.signature(source.call).parameters
        self._twins = {}
        for weight in (*source.trainable_variables, *source.non_trainable_variables):
            self._twins[weight.path] = self.add_weight(
                f"{len(self._twins)}_{weight.name}",  # numbered, because an inner layer may use the same name
                shape=weight.shape,
                dtype=weight.dtype,
                initializer=tf_keras.initializers.Constant(keras.ops.convert_to_numpy(weight)),
                trainable=weight.trainable,
            )

    @property
    def source(self):
        """The Keras 3 layer."""
        return self._source()

    def variables_of(self, weights) -> list[tf.Variable]:
        """The variables that stand for the source's `weights`."""
        return [self._twins[weight.path] for weight in weights]

    def call(self, *args, training=None, **kwargs):
        source = self.source
        if self._takes_training:
            kwargs["training"] = training
        learned, others = (
            self.variables_of(weights) for weights in (source.trainable_variables, source.non_trainable_variables)
        )
        outputs, updated = source.stateless_call(learned, others, *args, **kwargs)
        if training is not False:
            for variable, value in zip(others, updated, strict=True):
                variable.assign(value)
        return outputs

    def get_config(self):
        return {**super().get_config(), "source": keras.saving.serialize_keras_object(self.source)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "source": keras.saving.deserialize_keras_object(config["source"])})


@tf_keras.utils.register_keras_serializable(package="keraslight")
class KerasOperation(tf_keras.layers.Layer):
    """(list of tensors) -> what a bare Keras 3 operation, such as `x + 3` or `keras.ops.split`, makes of them.

    Args:
        source: The operation; it has no state.
        template: (args, kwargs) of its call, with `hole(n)` for the n-th tensor.
    """

    def __init__(self, source, template, **kwargs):
        super().__init__(**kwargs)
        self._parts = lambda: (source, template)  # hidden from tf_keras' tracking of attributes

    @property
    def source(self):
        """The operation."""
        return self._parts()[0]

    def call(self, inputs):
        source, template = self._parts()
        holes = {hole(n): tensor for n, tensor in enumerate(inputs)}

        def fill(leaf):
            return holes.get(leaf, leaf) if isinstance(leaf, str) else leaf

        args, kwargs = keras.tree.map_structure(fill, template)
        return source.call(*args, **kwargs)

    def get_config(self):
        source, template = (keras.saving.serialize_keras_object(part) for part in self._parts())
        return {**super().get_config(), "source": source, "template": template}

    @classmethod
    def from_config(cls, config):
        source, template = (keras.saving.deserialize_keras_object(config[key]) for key in ("source", "template"))
        return cls(**{**config, "source": source, "template": template})


def hole(n: int) -> str:
    """What stands for the n-th tensor in a `KerasOperation`'s template."""
    return f"tensor {n} of the call"


def operation_call(source, name: str, args: tuple, kwargs: dict[str, Any]) -> tuple[KerasOperation, list]:
    """The twin of one call of a bare operation, and the tensors to call it with."""
    tensors: list = []

    def dig(leaf):
        if not tf.is_tensor(leaf):
            return leaf
        tensors.append(leaf)
        return hole(len(tensors) - 1)

    template = keras.tree.map_structure(dig, (args, kwargs))
    return KerasOperation(source, template, name=name), tensors
