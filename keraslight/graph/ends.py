"""Inspects a model's input preprocessing and output activation.

Nested models are inspected, too: users put augmentation or a normalization in front of a model. Classes are compared by
name, because the names are the same in Keras 3 and in tf_keras, where quantization-aware models live.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keraslight.graph.kinds import base_kind
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import LAYER_NAME, Preprocessing

_KEEP = (
    *("Flatten", "Reshape", "Squeeze", "ExpandDims", "Identity", "Cast", "StopGradient", "ActivityRegularization"),
    *("Dropout", "BaseDropout", "SpatialDropout1D", "AlphaDropout", "GaussianDropout", "GaussianNoise", "DropPath"),
    "QuantizeLayer",
)
"""What gives its input, at inference, another shape or dtype at most."""
_MOVE = ("Permute", "Transpose", "GetItem", "Concatenate", "Stack", "RepeatVector")
_POOL = ("BaseGlobalPooling", "BasePooling", "GlobalPooling1D", "GlobalPooling2D", "Pooling1D", "Pooling2D")
_AVERAGE, _LARGEST = ("Average", "Mean"), ("Maximum", "Minimum", "Max", "Min")
_MIX = ("Dense", "EinsumDense", "CodeDistance", "Matmul", "MatMul", "Dot", "Einsum", "Tensordot", "PointwiseConv2D")
_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
_LINEAR = (
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative", "Sum", "Rescaling", "ScaledAdd"),
    *("BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization", "Normalization"),
    *(
        "UnitNormalization",
        "LayerNorm",
        "Norm",
        "Channels",
        "ChannelScale",
        "Cropping2D",
        "ZeroPadding2D",
        "UpSampling2D",
    ),
)
_WRAPPERS = ("QuantizeWrapper", "SpectralNormalization", "TimeDistributed")
_STOCK = ("keras", "tf_keras", "keraslight", "tensorflow_model_optimization")


@dataclasses.dataclass(frozen=True)
class Ends:
    """What a model takes, and how it was made.

    Attributes:
        preprocessing: Preprocessing of a model that takes raw pixels, if it says so; see `own_preprocessing`.
        takes_pixels: Whether the model normalizes raw pixels itself, if only by a layer's name.
        quantization_aware: Whether it carries tensorflow_model_optimization's quantizers.
    """

    preprocessing: Preprocessing | None
    takes_pixels: bool
    quantization_aware: bool


def read_ends(model: Any) -> Ends:
    """Inspects a functional or sequential model, or a quantization-aware one of tf_keras."""
    own = own_preprocessing(model)
    return Ends(
        own,
        own is not None or any(layer.name == LAYER_NAME for layer in model.layers),
        is_quantization_aware(model),
    )


def own_preprocessing(model: keras.Model) -> Preprocessing | None:
    """What a model that takes raw pixels says of their preprocessing; None for one that takes normalized images."""
    for layer in model.layers:
        if isinstance(layer, ImageNormalization):
            return layer.preprocessing
        if isinstance(layer, keras.Model) and (found := own_preprocessing(layer)) is not None:
            return found
    return getattr(model, "preprocessing", None)  # a quantization-aware twin, whose normalization is a convolution


def without_auxiliary(model: keras.Model) -> keras.Model:
    """The model to deploy: one with auxiliary heads without them, of the same layers; any other as it is.

    A model with auxiliary heads returns a dict, whose `classifier` is the main output.
    """
    outputs = getattr(model, "output", None) if isinstance(model, keras.Model) and model.built else None
    if not isinstance(outputs, dict) or len(outputs) < 2 or "classifier" not in outputs:
        return model
    deployed = keras.Model(model.input, outputs["classifier"], name=model.name)
    remember_task(deployed, remembered_task(model))
    return deployed


def final_activation(model: Any) -> str | None:
    """The name of the activation that makes the output of a functional or sequential model, such as `"softmax"`.

    None if the output is linear in the features: the values of a dense layer, a convolution or the like, also where
    they are added, scaled, normalized or averaged afterwards. What only gives values another shape or dtype is passed
    over; an average of outputs has the activation that they agree on. `"softmax"` is only said of a distribution over
    all units of the output, and `"sigmoid"` of scores from 0 to 1 that are independent of each other. Any other text
    says what the model ends in. Layers and functions of a user are known by what they compute.
    """
    if hasattr(model, "keraslight_activation"):  # a quantization-aware twin
        known: str | None = model.keraslight_activation
        return known
    return _activation_of(model.outputs[0], (), model.outputs[0].shape[-1])


def remembered_task(model: Any) -> str | None:
    """The task that `remember_task` put on a model; see `keraslight._tasks`."""
    task: str | None = getattr(model, "keraslight_task", None)
    return task


def remember_task(model: Any, task: str | None) -> None:
    """Puts a task on a model, so that later calls needn't be told. It is an attribute, which no file keeps."""
    if task is not None:
        model.keraslight_task = task


def is_quantization_aware(model: Any) -> bool:
    """Whether a model carries tensorflow_model_optimization's quantizers."""
    # By name: the classes can't be imported where tensorflow-model-optimization is not installed.
    classes = {base.__name__ for layer in getattr(model, "layers", ()) for base in type(layer).__mro__}
    return not classes.isdisjoint(("QuantizeWrapper", "QuantizeLayer"))


def maker(tensor: Any) -> tuple[Any, list[Any]]:
    """The layer or operation that makes a symbolic tensor, and what it reads for that."""
    history = tensor._keras_history  # as `keras.Model(inputs, outputs)` reads it: public in all but name
    if hasattr(history, "operation"):
        node = history.operation._inbound_nodes[history.node_index]
        return history.operation, node.input_tensors
    return history.layer, keras.tree.flatten(history.layer.get_input_at(history.node_index))  # of tf_keras


def keeps_values(operation: Any) -> bool:
    """Whether a layer or operation only gives its input another shape or, in mixed precision, another dtype."""
    if _is(operation, "Activation"):
        return getattr(operation.activation, "__name__", None) == "linear"
    return _is(operation, *_KEEP) and _is_stock(operation)


def lone_activation(operation: Any) -> str | None:
    """The name of the activation that a layer or an operation of `keras.ops` is, if it is nothing else."""
    if _is(operation, "Activation"):
        return _name(operation.activation)
    if not _is_stock(operation):
        return None
    return next(
        (_snake(name) for name in ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid") if _is(operation, name)), None
    )


def _activation_of(tensor: Any, around: tuple[list[Any], ...], units: int | None) -> str | None:
    """`around`: for each nested model that the tensor lies in, outermost first, what it was called with.

    `units`: the last side of the model's output.
    """
    operation, read = maker(tensor)
    if _is(operation, "Model") and getattr(operation, "outputs", None):
        return _activation_of(operation.outputs[tensor._keras_history.tensor_index], (*around, read), units)
    if _is(operation, "InputLayer"):
        return _activation_of(around[-1][0], around[:-1], units) if around else None
    operation = _inner(operation)
    if keeps_values(operation):
        return _activation_of(read[0], around, units)
    own = lone_activation(operation) or _name(getattr(operation, "activation", None))
    if own is None and not _is_stock(operation):
        own = _computed(operation, read[0].shape, operation.name) if len(read) == 1 else operation.name
        if own == "linear":
            return _activation_of(read[0], around, units)
    if own is not None:
        return own if own not in ("softmax", "log_softmax") or _spans(operation, tensor, units) else f"{own} of groups"
    if _is(operation, *_MIX) or any(hasattr(operation, kernel) for kernel in _KERNELS):
        return None
    names = {_activation_of(part, around, units) for part in read}
    behind = (
        next(iter(names))
        if len(names) == 1
        else " and ".join(sorted(name or "no activation" for name in names)) or None
    )
    if _is(operation, "MergeViews"):  # of a distribution it makes another one, and so on
        return behind
    kind = type(operation).__name__
    if _is(operation, *_MOVE):
        grouped = behind in ("softmax", "log_softmax") and _is(operation, "Concatenate", "Stack") and len(read) > 1
        return f"{kind} of {behind}" if grouped else behind
    if _is(operation, *_POOL, *_AVERAGE, *_LARGEST, "Clip"):
        largest = "Max" in kind or _is(operation, "Minimum", "Min")
        kept = ("sigmoid", "hard_sigmoid") if largest else ("softmax", "sigmoid", "hard_sigmoid")
        if behind in kept or (behind is None and not _is(operation, "Clip")):
            return behind
        maps = not _is(operation, "Clip") and len(read) == 1 and len(read[0].shape) > 2
        return None if maps and behind not in ("softmax", "log_softmax") else f"{kind} of {behind}"
    row = base_kind(type(operation))
    if _is(operation, *_LINEAR) or row.affine is not None or row.channels is not None:
        return None if behind is None else f"{kind} of {behind}"
    return _snake(kind)


def _computed(function: Callable[[Any], Any], shape: tuple[int | None, ...], name: str) -> str:
    """What a function of a user computes: softmax, log_softmax, sigmoid, linear, or its name for something else."""
    values = np.random.default_rng(0).normal(0, 3, [side or 2 for side in shape]).astype("float32")

    def run(inputs: Any) -> Any:
        return np.asarray(keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(inputs))), np.float32)

    try:
        found = run(values)
        same = found.shape == values.shape
        if same and np.allclose(found, values):
            return "linear"
        if (found >= 0).all() and np.allclose(found.sum(-1), 1, atol=0.01):
            return "softmax"
        if same and np.allclose(np.exp(found).sum(-1), 1, atol=0.01) and np.ptp(found - values, axis=-1).max() < 0.01:
            return "log_softmax"
        squashed = [run(np.full_like(values, value)) for value in (-50, 0, 50)] if same else []
        if same and all(np.allclose(each, level, atol=0.01) for each, level in zip(squashed, (0, 0.5, 1), strict=True)):
            return "sigmoid"
    except Exception:  # whatever a user's code raises for such inputs: it remains unknown
        pass
    return name


def _spans(operation: Any, tensor: Any, units: int | None) -> bool:
    """Whether a softmax is over the units of the model's output, not over groups of them or over another axis."""
    axis, rank = getattr(operation, "axis", -1), len(tensor.shape)
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    return axis in (-1, rank - 1) and tensor.shape[-1] == units


def _name(activation: Any) -> str | None:
    if activation is None:
        return None
    name = getattr(activation, "__name__", None) or type(activation).__name__
    module = getattr(activation, "__module__", None) or type(activation).__module__
    name = _snake(name)
    if module.partition(".")[0] not in _STOCK:
        name = _computed(activation, (2, 5), name)
    return None if name == "linear" else name


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _inner(operation: Any) -> Any:
    """What a wrapper, or the twin of a Keras 3 layer in one, runs."""
    operation = operation.layer if _is(operation, *_WRAPPERS) else operation
    return getattr(operation, "source", operation) if _is(operation, "KerasLayer", "KerasOperation") else operation


def _is_stock(operation: Any) -> bool:
    """Whether what an operation computes is code of Keras or of this package; not a `Lambda`, or a user's `call`."""
    kind = next((base for base in type(operation).__mro__ if "call" in vars(base)), type(operation))
    return kind.__module__.partition(".")[0] in _STOCK and not _is(
        operation, "Lambda", "TFSMLayer", "TorchModuleWrapper"
    )


def _is(operation: Any, *names: str) -> bool:
    operation = getattr(operation, "operation", operation)  # tf_keras' twin of a bare operation holds it
    return any(kind.__name__ in names for kind in type(operation).__mro__)
