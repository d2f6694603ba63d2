"""Models by name: the only place where a string becomes a model."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

import keraslight.architectures  # noqa: F401 (registers every family)
from keraslight import registry
from keraslight.errors import InvalidArgumentError
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.weights import ALIASES, CHECKPOINTS, load_weights


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without building it.

    Attributes:
        name: Full name, what `create_model` takes.
        family: The builder's name, as in `keraslight.MobileNetV4`.
        input_size: Side of the square image that the figures are for, in pixels.
        parameters: Learned parameters with the variant's own classes and channels, without batch-norm statistics.
        macs: Multiply-adds of one image.
        top1: Reported ImageNet-1k top-1 accuracy of the checkpoint in percent; None where none is reported.
        paper: Title of the paper's file in the package.
        checkpoint: Repository id of the published weights; None where none are published.
        preprocessing: What that checkpoint was trained to see; None without a checkpoint.
    """

    name: str
    family: str
    input_size: int
    parameters: int
    macs: int
    top1: float | None
    paper: str
    checkpoint: str | None
    preprocessing: Preprocessing | None


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
        name: As listed by `list_models`, or a published id such as `"timm/mobilenetv4_conv_small"`.
        weights: None (random), `"imagenet"`, or the path of a `.safetensors` or `.pth` (the reference's PyTorch
            names), `.keras` or `.weights.h5` file.
        include_top: Whether to end in the classifier.
        classes: Number of classes; None is the variant's own, most often ImageNet's 1000. Where the weights have
            another number, the classifier starts afresh.
        classifier_activation: `"softmax"`, `"sigmoid"` ..., or None for logits.
        input_shape: (height, width, channels) in pixels; None is the variant's own size and channels.
        input_tensor: A Keras tensor to build on instead of a new input.
        pooling: Without the top: None, `"avg"` or `"max"`.
        features_only: Return a dict of feature maps `{"stride_2": ..., ..., "stride_32": ...}` instead.
        preprocessing: True puts the checkpoint's normalization into the graph, so that the model takes raw pixels
            0..255 of its own size; a `Preprocessing` puts that one's.
        **arguments: What else the family's builder takes (`width`, `dropout`, `drop_path` ...).

    Returns:
        A functional `keras.Model`, (B, H, W, C) float32 -> (B, classes).

    Raises:
        UnknownModelError: no such model; the text lists the nearest.
        InvalidArgumentError: an argument is out of its range.
        WeightsError: the weights don't fit, or can't be fetched.
    """
    family, full, checkpoint_id = _find(name)
    row, checkpoint = family.variants[full], CHECKPOINTS.get(checkpoint_id)
    if checkpoint is not None:
        arguments = {**checkpoint.arguments, **arguments}
    if input_tensor is None:
        size = row.input_size
        shape = tuple(input_shape or (size, size, row.channels))
        images = keras.Input(shape, name="images") if preprocessing and len(shape) == 3 else None
    else:
        shape, images = tuple(input_tensor.shape[1:]), input_tensor
    if preprocessing:
        images = _normalize(images, shape, checkpoint_id or full, preprocessing)
    model = family.builder(
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
            training_only=checkpoint.training_only if checkpoint else (),
            partial=features_only or not include_top,
        )
    return model


def _find(name: str) -> tuple[registry.Family, str, str | None]:
    """Family, full name and checkpoint id of a name or a published id."""
    if name in ALIASES:
        checkpoint_id = ALIASES[name]
        return *registry.find(CHECKPOINTS[checkpoint_id].variant), checkpoint_id
    family, full = registry.find(name, ALIASES)
    return family, full, family.variants[full].checkpoint


def _normalize(
    images: keras.KerasTensor, shape: tuple, name: str, preprocessing: bool | Preprocessing
) -> keras.KerasTensor:
    spec = model_info(name).preprocessing if preprocessing is True else preprocessing
    if not isinstance(spec, Preprocessing):
        raise InvalidArgumentError(
            f"`preprocessing` must be a bool or a Preprocessing; {name!r} has no checkpoint that says which. "
            f"Received: {preprocessing!r}."
        )
    if shape[-1] not in (1, spec.channels):
        raise InvalidArgumentError(
            f"`preprocessing` normalizes {spec.channels} channels. Received: input_shape={shape}; pass a "
            "Preprocessing with that many means."
        )
    return ImageNormalization(spec.with_channels(shape[-1]).replace(size=_known(shape, spec.size)))(images)


def _known(shape: tuple, size: tuple[int, int]) -> tuple[int, int]:
    """The input's sides, or the checkpoint's where they are open."""
    return tuple(side or own for side, own in zip(shape[:2], size, strict=True))


def list_models(pattern: str = "*") -> list[str]:
    """The names of all models that match a shell-style pattern, such as `"mobilenet*"`, in alphabetical order."""
    names = [name for family in registry.FAMILIES.values() for name in family.variants]
    return sorted(fnmatch.filter(names, pattern))


def model_info(name: str) -> ModelInfo:
    """What is known of a model, without building it.

    Args:
        name: As for `create_model`.

    Raises:
        UnknownModelError: no such model; the text lists the nearest.
    """
    family, full, checkpoint_id = _find(name)
    row, checkpoint = family.variants[full], CHECKPOINTS.get(checkpoint_id)
    return ModelInfo(
        name=full,
        family=family.name,
        input_size=row.input_size,
        parameters=row.parameters,
        macs=row.macs,
        top1=checkpoint and checkpoint.top1,
        paper=family.paper,
        checkpoint=checkpoint_id,
        preprocessing=checkpoint and checkpoint.preprocessing,
    )


def load_model(path: str | Path) -> keras.Model:
    """Loads a `.keras` file whose model has keraslight's layers, from any process.

    Raises:
        InvalidArgumentError: `path` is no such file.
    """
    if not Path(path).is_file():
        raise InvalidArgumentError(f"`path` must be a .keras file. Received: {str(path)!r}, which is no file.")
    return keras.saving.load_model(path)


def builder(family_name: str) -> Callable[..., keras.Model]:
    """The public builder of a family: `create_model` with a variant's short or full name.

    It takes what the architecture's own builder takes, and `weights` and `preprocessing` as well.

    Raises:
        KeyError: no such family.
    """
    family = registry.FAMILIES[family_name]

    @functools.wraps(family.builder)
    def build(variant: str = next(iter(family.variants)), **arguments: Any) -> keras.Model:
        return create_model(family.full_name(variant), **arguments)

    signature = inspect.signature(family.builder)
    more = [inspect.signature(create_model).parameters[name] for name in ("weights", "preprocessing")]
    build.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])
    return build
