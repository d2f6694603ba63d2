"""Models by name: the only place that turns a string into a model."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keraslight import _doors

_doors.require("keraslight.zoo", "models", "numpy", "keras")

import keras

import keraslight.architectures  # noqa: F401 (registers every family)
from keraslight import registry
from keraslight.blocks.family import argument_lines
from keraslight.catalogue import ModelInfo as ModelInfo, find, list_models as list_models, model_info as model_info
from keraslight.errors import InvalidArgumentError
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.weights import CHECKPOINTS, load_weights


def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int | None = None,
    classifier_activation: str | None = "softmax",
    input_shape: tuple[int | None, int | None, int] | None = None,
    input_tensor: keras.KerasTensor | None = None,
    pooling: str | None = None,
    features_only: bool = False,
    preprocessing: bool | Preprocessing = False,
    **arguments: Any,
) -> keras.Model:
    """Builds a model by name.

    Args:
        name: Name as listed by `list_models`, or a published id such as `"timm/mobilenetv4_conv_small"`.
        weights: None (random), `"imagenet"`, or the path of a `.safetensors` or `.pth` file (with the reference's
            PyTorch names), or of a `.keras` or `.weights.h5` file.
        include_top: Whether to end in the classifier.
        classes: Number of classes. None uses the variant's own, which is 1000 for ImageNet. If the weights have another
            number of classes, the classifier is initialized randomly.
        classifier_activation: Activation of the classifier, such as `"softmax"` or `"sigmoid"`. None returns logits.
        input_shape: (height, width, channels) in pixels. None uses the variant's own size and channels.
        input_tensor: Keras tensor to build on instead of a new input.
        pooling: Pooling of the last feature map if there is no top: None, `"avg"` or `"max"`.
        features_only: Whether to return a dict of feature maps `{"stride_2": ..., ..., "stride_32": ...}` instead.
        preprocessing: Normalization to put into the graph, so that the model takes raw pixels 0..255 of its own size:
            True for the checkpoint's, or a `Preprocessing`.
        **arguments: Further arguments of the family's builder (`width`, `dropout`, `drop_path` ...).

    Returns:
        A functional `keras.Model`, (B, H, W, C) float32 -> (B, classes).

    Raises:
        UnknownModelError: No model has this name. The text lists the nearest names.
        InvalidArgumentError: An argument is out of range.
        WeightsError: The weights don't fit, or can't be fetched.
    """
    return _create(
        name,
        weights=weights,
        include_top=include_top,
        classes=classes,
        classifier_activation=classifier_activation,
        input_shape=input_shape,
        input_tensor=input_tensor,
        pooling=pooling,
        features_only=features_only,
        preprocessing=preprocessing,
        **arguments,
    )


def _create(
    model_name: str,
    /,
    *,
    weights: str | Path | None = None,
    include_top: bool = True,
    classes: int | None = None,
    classifier_activation: str | None = "softmax",
    input_shape: tuple[int | None, int | None, int] | None = None,
    input_tensor: keras.KerasTensor | None = None,
    pooling: str | None = None,
    features_only: bool = False,
    preprocessing: bool | Preprocessing = False,
    **arguments: Any,
) -> keras.Model:
    """Does what `create_model` does; `name` may be among the builder's arguments."""
    full, checkpoint_id = find(model_name)
    family = registry.FAMILIES[model_info(full).family]
    row, checkpoint = family.variants[full], CHECKPOINTS.get(checkpoint_id or "")
    if checkpoint is not None:
        arguments = {**checkpoint.arguments, **arguments}
    images = input_tensor
    if input_tensor is None:
        shape = tuple(input_shape or (row.input_size, row.input_size, row.channels))
        if preprocessing and len(shape) == 3:
            images = keras.Input(shape, name="images")
    else:
        shape = tuple(input_tensor.shape[1:])
    if preprocessing:
        images = _normalize(images, shape, checkpoint_id or full, preprocessing)
    model: keras.Model = family.builder(
        full,
        input_shape=shape,
        input_tensor=images,
        include_top=include_top,
        classes=classes,
        classifier_activation=classifier_activation,
        pooling=pooling,
        features_only=features_only,
        **arguments,
    )
    if weights is not None:
        load_weights(
            model,
            weights,
            torch_names=checkpoint.torch_names(**{**row.arguments, **arguments}) if checkpoint else (),
            checkpoint_id=checkpoint_id,
            url=checkpoint.url if checkpoint else None,
            rename=checkpoint.rename if checkpoint else None,
            bgr=checkpoint is not None and checkpoint.bgr,
            training_only=checkpoint.training_only if checkpoint else (),
            partial=features_only or not include_top,
        )
    return model


def _normalize(
    images: keras.KerasTensor, shape: tuple[int | None, ...], name: str, preprocessing: bool | Preprocessing
) -> keras.KerasTensor:
    spec = model_info(name).preprocessing if preprocessing is True else preprocessing
    if not isinstance(spec, Preprocessing):
        raise InvalidArgumentError(
            f"`preprocessing` must be a bool or a Preprocessing; {name!r} has no checkpoint that says which. "
            f"Received: {preprocessing!r}."
        )
    channels = shape[-1]
    if channels not in (1, spec.channels):
        raise InvalidArgumentError(
            f"`preprocessing` normalizes {spec.channels} channels. Received: input_shape={shape}; pass a "
            "Preprocessing with that many means."
        )
    height, width = (side or own for side, own in zip(shape[:2], spec.size, strict=True))  # the checkpoint's if open
    return ImageNormalization(spec.with_channels(channels).replace(size=(height, width)))(images)


def load_model(path: str | Path) -> keras.Model:
    """Loads a `.keras` or `.h5` file whose model may use keraslight's layers, in any process.

    The model isn't compiled, so that its losses and metrics needn't be known; nor is a file of weights alone a model.

    Raises:
        InvalidArgumentError: `path` is not a file, or Keras can't load a model from it.
    """
    rule = "`path` must be a .keras or .h5 file of a model."
    if not Path(path).is_file():
        raise InvalidArgumentError(f"{rule} Received: {str(path)!r}, which is not a file.")
    if str(path).endswith(".weights.h5"):
        raise InvalidArgumentError(f"{rule} Received: {str(path)!r}, which has weights alone: pass it as `weights`.")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever a damaged file or an unknown layer causes
        raise InvalidArgumentError(f"{rule} Received: {str(path)!r}; Keras said: {error}") from error


def builder(family_name: str) -> Callable[..., keras.Model]:
    """Returns the public builder of a family: `create_model` with the short or full name of a variant.

    It takes the arguments of the architecture's own builder, `weights` and `preprocessing`.

    Raises:
        KeyError: There is no such family.
    """
    family = registry.FAMILIES[family_name]

    @functools.wraps(family.builder)
    def build(variant: str = next(iter(family.variants)), **arguments: Any) -> keras.Model:
        return _create(family.full_name(variant), **arguments)

    signature, ours = inspect.signature(family.builder), inspect.signature(create_model).parameters
    parameters = [*signature.parameters.values(), ours["weights"], ours["preprocessing"]]
    build.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined] # read by inspect
    texts = {
        "weights": 'None (random), "imagenet", or the path of a weights file; see `keraslight.create_model`.',
        "preprocessing": "Normalization of raw pixels 0..255 to put into the graph: True for the checkpoint's, or a "
        "`Preprocessing`.",
    }
    lines = argument_lines(texts.items())
    build.__doc__ = (family.builder.__doc__ or "").replace("\n\nReturns:", "\n".join(["", *lines, "", "Returns:"]), 1)
    return build
