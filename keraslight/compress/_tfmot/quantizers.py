"""Quantizers of kernels and activations, and the wrapper that puts them around a tf_keras layer."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer, quantize_wrapper, quantizers
from tensorflow_model_optimization.python.core.quantization.keras.quantize_config import QuantizeConfig

PREFIX = "quant_"


class KernelQuantizer(quantizers.Quantizer):
    """Eight bits, symmetric, with the range of the last step; one range per output channel.

    It differs from the library's own in two points: depthwise kernels have a range per channel too (there, one for all,
    because their last axis is not the channels), and a channel of zeros, which pruning makes, keeps a range above 0
    (the converter can't write a scale of 0).

    Args:
        limit: Upper limit of the first range: a float, or an array with one per channel.
        least: Returns the least upper limits that the file can hold, in the form of `limit`; None for no such limit.
    """

    SMALLEST = 1e-6

    def __init__(self, limit: np.typing.ArrayLike, least: Callable[[], tf.Tensor] | None = None) -> None:
        self.limit = np.maximum(np.asarray(limit, np.float32), self.SMALLEST)
        self.least = least
        if least is not None:
            self.limit = np.maximum(self.limit, least().numpy())

    def build(self, tensor_shape: Any, name: str, layer: tf_keras.layers.Layer) -> dict[str, tf.Variable]:
        return {
            f"{end}_var": layer.add_weight(
                f"{name}_{end}",
                shape=self.limit.shape,
                initializer=tf_keras.initializers.Constant(sign * self.limit),
                trainable=False,
            )
            for end, sign in (("min", -1), ("max", 1))
        }

    def __call__(self, inputs: Any, training: Any, weights: dict[str, tf.Variable], **kwargs: Any) -> tf.Tensor:
        by_channel = self.limit.ndim == 1
        kernel = tf.reshape(inputs, (*inputs.shape[:2], -1, len(self.limit))) if by_channel else inputs
        low, high = weights["min_var"], weights["max_var"]
        if training:
            limit = tf.reduce_max(tf.abs(kernel), axis=(0, 1, 2) if by_channel else None)
            limit = tf.maximum(limit, self.SMALLEST if self.least is None else self.least())
            low.assign(-limit)
            high.assign(limit)
            return tf.reshape(_rounded(kernel, limit / 127), inputs.shape)
        quantize = (
            tf.quantization.fake_quant_with_min_max_vars_per_channel
            if by_channel
            else tf.quantization.fake_quant_with_min_max_vars
        )
        return tf.reshape(quantize(kernel, low, high, num_bits=8, narrow_range=True), inputs.shape)

    def get_config(self) -> dict[str, Any]:
        return {"limit": self.limit.tolist()}


@tf.custom_gradient
def _rounded(kernel: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, Callable[[Any], Any]]:
    """The multiples of `step` next to a kernel's values, and the gradient as if nothing had been rounded.

    TensorFlow's fake quantization gives the same where the range just holds the kernel. But that operation walks the
    kernel channel by channel, with a stride: with its gradient it took 200 ms of one core for 3x3x512x512 weights, this
    takes 6. The file's graph keeps it, because the converter knows it.
    """
    return tf.round(kernel / step) * step, lambda gradient: (gradient, None)


class ActivationQuantizer(quantizers.Quantizer):
    """Eight bits, with one range that follows the batches' minima and maxima.

    It differs from the library's own in two points: the average follows faster (a decay of 0.999 needs thousands of
    steps, more than fine-tuning has), and the range never shrinks to nothing (a range of 1e-40 trains to NaN, and NaN
    crashes the converter).

    Args:
        low, high: First range; it is widened to include 0, because padding writes zeros.
        positive: Whether no input is below 0, as after a ReLU; the minimum is then not computed.
        least: The least upper limit. The interpreter prepares no operator whose output is too fine for its inputs.
    """

    DECAY = 0.99
    SMALLEST = 1e-6

    def __init__(self, low: float = -6.0, high: float = 6.0, positive: bool = False, least: float = SMALLEST) -> None:
        self.positive, self.least = positive, max(float(least), self.SMALLEST)
        self.low, self.high = 0.0 if positive else min(float(low), 0.0), max(float(high), self.least)

    def build(self, tensor_shape: Any, name: str, layer: tf_keras.layers.Layer) -> dict[str, tf.Variable]:
        self.ends = {
            f"{end}_var": layer.add_weight(
                f"{name}_{end}", initializer=tf_keras.initializers.Constant(value), trainable=False
            )
            for end, value in (("min", self.low), ("max", self.high))
        }
        return self.ends

    def step(self) -> tf.Tensor:
        """The width of the present range's steps."""
        return (self.ends["max_var"] - self.ends["min_var"]) / 255

    def __call__(self, inputs: Any, training: Any, weights: dict[str, tf.Variable], **kwargs: Any) -> tf.Tensor:
        low, high = weights["min_var"], weights["max_var"]
        if training:
            if not self.positive:
                batch_low = tf.minimum(tf.reduce_min(inputs), 0.0)
                low = low.assign_sub((1 - self.DECAY) * (low - batch_low))
            batch_high = tf.maximum(tf.reduce_max(inputs), self.least)
            high = high.assign_sub((1 - self.DECAY) * (high - batch_high))
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high, num_bits=8)

    def get_config(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "positive": self.positive, "least": self.least}


class Wrapper(quantize_wrapper.QuantizeWrapperV2):
    """The library's wrapper, for frozen layers too: it lists every kernel that it quantizes as trainable."""

    @property
    def kernel(self) -> tf.Variable | None:
        """The kernel before rounding; its attribute of the layer holds the rounded one."""
        return self._weight_vars[0][0] if self._weight_vars else None

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        return super().trainable_weights if self.layer.trainable else []

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        frozen = [] if self.layer.trainable else super().trainable_weights
        return [*frozen, *super().non_trainable_weights]

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Leaves building to the first call: the library's class would build again there."""

    # By name: around a layer that is built, as in a new model, the wrapper lists other weights as its own than around
    # one that it builds, as in a model that is read from a file.
    def save_own_variables(self, store: Any) -> None:
        for name, weight in self._named_weights().items():
            store[name] = weight.numpy()

    def load_own_variables(self, store: Any) -> None:
        for name, weight in self._named_weights().items():
            weight.assign(store[name])

    def _named_weights(self) -> dict[str, tf.Variable]:
        return {weight.name.rpartition("/")[2].partition(":")[0]: weight for weight in self.weights}


class Quantize(quantize_layer.QuantizeLayer):
    """The library's layer that rounds what it reads; it is built once where a file is read."""

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Leaves building to the first call."""


class Config(QuantizeConfig):
    """Which weight and whether the output of a layer is quantized.

    Args:
        weight: Attribute name of the kernel and its quantizer, or None.
        output: The output's quantizer, or None.
    """

    def __init__(
        self, weight: tuple[str, KernelQuantizer] | None = None, output: ActivationQuantizer | None = None
    ) -> None:
        self.weight, self.output = weight, output

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[tf.Variable, KernelQuantizer]]:
        return [(getattr(layer, self.weight[0]), self.weight[1])] if self.weight else []

    def set_quantize_weights(self, layer: Any, quantize_weights: Sequence[Any]) -> None:
        if self.weight:
            setattr(layer, self.weight[0], quantize_weights[0])

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        return []  # activations are layers of their own here

    def set_quantize_activations(self, layer: Any, quantize_activations: Sequence[Any]) -> None:
        pass

    def get_output_quantizers(self, layer: Any) -> list[ActivationQuantizer]:
        return [self.output] if self.output else []

    def get_config(self) -> dict[str, Any]:
        return {
            "weight": [self.weight[0], self.weight[1].get_config()] if self.weight else None,
            "output": self.output.get_config() if self.output else None,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Config":
        weight, output = config["weight"], config["output"]
        return cls(
            (weight[0], KernelQuantizer(**weight[1])) if weight else None,
            ActivationQuantizer(**output) if output else None,
        )


class KeepZeros(tf_keras.constraints.Constraint):
    """Holds a pruned kernel's zeros: the optimizer applies it to the kernel after every step.

    A constraint, not a callback, so that it holds in any `fit` and in custom loops.
    """

    def __init__(self, kernel: np.ndarray | None = None) -> None:
        if kernel is not None:
            self.hold(kernel)

    def hold(self, kernel: np.ndarray) -> None:
        """Holds the zeros of this kernel. A file has none of them: its weights do."""
        self.mask = tf.constant(kernel != 0, tf.float32)

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        return w * tf.reshape(self.mask, w.shape)  # a Dense's kernel has become a 1x1 convolution's


class KeepClusters(tf_keras.constraints.Constraint):
    """Holds a clustered kernel's shared values: after every step each cluster moves as one, by the mean of its steps.

    Args:
        kernel: The clustered kernel.
        keep_zeros: Whether the weights that are zero stay so.
    """

    def __init__(self, kernel: np.ndarray | None = None, keep_zeros: bool = True) -> None:
        self.keep_zeros = keep_zeros
        if kernel is not None:
            self.hold(kernel)

    def hold(self, kernel: np.ndarray) -> None:
        """Holds the clusters of this kernel. A file has none of them: its weights do."""
        values, firsts, places = np.unique(kernel, return_index=True, return_inverse=True)
        self.firsts, self.places = tf.constant(firsts, tf.int32), tf.constant(places.reshape(-1), tf.int32)
        self.free = tf.constant((values != 0) | (not self.keep_zeros), tf.float32)

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(w, [-1])
        # Relative to one weight of each cluster: a mean of thousands of equal float32 numbers is another number, and
        # step after step they would drift away.
        anchors = tf.gather(flat, self.firsts)
        moves = tf.math.unsorted_segment_mean(flat - tf.gather(anchors, self.places), self.places, len(self.free))
        means = (anchors + moves) * self.free
        return tf.reshape(tf.gather(means, self.places), w.shape)  # a Dense's kernel has become a 1x1 convolution's

    def get_config(self) -> dict[str, Any]:
        return {"keep_zeros": self.keep_zeros}
