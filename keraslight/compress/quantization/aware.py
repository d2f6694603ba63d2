"""Quantization-aware training of Keras 3 models, in tf_keras."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keraslight import _batches as _data
from keraslight._notebook import Report
from keraslight.compress._fine_tune import check_epochs
from keraslight.compress._patterns import chosen
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph import copy as copy_model, read
from keraslight.graph.ends import final_activation, is_quantization_aware, own_preprocessing
from keraslight.rewrite import joined_slices

if TYPE_CHECKING:
    import tf_keras

    from keraslight.compress._tfmot.saved import Origin

_CALIBRATION_BATCHES = 4


@dataclasses.dataclass(frozen=True)
class LayerPrecision:
    """Precision of a layer in the int8 file.

    Attributes:
        name: Name of the Keras 3 layer.
        kind: Class of the layer.
        precision: `"int8"` or `"float"`.
        reason: Why the layer is float; empty for int8.
    """

    name: str
    kind: str
    precision: str
    reason: str


@dataclasses.dataclass(frozen=True)
class QuantizationReport(Report):
    """Precision of every layer of a quantization-aware model; `str()` is a summary that names the float layers."""

    layers: tuple[LayerPrecision, ...]

    @property
    def floats(self) -> dict[str, str]:
        """Name of each float layer -> why it is float."""
        return {layer.name: layer.reason for layer in self.layers if layer.precision == "float"}

    def __str__(self) -> str:
        floats = [layer for layer in self.layers if layer.precision == "float"]
        lines = [f"{len(self.layers) - len(floats)} of {len(self.layers)} layers in int8, {len(floats)} in float"]
        return "\n".join([*lines, *(f"  {layer.name} ({layer.kind}): {layer.reason}" for layer in floats)])


def quantize_aware(
    model: keras.Model,
    *,
    skip: str | Sequence[str] = (),
    preserve_sparsity: bool = True,
    preserve_clusters: bool = True,
    batch_norm_steps: int = 0,
    calibration_data: Any = None,
    learning_rate: Any = 1e-4,
) -> tf_keras.Model:
    """Makes a tf_keras model that trains with int8 rounding in its forward pass.

    The rounding is that of the int8 file: kernels in 8 bits, symmetric, with one range per output channel (one for all
    of a `Dense` or `Conv2DTranspose`, whose kernels the converter can't turn around by channel); activations in 8 bits
    with one range per tensor, and only for tensors that exist in the file (convolution, batch norm and ReLU
    become one operator). An input that feeds a layer named `preprocessing` takes raw pixels 0..255, and the
    normalization is part of the int8 graph. Layers without an int8 form in TFLite are no error: they stay float between
    quantized tensors, and `quantization_report` lists them with the reason.

    The model is compiled (Adam, cross-entropy of integer labels, accuracy) and trains with its own `fit`, whose
    optimizers and callbacks must come from tf_keras. `to_litert(..., quantization="int8")` converts it.

    Source of the maths: Jacob et al., https://arxiv.org/abs/1712.05877, section 3.

    Args:
        model: A trained functional or sequential Keras 3 model. It is not changed.
        skip: Name patterns (`fnmatch`) of layers that stay float.
        preserve_sparsity: Keep the zeros of pruned kernels through training, whatever the training loop.
        preserve_clusters: Keep the number of distinct values of clustered kernels (at most 256, each used at least
            twice on average) through training. They get one range for the whole kernel, so that the file has as few
            distinct bytes; not where a batch norm follows, which the file folds into each output channel.
        batch_norm_steps: Training steps in which batch norms normalize by the batch and update their statistics.
            Afterwards, or from the start at 0, the moving statistics are frozen, as in the file; gamma and beta keep
            training.
        calibration_data: Inputs (or batches of inputs and labels) that set the initial range of every activation; four
            batches are used. Without them ranges start at -6..6 (0..6 after a ReLU), and training needs a few hundred
            steps to adapt them.
        learning_rate: Learning rate of the compiled optimizer: a float or a tf_keras schedule.

    Returns:
        The tf_keras model. Layers with a quantizer are called `quant_<name>`.

    Raises:
        UnmappableLayerError: A layer has no tf_keras twin.
        InvalidArgumentError: A pattern of `skip` matches no layer, or `batch_norm_steps` is negative.
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
        MissingDependencyError: tensorflow-model-optimization or tf_keras is not installed.
    """
    if batch_norm_steps < 0:
        raise InvalidArgumentError(f"`batch_norm_steps` must be at least 0. Received: {batch_norm_steps}.")
    graph = joined_slices(read(model))
    names = list(graph.layers())
    skip = tuple(chosen(names, skip, "Each pattern of `skip` must match a layer's name", names))
    calibration = None if calibration_data is None else _calibration_batches(calibration_data)
    from keraslight.compress._tfmot import quantize

    quantized = quantize.quantize(
        graph,
        model.name,
        skip=skip,
        keep_zeros=preserve_sparsity,
        keep_clusters=preserve_clusters,
        batch_norm_steps=batch_norm_steps,
        calibration=calibration,
    )
    quantize.compile_classifier(quantized, learning_rate, from_logits=final_activation(model) != "softmax")
    if (own := own_preprocessing(model)) is not None:
        quantized.preprocessing = own  # the twin of its layer is a plain convolution; export needs this
    return quantized


def train_quantized(
    model: keras.Model,
    data: Any,
    *,
    epochs: int = 3,
    validation_data: Any = None,
    learning_rate: float = 1e-4,
    skip: str | Sequence[str] = (),
    preserve_sparsity: bool = True,
    preserve_clusters: bool = True,
    batch_norm_steps: int = 0,
    callbacks: Iterable[Any] = (),
    batch_size: int = 32,
    seed: int = 0,
    verbose: int | str = "auto",
) -> tf_keras.Model:
    """Makes a model quantization-aware, sets its ranges from the data and trains it.

    Uses Adam with a cosine-decayed learning rate. `seed` sets the global seeds of Python, NumPy and TensorFlow.

    Args:
        model: A trained functional or sequential image classifier. It is not changed.
        data: A tf.data.Dataset of (images, integer labels) batches, or a pair of arrays, which are shuffled.
        epochs: Passes over `data`, at least 1.
        validation_data: As `data`, or None. It requires tracing a second graph.
        learning_rate: Initial (highest) learning rate.
        skip, preserve_sparsity, preserve_clusters, batch_norm_steps: As in `quantize_aware`.
        callbacks: tf_keras callbacks.
        batch_size: Images per batch if `data` is arrays.
        seed: Seed of the shuffling and dropout.
        verbose: As in `fit`.

    Returns:
        The trained quantization-aware tf_keras model, ready for `to_litert`.

    Raises:
        InvalidArgumentError: `epochs`, `data` or `callbacks` can't be used, or as `quantize_aware`.
        UnmappableLayerError, CompressionError, MissingDependencyError: As `quantize_aware`.
    """
    check_epochs(epochs)
    callbacks = list(callbacks)
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.Callback):
            raise InvalidArgumentError(
                "`callbacks` must be those of tf_keras, whose `fit` trains the model. "
                f"Received: {type(callback).__name__} of Keras 3."
            )
    train = _data.batches(data, batch_size, seed)
    steps = epochs * _data.steps_in(train)
    from keraslight.compress._tfmot import quantize

    quantize.set_seed(seed)
    quantized = quantize_aware(
        model,
        skip=skip,
        preserve_sparsity=preserve_sparsity,
        preserve_clusters=preserve_clusters,
        batch_norm_steps=batch_norm_steps,
        calibration_data=train,
        learning_rate=quantize.cosine(learning_rate, steps),
    )
    quantized.fit(
        train,
        epochs=epochs,
        validation_data=None if validation_data is None else _data.batches(validation_data, batch_size),
        callbacks=callbacks,
        verbose=verbose,
    )
    return quantized


def load_quantized(path: str | os.PathLike[str]) -> tf_keras.Model:
    """Loads a quantization-aware model that its own `save` wrote, compiled as it was, to train on or to convert.

    A file of a model from `quantize_aware` also holds where its layers come from, so that `quantization_report` and
    `quantized_weights_to_keras` take the loaded model.

    Args:
        path: A .keras or .h5 file.

    Raises:
        InvalidArgumentError: `path` is not a file, or not one of a quantization-aware model.
        CompressionError: A class of the user's own in the file is not registered with tf_keras.
        MissingDependencyError: tensorflow-model-optimization or tf_keras is not installed.
    """
    path = Path(path)
    rule = "`path` must be a .keras or .h5 file of a quantization-aware model."
    if not path.is_file():
        raise InvalidArgumentError(f"{rule} Received: {str(path)!r}, which is not a file.")
    from keraslight.compress._tfmot import saved

    try:
        model = saved.load(path)
    except (ValueError, TypeError, OSError, KeyError, AttributeError, ImportError) as error:
        raise CompressionError(
            f"{rule} Own classes in it must be registered by `@tf_keras.utils.register_keras_serializable()`. "
            f"Received: {str(path)!r}, of which tf_keras says: {error}"
        ) from error
    if not is_quantization_aware(model):
        raise InvalidArgumentError(f"{rule} Received: {str(path)!r} with a {type(model).__name__} without quantizers.")
    return model


def quantized_weights_to_keras(quantized: tf_keras.Model, model: keras.Model) -> keras.Model:
    """Copies the weights of a quantization-aware model into a copy of the Keras 3 model that it was made from.

    The float weights are copied, before rounding. Layers are matched by name.

    Args:
        quantized: Model that `quantize_aware` or `train_quantized` returned.
        model: The Keras 3 model that it was made from. It is not changed.

    Returns:
        A copy of `model` with the trained weights, not compiled.

    Raises:
        CompressionError: The two models do not belong together.
    """
    origin = _origin(quantized)
    copy = copy_model(model)  # weights without a twin (a Normalization's statistics) stay
    for name, layer in read(copy).layers().items():
        if isinstance(layer, keras.layers.Normalization):
            continue
        variables = origin.variables.get(name, ())
        for n, weight in enumerate(getattr(layer, "weights", ())):
            value = variables[n].numpy() if n < len(variables) else np.empty(0)
            # A Dense on maps is trained as a 1x1 convolution.
            if [side for side in value.shape if side != 1] != [side for side in weight.shape if side != 1]:
                raise CompressionError(
                    "The quantized model must have been made from this Keras model. Received: layer "
                    f"{name!r}, whose weight {weight.name!r} of shape {tuple(weight.shape)} has no match."
                )
            weight.assign(value.reshape(weight.shape))
    return copy


def quantization_report(quantized: tf_keras.Model) -> QuantizationReport:
    """Lists which layers the int8 file computes in int8, and which in float and why.

    Args:
        quantized: Model that `quantize_aware` or `train_quantized` returned.

    Raises:
        InvalidArgumentError: `quantized` is another model.
    """
    origin = _origin(quantized)
    return QuantizationReport(
        tuple(
            LayerPrecision(name, kind, "float" if name in origin.floats else "int8", origin.floats.get(name, ""))
            for name, kind in origin.kinds.items()
        )
    )


def _origin(quantized: Any) -> Origin:
    origin = getattr(quantized, "origin", None)
    if origin is None:
        raise InvalidArgumentError(
            "`quantized` must be the model that `quantize_aware` or `train_quantized` returned, or one of "
            f"`load_quantized`. Received: {quantized!r}."
        )
    return origin


def _calibration_batches(data: Any) -> list[Any]:
    import tensorflow as tf

    if isinstance(data, np.ndarray):
        data = tf.data.Dataset.from_tensor_slices(data).batch(32)
    elif isinstance(data, tuple | list) and all(isinstance(part, np.ndarray) for part in data):
        data = _data.batches(data, 32)
    batches = [
        batch[0] if isinstance(batch, tuple) else batch for batch in itertools.islice(data, _CALIBRATION_BATCHES)
    ]
    if not batches:
        raise InvalidArgumentError("`calibration_data` must hold at least one batch. Received: nothing.")
    return batches
