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

from keraslight import _batches as _data, _tasks
from keraslight._notebook import Report
from keraslight.compress._fine_tune import check_epochs, labelled
from keraslight.compress._patterns import chosen
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph import (
    check_finite,
    copy as copy_model,
    final_activation,
    is_quantization_aware,
    own_preprocessing,
    read,
    remember_task,
    takes_pixels,
    without_auxiliary,
)
from keraslight.rewrite import float_inputs, joined_slices

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
    task: str | None = None,
) -> tf_keras.Model:
    """Makes a tf_keras model that trains with int8 rounding in its forward pass.

    The rounding is that of the int8 file: kernels in 8 bits, symmetric, with one range per output channel (one for all
    of a `Dense` or `Conv2DTranspose`, whose kernels the converter can't turn around by channel); activations in 8 bits
    with one range per tensor, and only for tensors that exist in the file (convolution, batch norm and ReLU
    become one operator). An input that feeds a layer named `preprocessing` takes raw pixels 0..255, and the
    normalization is part of the int8 graph. Layers without an int8 form in TFLite are no error: they stay float between
    quantized tensors, and `quantization_report` lists them with the reason.

    The model is compiled (Adam, the loss of its task with integer labels for `softmax`, accuracy) and trains with its
    own `fit`, whose optimizers and callbacks must come from tf_keras. Without a `task` where one is needed, the model
    must be compiled again before it can be trained. `to_litert(..., quantization="int8")` converts it.

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
        calibration_data: Images that set the initial range of every activation, in any form that `prune` takes, with or
            without labels; four batches of 32 are used. Without them ranges start at -6..6 (0..6 after a ReLU), and
            training needs a few hundred steps to adapt them.
        learning_rate: Learning rate of the compiled optimizer: a float or a tf_keras schedule.
        task: What the outputs are, as in `prune`.

    Returns:
        The tf_keras model. Layers with a quantizer are called `quant_<name>`.

    Raises:
        UnmappableLayerError: A layer has no tf_keras twin.
        InvalidArgumentError: A pattern of `skip` matches no layer, `batch_norm_steps` is negative, or `task` is unknown
            or does not fit the model.
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
        MissingDependencyError: tensorflow-model-optimization or tf_keras is not installed.
    """
    model = without_auxiliary(model)
    try:
        head = _tasks.read_head(model, task)
        reason = ""
    except InvalidArgumentError as error:
        if task is not None:
            raise
        head, reason = None, str(error)
    quantized = _quantized(
        model,
        skip=skip,
        preserve_sparsity=preserve_sparsity,
        preserve_clusters=preserve_clusters,
        batch_norm_steps=batch_norm_steps,
        calibration_data=calibration_data,
    )
    from keraslight.compress._tfmot import quantize

    if head is None:
        quantize.compile_without_loss(quantized, learning_rate, reason)
    else:
        _compile(quantized, learning_rate, head, rows=False)
    return quantized


def _compile(quantized: tf_keras.Model, learning_rate: Any, head: _tasks.Head, *, rows: bool) -> None:
    from keraslight.compress._tfmot import quantize

    quantize.compile_for(quantized, learning_rate, head, rows=rows)
    remember_task(quantized, head.task)


def _quantized(
    model: keras.Model,
    *,
    skip: str | Sequence[str],
    preserve_sparsity: bool,
    preserve_clusters: bool,
    batch_norm_steps: int,
    calibration_data: Any,
) -> tf_keras.Model:
    """The model that `quantize_aware` returns, not compiled."""
    if batch_norm_steps < 0:
        raise InvalidArgumentError(f"`batch_norm_steps` must be at least 0. Received: {batch_norm_steps}.")
    graph = read(model)
    check_finite(graph.layers())
    names = list(graph.layers())
    skip = tuple(chosen(names, skip, "Each pattern of `skip` must match a layer's name", names))
    calibration = None if calibration_data is None else _calibration_batches(calibration_data, model)
    from keraslight.compress._tfmot import quantize

    quantized = quantize.quantize(
        joined_slices(float_inputs(graph)),
        model.name,
        pixels=takes_pixels(graph, calibration or ()),
        skip=skip,
        keep_zeros=preserve_sparsity,
        keep_clusters=preserve_clusters,
        batch_norm_steps=batch_norm_steps,
        calibration=calibration,
    )
    if len(model.outputs) == 1:
        quantized.keraslight_activation = final_activation(model)  # wrappers hide it
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
    task: str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int | str = "auto",
) -> tf_keras.Model:
    """Makes a model quantization-aware, sets its ranges from the data and trains it.

    Uses Adam with a cosine-decayed learning rate. `seed` sets the global seeds of Python, NumPy and TensorFlow.

    Args:
        model: A trained functional or sequential model. It is not changed. Auxiliary heads are left out.
        data: Images and labels, in any form that `prune` takes.
        epochs: Passes over `data`, at least 1.
        validation_data: As `data`, or None. It requires tracing a second graph.
        learning_rate: Initial (highest) learning rate.
        skip, preserve_sparsity, preserve_clusters, batch_norm_steps: As in `quantize_aware`.
        callbacks: tf_keras callbacks.
        task: What the outputs are, as in `prune`.
        batch_size: Images per batch if `data` is arrays.
        seed: Seed of the shuffling and dropout.
        verbose: As in `fit`.

    Returns:
        The trained quantization-aware tf_keras model, ready for `to_litert`.

    Raises:
        InvalidArgumentError: `epochs`, `data` or `callbacks` can't be used, the task must be said, the labels don't fit
            it, or as `quantize_aware`.
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
    model = without_auxiliary(model)
    train = _data.counted(_data.batches(data, batch_size, seed))
    validation = None
    if validation_data is not None:
        validation = _data.batches(validation_data, batch_size, name="validation_data")
    head = _tasks.read_head(model, task)
    rows = _tasks.check_training(head, model, labelled(data, train), labelled(validation_data, validation))
    steps = epochs * _data.steps_in(train)
    from keraslight.compress._tfmot import quantize

    quantize.set_seed(seed)
    quantized = _quantized(
        model,
        skip=skip,
        preserve_sparsity=preserve_sparsity,
        preserve_clusters=preserve_clusters,
        batch_norm_steps=batch_norm_steps,
        calibration_data=train,
    )
    _compile(quantized, quantize.cosine(learning_rate, steps), head, rows=rows)
    with _tasks.labels_in_range():
        quantized.fit(
            train,
            epochs=epochs,
            validation_data=validation,
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
    from keraslight.compress._tfmot.int8_graph import STAND_IN_FOR_ZERO

    origin = _origin(quantized)
    copy = copy_model(without_auxiliary(model))  # weights without a twin (a Normalization's statistics) stay
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
            weight.assign(np.where(value == STAND_IN_FOR_ZERO, 0, value).reshape(weight.shape))
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


def _calibration_batches(data: Any, model: keras.Model) -> list[np.ndarray]:
    rank = len(model.inputs[0].shape)
    found = _data.image_batches(data, 32, rank=rank, name="calibration_data")
    batches = list(itertools.islice(found, _CALIBRATION_BATCHES))
    for batch in batches:
        _data.check_images(batch, model, "calibration_data")
    return batches
