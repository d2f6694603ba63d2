"""Models by name: the only place that turns a string into a model."""

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from keraslight import _doors

_doors.require("keraslight.zoo", "models", "numpy", "keras")

import keras

import keraslight.architectures
import keraslight.dense  # noqa: F401 (both register every family)
from keraslight import registry
from keraslight.blocks.family import argument_lines
from keraslight.blocks.model import image_input
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
        weights: None (random), `"imagenet"` (of detectors and segmenters the data that their checkpoint was trained on,
            such as `"coco"`), or the path of a `.safetensors` or `.pth` file (with the reference's
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

    Detectors and segmenters take `weights`, `classes`, `input_shape`, `input_tensor`, `preprocessing` and the arguments
    of their own builders; the other arguments are for classifiers.

    Returns:
        A functional `keras.Model`, (B, H, W, C) float32 -> (B, classes); of a detector or segmenter -> a dict, as its
        builder documents.

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
    family = registry.families()[model_info(full).family]
    if family.name in registry.DENSE:
        _check_top(full, include_top, classifier_activation, pooling, features_only)
        return _create_dense(
            family,
            full,
            checkpoint_id=checkpoint_id,
            weights=weights,
            classes=classes,
            input_shape=input_shape,
            input_tensor=input_tensor,
            preprocessing=preprocessing,
            **arguments,
        )
    row, checkpoint = family.variants[full], CHECKPOINTS.get(checkpoint_id or "")
    if checkpoint is not None:
        arguments = {**checkpoint.arguments, **arguments}
    shape, images = _images(row, checkpoint_id or full, input_shape, input_tensor, preprocessing)
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


def _check_top(name: str, include_top: bool, activation: str | None, pooling: str | None, features_only: bool) -> None:
    """Raises InvalidArgumentError if an argument that only classifiers have was given for another model."""
    given = {
        "include_top": not include_top,
        "classifier_activation": activation not in ("softmax", None),
        "pooling": pooling is not None,
        "features_only": features_only,
    }
    wrong = [argument for argument, is_given in given.items() if is_given]
    if wrong:
        raise InvalidArgumentError(f"`{wrong[0]}` is for classifiers. Received: {', '.join(wrong)} for {name!r}.")


def _create_dense(
    family: registry.Family,
    full: str,
    backbone: registry.Backbone | keras.Model | None = None,
    /,
    *,
    checkpoint_id: str | None = None,
    weights: str | Path | None = None,
    backbone_weights: str | Path | None = None,
    backbone_arguments: dict[str, Any] | None = None,
    classes: int | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    input_tensor: keras.KerasTensor | None = None,
    preprocessing: bool | Preprocessing = False,
    name: str | None = None,
    **arguments: Any,
) -> keras.Model:
    """Builds a variant of a family of detectors or segmenters, on its own backbone or another one."""
    row = family.variants[full]
    own = backbone is None
    if isinstance(preprocessing, Preprocessing) and family.task == "detection" and preprocessing.crop_mode != "squash":
        raise InvalidArgumentError(
            '`preprocessing` of a detector must have crop_mode="squash", so that boxes are shares of the whole image. '
            f"Received: crop_mode={preprocessing.crop_mode!r}."
        )
    checkpoint = CHECKPOINTS.get(checkpoint_id or "") if own else None
    if checkpoint is not None:
        arguments = {**checkpoint.arguments, **arguments}
    backbone = row.backbone if backbone is None else backbone
    maps = None
    if isinstance(backbone, keras.Model):
        _check_feature_model(backbone, input_shape, input_tensor, preprocessing, backbone_weights, backbone_arguments)
        images = backbone.inputs[0]
        maps = _taps(backbone, [f"stride_{stride}" for stride in family.taps])
        name = name or f"{family.name.lower()}_{backbone.name}"
    else:
        spec_name = (checkpoint_id or full) if own or backbone is None else backbone.name
        if preprocessing is True and (spec := model_info(spec_name).preprocessing) is not None:
            preprocessing = spec.replace(crop_mode="squash", crop_pct=1.0)  # a classifier's own crops
        shape, images = _images(row, spec_name, input_shape, input_tensor, preprocessing)
        images = image_input(shape, images)  # type: ignore[arg-type] # checks the shape
        if backbone is not None:
            model = _backbone(backbone, images, backbone_weights, backbone_arguments or {})
            maps = _taps(model, backbone.taps)
            name = name or (full if own else f"{family.name.lower()}_{model.name}")
        elif backbone_weights is not None or backbone_arguments:
            raise InvalidArgumentError(
                f"`backbone_weights` and `backbone_arguments` are for models with a backbone. Received: {full!r}."
            )
    model = family.builder(full, images, maps, classes=classes, name=name, **arguments)
    if weights is not None:
        torch_names = checkpoint.torch_names(**{**row.arguments, **arguments}) if checkpoint else ()
        load_weights(
            model,
            weights,
            torch_names=torch_names,
            checkpoint_id=checkpoint_id,
            dataset=checkpoint.dataset if checkpoint else "imagenet",
            url=checkpoint.url if checkpoint else None,
            rename=checkpoint.rename if checkpoint else None,
            bgr=checkpoint is not None and checkpoint.bgr,
            training_only=checkpoint.training_only if checkpoint else (),
        )
    return model


def _backbone(
    backbone: registry.Backbone, images: keras.KerasTensor, weights: str | Path | None, more: dict[str, Any]
) -> keras.Model:
    """Builds a classifier without its top on the images; with weights, one that starts from them."""
    features_only = all(tap.startswith("stride_") for tap in backbone.taps)
    return _create(
        backbone.name,
        weights=weights,
        include_top=False,
        features_only=features_only,
        input_tensor=images,
        classifier_activation=None,
        **{**backbone.arguments, **more},
    )


def _taps(model: keras.Model, names: Iterable[str]) -> list[keras.KerasTensor]:
    """Returns a model's maps by names of layers or keys of its feature maps."""
    features = model.output if isinstance(model.output, dict) else {}
    known = {layer.name for layer in model.layers}
    missing = [tap for tap in names if tap not in features and tap not in known]
    if missing:
        raise InvalidArgumentError(
            "A backbone must give the maps that the head reads. "
            f"Received: {model.name!r} without {', '.join(missing)}; its maps: {', '.join(features) or 'none'}."
        )
    return [features[tap] if tap in features else model.get_layer(tap).output for tap in names]


def _check_feature_model(backbone: keras.Model, *others: Any) -> None:
    if not isinstance(backbone.output, dict) or len(backbone.inputs) != 1:
        raise InvalidArgumentError(
            "A backbone model must take images and give a dict of maps, as with features_only=True. "
            f"Received: {backbone.name!r}."
        )
    if any(other is not None and other is not False for other in others):
        raise InvalidArgumentError(
            "`input_shape`, `input_tensor`, `preprocessing`, `backbone_weights` and `backbone_arguments` are for "
            f"backbones by name. Received: the model {backbone.name!r} and one of these."
        )


def _images(
    row: registry.Variant,
    name: str,
    input_shape: tuple[int | None, int | None, int] | None,
    input_tensor: keras.KerasTensor | None,
    preprocessing: bool | Preprocessing,
) -> tuple[tuple[int | None, ...], keras.KerasTensor | None]:
    """Returns the shape of the images, and the tensor to build on, None for a new input."""
    images = input_tensor
    if input_tensor is None:
        shape = tuple(input_shape or (row.input_size, row.input_size, row.channels))
        if preprocessing and len(shape) == 3:
            images = keras.Input(shape, name="images")
    else:
        shape = tuple(input_tensor.shape[1:])
    if preprocessing:
        images = _normalize(images, shape, name, preprocessing)
    return shape, images


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
        KeyError: The family is unknown.
    """
    if family_name in registry.DENSE:
        return _dense_builder(registry.DENSE[family_name])
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


def _dense_builder(family: registry.Family) -> Callable[..., keras.Model]:
    """Returns the public builder of a family of detectors or segmenters."""
    default = next(iter(family.variants)).removeprefix(family.prefix)

    def build(variant: str | keras.Model = default, **arguments: Any) -> keras.Model:
        if not family.taps or (isinstance(variant, str) and variant in _short_names(family)):
            full = family.full_name(str(variant))
            return _create_dense(family, full, checkpoint_id=family.variants[full].checkpoint, **arguments)
        first = next(iter(family.variants))
        if isinstance(variant, keras.Model):
            return _create_dense(family, first, variant, **arguments)
        backbone, full = _any_backbone(family, variant)
        return _create_dense(family, full, backbone, **arguments)

    dense = inspect.signature(_create_dense).parameters
    lines = dict(_DENSE_ARGUMENTS)
    names = ["classes", "input_shape", "input_tensor", "name", "weights", "preprocessing"]
    if family.taps:
        names += ["backbone_weights", "backbone_arguments"]
    first_parameter = inspect.Parameter(
        "variant",
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=default,
        annotation="str | keras.Model" if family.taps else "str",
    )
    own = inspect.signature(family.builder).parameters.values()
    common = [dense[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in names]
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # read by inspect
        [first_parameter, *own, *common], return_annotation=keras.Model
    )
    build.__name__ = build.__qualname__ = family.name
    build.__module__ = family.builder.__module__
    variants = ", ".join(f'"{name.removeprefix(family.prefix)}"' for name in family.variants)
    choice = f"Name of the variant, short or full: {variants}"
    if family.taps:
        choice += "; or any classifier's name, or a model that gives a dict of feature maps, to build the head on"
    given = [("weights", lines["weights"]), ("preprocessing", lines["preprocessing"])]
    if family.taps:
        given += [(name, lines[name]) for name in ("backbone_weights", "backbone_arguments")]
    doc = family.builder.__doc__ or ""
    doc = doc.replace("\n\nArgs:", "\n".join(["\n\nArgs:", *argument_lines([("variant", f"{choice}.")])]), 1)
    build.__doc__ = doc.replace("\n\nReturns:", "\n".join(["", *argument_lines(given), "", "Returns:"]), 1)
    return build


_DENSE_ARGUMENTS = {
    "weights": 'None (random), the data that published weights were trained on, such as "coco", or the path of a '
    "weights file; see `keraslight.create_model`.",
    "preprocessing": "Normalization of raw pixels 0..255 to put into the graph: True for the checkpoint's (of another "
    "backbone that one's, without cropping), or a `Preprocessing`.",
    "backbone_weights": 'The same for the backbone alone, such as "imagenet".',
    "backbone_arguments": 'Further keyword arguments of the backbone\'s builder, such as `{"width": 0.5}`.',
}


def _short_names(family: registry.Family) -> set[str]:
    return {name.removeprefix(family.prefix) for name in family.variants} | set(family.variants)


def _any_backbone(family: registry.Family, name: str) -> tuple[registry.Backbone, str]:
    """Returns how a family reads a classifier's maps, and the variant whose head it has.

    A classifier that the family's table names is read as there, any other one at the family's strides.
    """
    full, _ = find(name)
    owner = registry.families()[model_info(full).family]
    if owner.name in registry.DENSE:
        raise InvalidArgumentError(
            f"`variant` of {family.name} must be one of its own, or a classifier. Received: {name!r}, a {owner.task} "
            "model."
        )
    for variant, row in family.variants.items():
        if row.backbone is not None and find(row.backbone.name)[0] == full:
            # Not what only that row's own weights have: its normalization, and fewer channels.
            kept = {key: value for key, value in row.backbone.arguments.items() if key not in ("style", "reduced_tail")}
            return registry.Backbone(name, row.backbone.taps, kept), variant
    arguments: dict[str, Any] = {}
    if max(family.taps) < 32 and "output_stride" in inspect.signature(owner.builder).parameters:
        arguments["output_stride"] = max(family.taps)
    taps = tuple(f"stride_{stride}" for stride in family.taps)
    return registry.Backbone(name, taps, arguments), next(iter(family.variants))
