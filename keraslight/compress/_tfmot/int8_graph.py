"""The int8-friendly float twin of a graph: a list of steps, each of which the int8 file can run."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from keraslight import layers as own
from keraslight.compress import _registered
from keraslight.compress._tfmot import transcribe, twin_layers, twins
from keraslight.compress._tfmot.int8_steps import Step, kind_of
from keraslight.compress._tfmot.quantizers import KeepClusters, KeepZeros
from keraslight.errors import CompressionError, KeraslightError, UnmappableLayerError
from keraslight.graph import Call, Graph, Tensor, graph_name, is_clustered, is_frozen, run
from keraslight.graph.kinds import JUMPS, exact_kind
from keraslight.rewrite import cut, is_cut
from keraslight.rewrite.xnnpack import average_kernel, is_convolution, needs_float

_KERNELS = (
    *(keras.layers.Conv2D, own.GroupedConv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense),
    *(keras.layers.SeparableConv2D, keras.layers.Conv2DTranspose),
)


STAND_IN_FOR_ZERO = np.float32(1e-12)  # of a factor per channel
Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Window = tuple[slice, slice]


def _told_apart(offsets: np.ndarray) -> np.ndarray:
    """Offsets per channel, of which one differs in the last digits if all were the same number.

    The converter takes a constant of equal values for a single one, and rounds it with the first channel's scale.
    """
    if offsets.ndim != 1 or offsets.size < 2 or offsets[0] == 0 or (offsets != offsets[0]).any():
        return offsets
    return np.concatenate([offsets[:-1], offsets[-1:] * np.float32(1 + 1e-6)])


class Assembled:
    """A kernel whose pieces are variables.

    Args:
        start: Values of the kernel where there is no piece.
        windows: Rows and columns of each piece.
        variables: The pieces.
    """

    def __init__(self, start: np.ndarray, windows: list[Window], variables: list[tf.Variable]):
        self.start, self.windows, self.variables = start, windows, variables

    def numpy(self) -> np.ndarray:
        """The kernel."""
        kernel = self.start.copy()
        for window, variable in zip(self.windows, self.variables, strict=True):
            kernel[window] = variable.numpy()
        return kernel


_CONSTANT_AFFINE = (keras.layers.Rescaling, keras.layers.Normalization, own.ImageNormalization)


def _is_per_channel(layer: Any) -> bool:
    """Whether a constant `x * scale + offset` has one number for all or one for each channel, not for each pixel."""
    if isinstance(layer, keras.layers.Normalization):
        return tuple(layer.axis) in ((), (-1,), (3,))
    return max(np.ndim(layer.scale), np.ndim(layer.offset)) < 2


class Transcriber:
    """Builds the int8-friendly float twin of a graph and records every step.

    Args:
        graph: The Keras 3 model's graph.
        keep_zeros: Whether kernels with zeros get a constraint that keeps them.
        keep_clusters: Whether clustered kernels get one that keeps their number of values.
        batch_norm_steps: Training steps in which batch norms follow the batches' statistics.

    Attributes:
        steps: All calls, in order.
        inputs, outputs: The twin's tensors, in the model's structure.
        variables: Keras 3 layer -> the variables that stand for its weights, in their order.
    """

    def __init__(self, graph: Graph, keep_zeros: bool, keep_clusters: bool, batch_norm_steps: int):
        self.graph, self.batch_norm_steps = graph, batch_norm_steps
        self.keep_zeros, self.keep_clusters = keep_zeros, keep_clusters
        self.steps: list[Step] = []
        self.variables: dict[str, list[tf.Variable]] = {}
        self.names = {graph_name(layer.name) for layer in graph.input_layers} | set(graph.layers())
        self.made: dict[str, tf_keras.layers.Layer] = {}
        self.called: set[str] = set()
        self.parts: dict[Tensor, list[Any]] = {}  # for a batch norm to fold into: what sums up to a tensor of the graph
        self.identities = 0
        self.readers = graph.readers()
        self.inputs = transcribe.inputs_of(graph)
        self.outputs = run(graph, self.inputs, self.checked_call)

    def checked_call(self, call: Call, args: Args, kwargs: Kwargs) -> Any:
        """`call`, whose errors name the layer."""
        try:
            return self.call(call, args, kwargs)
        except KeraslightError:
            raise
        except Exception as error:
            raise CompressionError(
                "Every layer of a model to quantize must run on TensorFlow's symbolic tensors. Received: layer "
                f"{call.name!r}, which raised {type(error).__name__}: {error}"
            ) from error

    def emit(
        self,
        layer: tf_keras.layers.Layer,
        kind: str,
        call: Call,
        args: Args,
        kwargs: Kwargs | None = None,
        weights: list[np.ndarray] | None = None,
    ) -> Any:
        """Calls a tf_keras layer, gives it weights and records the step."""
        output = layer(*args, **(kwargs or {}))
        if weights:
            layer.set_weights([*weights, *layer.get_weights()[len(weights) :]])
            for offset in (getattr(layer, "bias", None), getattr(layer, "beta", None)):
                if isinstance(offset, tf.Variable):
                    offset.assign(_told_apart(offset.numpy()))
        self.steps.append(Step(layer, kind, call.name, args, kwargs or {}, output))
        return output

    def unique(self, name: str) -> str:
        """`name`, or `name_2`, ... where it is taken."""
        candidate, n = name, 2
        while candidate in self.names:
            candidate, n = f"{name}_{n}", n + 1
        self.names.add(candidate)
        return candidate

    def name_of(self, call: Call) -> str:
        """The layer's own name for its first call, new names for others: layers without weights can be copied."""
        if call.name not in self.called:
            self.called.add(call.name)
            return call.name
        return self.unique(f"{call.name}_call")

    def call(self, call: Call, args: Args, kwargs: Kwargs) -> Any:
        """One Keras 3 call -> one or more steps; returns the last one's output."""
        layer = call.layer
        if type(layer) not in _registered.TWINS:
            if type(layer) is own.MaxUnpool2D:
                raise UnmappableLayerError(
                    "A model to quantize must not have MaxUnpool2D layers: the converter refuses their scatter between "
                    f"int8 tensors. Received: layer {layer.name!r}. Use UpSampling2D, or convert the model in float."
                )
            if type(layer) in _CONSTANT_AFFINE and len(args[0].shape) == 4 and _is_per_channel(layer):
                return self.constant_affine(call, args)
            if type(layer) is keras.layers.Add and len(args[0]) > 2:
                return self.binary_adds(call, args)
            if twins.is_scaled_add(layer) and len(args[0][1].shape) == 4:
                return self.scaled_add(call, *args[0])
            if type(layer) in _KERNELS:
                return self.convolution(call, args, kwargs)
            if type(layer) is keras.layers.AveragePooling2D and is_convolution(layer):
                return self.average_pooling(call, args)
            if twins.activation_of(layer) is None and twins.is_operation(layer):
                made, tensors = twin_layers.operation_call(layer, self.name_of(call), args, kwargs)
                return self.emit(made, kind_of(made), call, (tensors,))
        shared = call.name in self.made
        if not shared:
            self.made[call.name] = self.twin(layer, call.name)
        made = self.made[call.name]
        kind = kind_of(made)
        parts = self.parts.get(call.inputs[0]) if call.inputs else None
        fuses_into = {"affine": ("conv", "affine"), "relu": ("conv", "affine", "sum")}.get(kind)
        lone = fuses_into is not None and parts is None and len(args[0].shape) == 4
        if lone and not self.follows(args[0], call.inputs[0], fuses_into or ()):
            args = (self.identity(call, args[0]), *args[1:])
        runs_source = isinstance(made, twin_layers.KerasLayer)
        constant = isinstance(made, tf_keras.layers.Normalization)  # its statistics are part of its configuration
        copied = getattr(layer, "weights", ()) and not (shared or runs_source or constant)
        weights = layer.get_weights() if copied else None
        if weights and kind == "affine" and getattr(layer, "gamma", None) is not None:
            # The file folds the factors into a kernel's scales, which must not be 0.
            weights[0] = np.where(weights[0] == 0, STAND_IN_FOR_ZERO, weights[0])
        output = self.emit(made, kind, call, args, kwargs, weights)
        if parts is not None:  # it folds into each of the pieces, its offset into the last
            scales = [twin_layers.ScaleOf(made, name=self.unique(f"{call.name}_scale")) for _ in parts[:-1]]
            scaled = [self.emit(scale, "affine", call, (part,)) for scale, part in zip(scales, parts, strict=False)]
            output = self.sum_of([*scaled, output], call)
        if runs_source:
            self.variables[call.name] = made.variables_of(layer.weights)
        elif weights:
            self.variables[call.name] = made.weights[: len(weights)]
        return output

    def twin(self, layer: Any, name: str) -> tf_keras.layers.Layer:
        """The twin of a layer without a kernel."""
        activation = twins.activation_of(layer)
        if activation is not None and activation not in JUMPS and type(layer) not in _registered.TWINS:
            return twins.activation_twin(activation, name, quantized=True)
        own = type(layer) not in _registered.TWINS and not twins.is_operation(layer)
        if own and (type(layer) is keras.layers.LayerNormalization or needs_float(layer)):
            # tf_keras' layer normalization is a batch norm with an int8 mean, its average pooling an int8 one.
            return twin_layers.KerasLayer(layer, name=name, trainable=layer.trainable)
        made = twins.twin(layer, name)
        if self.batch_norm_steps and type(made) is tf_keras.layers.BatchNormalization:
            settling = {**made.get_config(), "steps": self.batch_norm_steps}
            return twin_layers.SettlingBatchNormalization.from_config(settling)
        return made

    def follows(self, tensor: Any, source: Tensor, kinds: tuple[str, ...] = ("conv", "affine")) -> bool:
        """Whether what reads `tensor`, in the graph `source`, can fold into the step of one of these kinds before."""
        before = next((step for step in reversed(self.steps) if step.output is tensor), None)
        return before is not None and before.kind in kinds and len(self.readers[source]) == 1

    def identity(self, call: Call, tensor: Any) -> Any:
        """A 1x1 depthwise convolution with ones, for a lone batch norm or ReLU to fold into.

        Int8's own RELU takes 3 ns per number, half of an Xception's time.

        A millionth more than one, and in each of them another: of several with one and the same kernel the converter
        keeps a single constant, and the batch norm that it folds into it then stands for all of them. (A trained
        RepVGG went from 99% to 11% that way.)
        """
        self.identities += 1
        name = self.unique(f"{call.name}_identity")
        layer = tf_keras.layers.DepthwiseConv2D(1, use_bias=False, trainable=False, name=name)
        kernel = np.full((1, 1, tensor.shape[-1], 1), 1 + self.identities * 2**-20)
        return self.emit(layer, "conv", call, (tensor,), weights=[kernel])

    def constant_affine(self, call: Call, args: Args) -> Any:
        """`x * scale + offset` per channel -> a constant 1x1 depthwise convolution, which is int8 in the file."""
        layer, channels = call.layer, args[0].shape[-1]
        if isinstance(layer, keras.layers.Rescaling):  # or our ImageNormalization, which is one
            scale, offset = layer.scale, layer.offset
        else:
            mean = np.asarray(layer.mean).ravel()
            std = np.maximum(np.sqrt(np.asarray(layer.variance).ravel()), keras.config.epsilon())
            scale, offset = (std, mean) if layer.invert else (1 / std, -mean / std)
        made = tf_keras.layers.DepthwiseConv2D(1, trainable=False, name=self.name_of(call))
        kernel, bias = (np.broadcast_to(np.asarray(v, np.float32), (channels,)) for v in (scale, offset))
        return self.emit(made, "conv", call, args, weights=[kernel.reshape(1, 1, channels, 1), bias])

    def average_pooling(self, call: Call, args: Args) -> Any:
        """Average pooling -> a constant depthwise convolution: XNNPACK has no int8 pooling except of maxima."""
        layer, channels = call.layer, args[0].shape[-1]
        made = tf_keras.layers.DepthwiseConv2D(
            layer.pool_size, strides=layer.strides, use_bias=False, trainable=False, name=self.name_of(call)
        )
        return self.emit(made, "conv", call, args, weights=[average_kernel(layer.pool_size, channels)])

    def binary_adds(self, call: Call, args: Args) -> Any:
        """a + b + c -> (a + b) + c: the int8 ADD takes two."""
        total = args[0][0]
        for n, other in enumerate(args[0][1:], start=2):
            name = self.name_of(call) if n == len(args[0]) else self.unique(f"{call.name}_{n}")
            total = self.emit(tf_keras.layers.Add(name=name), "sum", call, ([total, other],))
        return total

    def scaled_add(self, call: Call, x: Any, y: Any) -> Any:
        """x + scale * y -> a layer scale with equal factors, which folds into the convolution before it, and an ADD."""
        name = self.name_of(call)
        if not self.follows(y, call.inputs[1]):
            y = self.identity(call, y)
        scale = twin_layers.ChannelScale(trainable=False, name=self.unique(f"{name}_scale"))
        factors = np.full(y.shape[-1], call.layer.scale, np.float32)
        y = self.emit(scale, "affine", call, (y,), weights=[factors])
        return self.emit(tf_keras.layers.Add(name=name), "sum", call, ([x, y],))

    def convolution(self, call: Call, args: Args, kwargs: Kwargs) -> Any:
        """A layer with a kernel, its activation split off."""
        layer = call.layer
        kind = twins.activation_name(layer)
        if isinstance(layer, keras.layers.SeparableConv2D):
            output = self.separable(call, args)
        elif self.in_pieces(layer, layer.kernel, args[0]):
            bias = layer.bias if layer.use_bias else None
            parts, self.variables[call.name] = self.pieces(call, args[0], layer.kernel, bias)
            if kind == "linear" and self.feeds_batch_norm(call):
                self.parts[call.outputs[0]] = parts
                return parts[-1]
            output = self.sum_of(parts, call)
        else:
            weights = None
            if call.name not in self.made:
                weights = layer.get_weights()
                if isinstance(layer, keras.layers.Dense) and len(args[0].shape) == 4:
                    made = tf_keras.layers.Conv2D(
                        layer.units, 1, use_bias=layer.use_bias, trainable=not is_frozen(layer), name=call.name,
                        kernel_constraint=self.constraint(layer.kernel),
                    )  # fmt: skip
                    weights[0] = weights[0][None, None]  # a Dense on maps is a 1x1 convolution, which is int8
                else:
                    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                    constraint = "depthwise_constraint" if depthwise else "kernel_constraint"
                    changes = {"activation": "linear", constraint: self.constraint(layer.kernel)}
                    made = twins.twin(layer, call.name, **changes)
                self.made[call.name] = made
            made = self.made[call.name]
            output = self.emit(made, "conv", call, args, kwargs, weights)
            if weights:
                self.variables[call.name] = made.weights
        if kind != "linear":
            activation = twins.activation_twin(kind, self.unique(f"{call.name}_{kind}"), quantized=True)
            output = self.emit(activation, kind_of(activation), call, (output,))
        return output

    def separable(self, call: Call, args: Args) -> Any:
        """A depthwise and a 1x1 convolution, as the file has them."""
        layer = call.layer
        first, second = f"{call.name} depthwise", call.name
        depthwise, *rest = layer.get_weights()
        weights = None
        if self.in_pieces(layer, depthwise, args[0]):
            parts, variables = self.pieces(call, args[0], depthwise, None)
            output = self.sum_of(parts, call)
        else:
            if first not in self.made:
                weights = [depthwise]
                self.made[first] = tf_keras.layers.DepthwiseConv2D(
                    layer.kernel_size,
                    strides=layer.strides,
                    padding=layer.padding,
                    dilation_rate=layer.dilation_rate,
                    depth_multiplier=layer.depth_multiplier,
                    use_bias=False,
                    trainable=not is_frozen(layer),
                    depthwise_constraint=self.constraint(depthwise),
                    name=self.unique(f"{call.name}_depthwise"),
                )
            output = self.emit(self.made[first], "conv", call, args, weights=weights)
            variables = self.made[first].weights
        weights = None
        if second not in self.made:
            weights = rest
            self.made[second] = tf_keras.layers.Conv2D(
                layer.filters, 1, use_bias=layer.use_bias, trainable=not is_frozen(layer), name=call.name,
                kernel_constraint=self.constraint(layer.pointwise_kernel),
            )  # fmt: skip
        output = self.emit(self.made[second], "conv", call, (output,), weights=weights)
        self.variables[call.name] = [*variables, *self.made[second].weights]
        return output

    def in_pieces(self, layer: Any, kernel: Any, x: Any) -> bool:
        """Whether the depthwise convolution of `x` goes in pieces; one whose clusters have to stay does not."""
        return is_cut(layer, x) and not isinstance(self.constraint(kernel), KeepClusters)

    def pieces(self, call: Call, x: Any, kernel: Any, bias: Any) -> tuple[list[Any], list[Any]]:
        """A depthwise convolution with a large kernel, as smaller ones to sum up: (outputs, variables)."""
        layer, kernel = call.layer, np.asarray(kernel)
        pieces = cut(x.shape[1:3], kernel, layer.strides, layer.padding, zeros=not self.keep_zeros)
        height, width = (n + sum(padding) for n, padding in zip(x.shape[1:3], pieces.padding, strict=True))
        if np.any(pieces.padding):
            pad = tf_keras.layers.ZeroPadding2D(pieces.padding, name=self.unique(f"{call.name}_pad"))
            x = self.emit(pad, "silent", call, (x,))
        parts, made = [], []
        for n, (taps, (rows, columns)) in enumerate(zip(pieces.kernels, pieces.maps, strict=True)):
            ends = ((rows.start, height - rows.stop), (columns.start, width - columns.stop))
            crop = tf_keras.layers.Cropping2D(ends, name=self.unique(f"{call.name}_maps"))
            read = self.emit(crop, "silent", call, (x,))
            key, weights = f"{call.name} piece {n}", None
            if key not in self.made:
                last = n == len(pieces.kernels) - 1
                weights = [kernel[taps], *([np.asarray(bias)] if last and bias is not None else [])]
                self.made[key] = tf_keras.layers.DepthwiseConv2D(
                    kernel[taps].shape[:2],
                    strides=layer.strides,
                    depth_multiplier=layer.depth_multiplier,
                    use_bias=len(weights) > 1,
                    trainable=not is_frozen(layer),
                    depthwise_constraint=self.constraint(kernel[taps]),
                    name=self.unique(f"{call.name}_piece"),
                )
            made.append(self.made[key])
            parts.append(self.emit(self.made[key], "conv", call, (read,), weights=weights))
        whole = Assembled(kernel, pieces.kernels, [piece.depthwise_kernel for piece in made])
        return parts, [whole, *made[-1].weights[1:]]

    def feeds_batch_norm(self, call: Call) -> bool:
        """Whether a batch norm with its own statistics, and nothing else, reads what a layer makes."""
        readers = [reader for tensor in call.outputs for reader in self.readers[tensor]]
        if len(readers) != 1 or readers[0] is None or self.batch_norm_steps:
            return False
        norm = readers[0].layer
        return exact_kind(type(norm)).batch_norm and norm.axis in (-1, 3)

    def sum_of(self, parts: list[Any], call: Call) -> Any:
        """The sum of the pieces of a convolution."""
        total = parts[0]
        for part in parts[1:]:
            total = self.emit(tf_keras.layers.Add(name=self.unique(f"{call.name}_sum")), "sum", call, ([total, part],))
        return total

    def constraint(self, kernel: Any) -> KeepZeros | KeepClusters | None:
        """What holds a pruned kernel's zeros and a clustered one's shared values."""
        kernel = np.asarray(kernel)
        if self.keep_clusters and is_clustered(kernel):
            return KeepClusters(kernel, self.keep_zeros)
        return KeepZeros(kernel) if self.keep_zeros and not kernel.all() else None
