"""A strict loader: uses every tensor of the checkpoint and of the model exactly once, or lists the leftovers."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from keraslight.errors import InvalidArgumentError, WeightsMismatchError
from keraslight.preprocessing import Preprocessing
from keraslight.weights.files import HEAD, fetch, read_keras, read_safetensors, read_torch

log = logging.getLogger(__name__)

MOST_LEFTOVERS = 40
"""Number of leftovers that an error lists. A checkpoint of another family has hundreds."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What is known about published weights.

    Attributes:
        variant: Full name of the model that they belong to.
        torch_names: Function from the model's arguments to pairs (our layer, the checkpoint's module).
        preprocessing: Preprocessing that the weights were trained with.
        top1: Reported ImageNet-1k top-1 accuracy at that size, in percent.
        arguments: Arguments of the builder in addition to the variant's own, such as the source's padding.
        url: Address of the file, for sources other than the Hugging Face hub.
        rename: Function from the name of a stored tensor to the name in the map, for files of older code.
        bgr: Whether the weights take pixels in the order blue, green, red. The stem's kernel is then reversed along its
            input channels when it is loaded, which is exact, so that the model takes red, green, blue like all others.
        training_only: Modules that are not needed for inference, such as auxiliary classifiers. If the map leaves one
            out, the loader ignores its tensors and logs that.
        dataset: Data that the weights were trained on, the value of `weights` that loads them.
    """

    variant: str
    torch_names: Callable[..., Iterable[tuple[str, str]]]
    preprocessing: Preprocessing
    top1: float | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    url: str | None = None
    rename: Callable[[str], str] | None = None
    bgr: bool = False
    training_only: tuple[str, ...] = ()
    dataset: str = "imagenet"


class _Slot(NamedTuple):
    """A Keras variable with the function that converts the checkpoint's array to its layout."""

    variable: keras.Variable
    convert: Callable[[np.ndarray], np.ndarray] = np.asarray


def load_weights(
    model: keras.Model,
    source: str | Path,
    *,
    torch_names: Iterable[tuple[str, str]],
    checkpoint_id: str | None = None,
    dataset: str = "imagenet",
    url: str | None = None,
    rename: Callable[[str], str] | None = None,
    bgr: bool = False,
    training_only: tuple[str, ...] = (),
    partial: bool = False,
) -> None:
    """Loads weights into a model.

    Args:
        model: Model to fill. If there is an error, it keeps its weights.
        source: `dataset`, or the path of a `.safetensors` or `.pth` file with the reference's PyTorch names, of a
            whole `.keras` model or of a `.weights.h5` file.
        torch_names: Pairs (our layer, the checkpoint's module), for PyTorch names.
        checkpoint_id: Checkpoint to fetch for `dataset`.
        dataset: Data that the checkpoint was trained on, such as `"imagenet"`.
        url: Its address, for sources other than the Hugging Face hub.
        rename, bgr, training_only: See `Checkpoint`, for PyTorch names.
        partial: Whether the model was built without its top. Weights of layers that it lacks are then ignored, which is
            logged.

    Raises:
        InvalidArgumentError: `source` is not a file, or has an unknown suffix.
        WeightsMismatchError: Tensors are missing, left over or have another shape. The text lists them. A classifier
            for another number of classes is not a mismatch: it is initialized randomly, which is logged.
        WeightsUnavailableError: The checkpoint can't be fetched.
    """
    if str(source) == dataset:
        source = fetch(checkpoint_id, model.name, url)
    path = Path(source).expanduser()
    if not path.is_file():
        raise InvalidArgumentError(
            f"`weights` must be None, {dataset!r} or the path of a .safetensors, .pth, .keras or .weights.h5 file. "
            f"Received: {str(source)!r}, which is not a file."
        )
    if path.name.endswith((".safetensors", ".pth")):
        tensors = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
        if rename is not None:
            tensors = {rename(name): value for name, value in tensors.items()}
        torch_names = list(torch_names)
        slots = _torch_slots(model, torch_names, tensors, partial=partial)
        if bgr:
            _reverse_channels(model.get_layer(torch_names[0][0]), slots)
        _drop_training_only(tensors, slots, training_only, model.name)
    elif path.name.endswith((".keras", ".weights.h5")):
        tensors = read_keras(path, model)
        slots = {variable.path: _Slot(variable) for variable in model.weights}
        if partial:
            unknown = [name for name in tensors if name not in slots]
            for name in unknown:
                del tensors[name]
            if unknown:
                log.info("The model is built without its top: left out %d tensors of %s.", len(unknown), path)
    else:
        raise InvalidArgumentError(
            f"`weights` must end in .safetensors, .pth, .keras or .weights.h5. Received: {str(source)!r}."
        )
    _assign(model, path, tensors, slots)


def _torch_slots(
    model: keras.Model, torch_names: Iterable[tuple[str, str]], tensors: dict[str, np.ndarray], *, partial: bool
) -> dict[str, _Slot]:
    """Maps the checkpoint's tensor names to variables. Removes tensors of a missing top from `tensors`."""
    slots: dict[str, _Slot] = {}
    mapped, left_out = set(), []
    by_name = {layer.name: layer for layer in model.layers if layer.weights}
    for ours, theirs in torch_names:
        if ours not in by_name:
            if partial:
                left_out += [name for name in tensors if name == theirs or name.startswith(f"{theirs}.")]
                continue
            raise WeightsMismatchError(
                f"The map names a layer that the model lacks. Received: {ours!r} for {theirs!r}."
            )
        mapped.add(ours)
        for suffix, slot in layer_slots(by_name[ours]):
            # Some modules hold a bare parameter instead of a module with parameters, such as torchvision's layer scale.
            slots[theirs if theirs in tensors else f"{theirs}.{suffix}"] = slot
    for name in by_name.keys() - mapped:
        for variable in by_name[name].weights:
            slots[f"(no name in the map) {variable.path}"] = _Slot(variable)
    for name in left_out:
        del tensors[name]
    if left_out:
        log.info("%s is built without its top: left out %d tensors of the checkpoint.", model.name, len(left_out))
    return slots


def _reverse_channels(stem: layers.Layer, slots: dict[str, _Slot]) -> None:
    """Makes a stem that was trained on blue, green, red take red, green, blue."""
    for name, slot in slots.items():
        if slot.variable is stem.kernel:
            slots[name] = slot._replace(convert=functools.partial(_reversed_inputs, slot.convert))


def _reversed_inputs(convert: Callable[[np.ndarray], np.ndarray], value: np.ndarray) -> np.ndarray:
    return convert(value)[:, :, ::-1]


def _drop_training_only(
    tensors: dict[str, np.ndarray], slots: Mapping[str, _Slot], modules: tuple[str, ...], model_name: str
) -> None:
    """Removes the tensors of those modules that the model doesn't have at all."""
    for module in modules:
        prefix = f"{module}."
        dropped = [name for name in tensors if name.startswith(prefix)]
        if not dropped or any(name.startswith(prefix) for name in slots):
            continue
        for name in dropped:
            del tensors[name]
        log.info("%s does without %s: left out %d tensors of the checkpoint.", model_name, module, len(dropped))


def layer_slots(layer: layers.Layer) -> Iterable[tuple[str, _Slot]]:
    """Yields pairs (torch parameter name, slot) of one layer, with conversions from torch's layout to Keras'."""
    match layer:
        case layers.DepthwiseConv2D():  # (C * m, 1, kh, kw) -> (kh, kw, C, m)
            yield "weight", _Slot(layer.kernel, functools.partial(_depthwise, layer.depth_multiplier))
        case layers.Conv2D():  # (F, C / groups, kh, kw) -> (kh, kw, C / groups, F)
            yield "weight", _Slot(layer.kernel, lambda w: w.transpose(2, 3, 1, 0))
        case layers.Dense():  # (F, C) -> (C, F)
            yield "weight", _Slot(layer.kernel, np.transpose)
        case layers.BatchNormalization():
            yield "weight", _Slot(layer.gamma)
            yield "bias", _Slot(layer.beta)
            yield "running_mean", _Slot(layer.moving_mean)
            yield "running_var", _Slot(layer.moving_variance)
        case _:
            for variable, parameter in getattr(layer, "checkpoint_names", {}).items():
                yield parameter, _Slot(getattr(layer, variable))
    if getattr(layer, "bias", None) is not None:
        yield "bias", _Slot(layer.bias)


def _depthwise(multiplier: int, value: np.ndarray) -> np.ndarray:
    """(C * multiplier, 1, kh, kw) -> (kh, kw, C, multiplier): both number a channel's outputs consecutively."""
    value = value.transpose(2, 3, 0, 1)
    outputs = value.shape[2]
    if multiplier == 1 or outputs % multiplier:
        return value
    return value.reshape(*value.shape[:2], outputs // multiplier, multiplier)


def _as_convolution(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Turns a linear layer over a flattened (C, H, W) map into the convolution that covers it, (F, C, H, W).

    Arrays that don't fit a kernel of `shape`, (H, W, C, F), are returned unchanged.
    """
    if value.ndim == 2 and len(shape) == 4 and value.shape[1] == np.prod(shape[:3]):
        height, width, channels, _ = shape
        return value.reshape(-1, channels, height, width)
    return value


def _adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """(kh, kw, 3, F) -> (kh, kw, channels, F), such that activations keep their magnitude.

    A single channel gets the sum (a grey image repeated three times gives the same result). Otherwise the three are
    repeated and scaled by 3 / channels. Source: timm's adapt_input_conv.
    """
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    repeated = np.concatenate([kernel] * -(-channels // 3), axis=2)[:, :, :channels]
    return repeated * np.float32(3 / channels)


def _assign(model: keras.Model, path: Path, tensors: Mapping[str, np.ndarray], slots: Mapping[str, _Slot]) -> None:
    """Assigns all tensors, or raises before assigning any."""
    values: list[tuple[keras.Variable, np.ndarray]] = []
    problems = [f"- {name} {tensors[name].shape} is only in the checkpoint" for name in tensors.keys() - slots.keys()]
    fresh = False
    stem = next((layer.kernel for layer in model.layers if isinstance(layer, layers.Conv2D)), None)
    for name, slot in slots.items():
        shape = tuple(slot.variable.shape)
        if name not in tensors:
            problems.append(f"+ {slot.variable.path} {shape} is only in the model (wanted: {name})")
            continue
        value = _as_convolution(tensors[name], shape)
        if len(shape) == 1 and value.shape[1:] == (1, 1):
            value = value.ravel()  # torchvision's layer scale is (C, 1, 1)
        converted = slot.convert(value) if value.ndim == len(shape) else value
        if converted.shape == shape:
            values.append((slot.variable, converted))
        elif slot.variable.path.partition("/")[0].endswith(HEAD) and converted.shape[:-1] == shape[:-1]:
            fresh = True
        elif slot.variable is stem and converted.shape == (*shape[:2], 3, *shape[3:]):
            values.append((slot.variable, _adapt_channels(converted, shape[2])))
            log.info("%s: the first convolution is adapted from 3 channels to %d.", model.name, shape[2])
        else:
            problems += [f"- {name} {value.shape} in the checkpoint", f"+ {slot.variable.path} {shape} in the model"]
    if problems:
        lines = sorted(problems, key=lambda line: line[2:])
        if len(lines) > MOST_LEFTOVERS:
            lines[MOST_LEFTOVERS:] = [f"... and {len(lines) - MOST_LEFTOVERS} more"]
        text = "\n  ".join(lines)
        raise WeightsMismatchError(f"The weights of {path} don't fit {model.name!r}. Left over:\n  {text}")
    for variable, value in values:
        variable.assign(value)
    if fresh:
        log.warning(
            "%s: the checkpoint was trained for another number of classes; the classifier starts afresh%s.",
            model.name,
            next((f" ({layer.output.shape[-1]} classes)" for layer in model.layers if layer.name == HEAD), ""),
        )
