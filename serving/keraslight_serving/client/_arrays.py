"""What the client does with numpy arrays. Imported only where there are some, so that files don't need numpy."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from keraslight_serving.client._model import PixelInput
from keraslight_serving.client._types import Classification, ModelMetadata, TensorSpec
from keraslight_serving.client.errors import InvalidInput, SignatureNotFound
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import TensorError, to_array, to_tensor

_SHAPES = "(height, width), (height, width, 1|3|4) or, for a batch, (images, height, width, 1|3|4)"

# ---------------------------------------------------------------- images


def pixels(given: ArrayLike, which: str) -> NDArray[np.uint8]:
    """Converts an image (H, W) or (H, W, 1|3|4) of any dtype to uint8, if all pixels are whole.

    Raises:
        InvalidInput: It is not such an image.
    """
    array = np.asarray(given)
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not is_image or 0 in array.shape:
        raise InvalidInput(f"{which} must be an array of shape {_SHAPES}. Received: shape {array.shape}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iuf":
        raise InvalidInput(f"{which} must hold pixels from 0 to 255. Received: dtype {array.dtype}")
    # Images scaled to 0..1 would become black. NaN fails all of these comparisons.
    if not ((array >= 0) & (array <= 255) & (array == np.floor(array))).all():
        raise InvalidInput(
            f"{which} must hold whole pixels from 0 to 255, not scaled or normalized: the model does that. "
            f"Received: {array.dtype} from {array.min():.6g} to {array.max():.6g}"
        )
    return array.astype(np.uint8)


def to_image(array: NDArray[np.uint8]) -> Image.Image:
    """Pixels (H, W) or (H, W, 1|3|4) as a PIL image."""
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


def fits(data: bytes | NDArray[np.uint8], spec: PixelInput) -> bool:
    """Whether pixels fit an input without scaling."""
    if isinstance(data, bytes):
        return False
    shape = data.shape if data.ndim == 3 else (*data.shape, 1)
    return all(size in (None, own) for size, own in zip(spec[2:], shape, strict=True))


def stack(images: Sequence[bytes | NDArray[np.uint8]], spec: PixelInput, first: int) -> NDArray[Any]:
    """A batch for an input. Files, and pixels of other sizes, are decoded, scaled and cropped.

    Args:
        images: Files, or pixels (H, W) or (H, W, 1|3|4).
        spec: The model's input.
        first: Position of the first image among all, for error texts.

    Raises:
        InvalidInput: A file can't be decoded, the input doesn't take pixels, or the input has variable sizes and the
            images differ in size.
    """
    if spec.dtype not in ("uint8", "float32", "float16", "float64", "int32"):
        raise InvalidInput(f"The model must take pixels from 0 to 255. Received: an input of {spec.dtype}")
    batch = [_fitted(image, spec, f"images[{first + place}]") for place, image in enumerate(images)]
    if len({image.shape for image in batch}) > 1:
        sizes = sorted({image.shape for image in batch})
        raise InvalidInput(f"Images of one request must have one size. Received: {sizes}")
    return np.stack(batch).astype(spec.dtype, copy=False)


def _fitted(data: bytes | NDArray[np.uint8], spec: PixelInput, which: str) -> NDArray[np.uint8]:
    """Pixels (height, width, channels): rotated upright, scaled, and cropped to the center.

    The client doesn't know how much the model's own preprocessing would crop, so it keeps the whole shorter side.
    """
    if not isinstance(data, bytes) and fits(data, spec):
        array = data
    else:
        mode = {1: "L", 4: "RGBA"}.get(spec.channels, "RGB")
        try:
            image = Image.open(io.BytesIO(data)) if isinstance(data, bytes) else to_image(data)
            image = ImageOps.exif_transpose(image).convert(mode)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise InvalidInput(f"{which} must be an image that can be decoded. Received: {error}") from error
        if spec.height is not None and spec.width is not None and image.size != (spec.width, spec.height):
            image = ImageOps.fit(image, (spec.width, spec.height), Image.Resampling.BILINEAR)
        array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def rank(outputs: Mapping[str, NDArray[Any]], labels: Sequence[str] | None, top_k: int) -> list[list[Classification]]:
    """The rankings of a model that returns scores.

    Raises:
        ValueError: There are no scores of shape (images, classes).
        InvalidInput: The numbers of labels and classes differ.
    """
    if "probabilities" in outputs:
        scores = outputs["probabilities"]
    elif "logits" in outputs:
        powers = np.exp(outputs["logits"] - outputs["logits"].max(axis=-1, keepdims=True))
        scores = powers / powers.sum(axis=-1, keepdims=True)
    elif len(outputs) == 1:
        scores = next(iter(outputs.values()))
    else:
        raise ValueError(f"The answer must have `probabilities` or `logits`. Received: {sorted(outputs)}")
    if scores.ndim != 2:
        raise ValueError(f"The answer must have a row of scores per image. Received: shape {scores.shape}")
    if labels is not None and len(labels) != scores.shape[1]:
        raise InvalidInput(f"`labels` must have a label per class, {scores.shape[1]}. Received: {len(labels)}")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return [
        [Classification(str(n) if labels is None else labels[n], float(row[n]), int(n)) for n in ranked]
        for ranked, row in zip(order, scores, strict=True)
    ]


# ---------------------------------------------------------------- tensors


def check(inputs: Mapping[str, ArrayLike], signature: str, known: ModelMetadata) -> dict[str, ArrayLike]:
    """Checks inputs before they are sent, and converts lists of numbers to the declared dtype.

    Raises:
        SignatureNotFound: The model has no such signature.
        InvalidInput: The inputs don't match the signature.
    """
    found = known.signatures.get(signature)
    if found is None:
        raise SignatureNotFound(
            f"Model {known.model!r} version {known.version} must have the signature. "
            f"Received: {signature!r}; it has {', '.join(sorted(known.signatures))}"
        )
    if set(inputs) != set(found.inputs):
        raise InvalidInput(
            f"Signature {signature!r} takes the inputs {', '.join(sorted(found.inputs))}. "
            f"Received: {', '.join(sorted(inputs)) or 'none'}"
        )
    return {name: _check_tensor(array, found.inputs[name]) for name, array in inputs.items()}


def _check_tensor(given: ArrayLike, spec: TensorSpec) -> ArrayLike:
    if spec.dtype == "string":
        return given  # numpy's fixed-width strings would drop trailing zeros from lists of bytes
    takes = f"Input {spec.name!r} takes {spec.dtype} of shape {_shape_text(spec.shape)}."
    if isinstance(given, np.ndarray):
        array = given
    else:
        try:
            array = np.asarray(given).astype(spec.dtype, copy=False)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"{takes} Received: {error}") from error
    kind = "string" if array.dtype.kind in "OSU" else array.dtype.name
    right_shape = spec.shape is None or (
        len(spec.shape) == array.ndim
        and all(size in (None, own) for size, own in zip(spec.shape, array.shape, strict=True))
    )
    if kind != spec.dtype or not right_shape:
        raise InvalidInput(f"{takes} Received: {kind} of shape {_shape_text(array.shape)}")
    return array


def _shape_text(shape: Sequence[int | None] | None) -> str:
    return "unknown" if shape is None else f"({', '.join('any' if size is None else str(size) for size in shape)})"


def write(request: pb.PredictRequest, inputs: Mapping[str, ArrayLike]) -> None:
    """Writes the inputs to a request.

    Raises:
        InvalidInput: A tensor can't hold one of them.
    """
    for name, array in inputs.items():
        try:
            to_tensor(array, content=True, into=request.inputs[name])
        except (TensorError, ValueError) as error:
            raise InvalidInput(f"Input {name!r} can't be sent: {error}") from error


def read(response: pb.PredictResponse) -> dict[str, NDArray[Any]]:
    """The outputs of a response.

    Raises:
        ValueError: An output is not a valid tensor.
    """
    return {name: to_array(tensor) for name, tensor in response.outputs.items()}
