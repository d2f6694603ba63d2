"""What the client does with numpy's arrays. Only who sends or asks for arrays needs numpy, and this module."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

from keraslight_serving.client._types import Classification, ModelMetadata, TensorSpec
from keraslight_serving.client.errors import InvalidInput, SignatureNotFound
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import TensorError, to_array, to_tensor

_SHAPES = "(height, width), (height, width, 1|3|4) or, for a batch, (images, height, width, 1|3|4)"

# ---------------------------------------------------------------- images


def pixels(given: ArrayLike, which: str) -> np.ndarray:
    """An image (H, W) or (H, W, 1|3|4) of uint8, from one of any type whose pixels are whole.

    Raises:
        InvalidInput: it is none.
    """
    array = np.asarray(given)
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not is_image or 0 in array.shape:
        raise InvalidInput(f"{which} must be an array of shape {_SHAPES}. Received: shape {array.shape}")
    return array if array.dtype == np.uint8 else _to_uint8(array, which)


def _to_uint8(array: np.ndarray, which: str) -> np.ndarray:
    """Pixels in another type, if no pixel changes. A picture that was scaled to 0..1 would all be black."""
    if array.dtype.kind not in "iuf":
        raise InvalidInput(f"{which} must hold pixels from 0 to 255. Received: dtype {array.dtype}")
    # Not a number is neither >= 0 nor whole, so that it fails here, too.
    if not ((array >= 0) & (array <= 255) & (array == np.floor(array))).all():
        raise InvalidInput(
            f"{which} must hold whole pixels from 0 to 255, not scaled or normalized: the model does that. "
            f"Received: {array.dtype} from {array.min():.6g} to {array.max():.6g}"
        )
    return array.astype(np.uint8)


def to_image(array: np.ndarray) -> Image.Image:
    """Pixels of (H, W) or (H, W, 1|3|4) as a picture."""
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


def fits(data: bytes | np.ndarray, spec: TensorSpec) -> bool:
    """Whether pixels go into an input (B, H, W, C) as they are."""
    if not isinstance(data, np.ndarray):
        return False
    shape = data.shape if data.ndim == 3 else (*data.shape, 1)
    return all(declared in (None, own) for declared, own in zip(spec.shape[1:], shape, strict=True))


def stack(images: Sequence[bytes | np.ndarray], spec: TensorSpec, first: int) -> np.ndarray:
    """A batch for an input (B, H, W, C): what fits as it is, files and other sizes decoded, scaled and cut.

    Args:
        first: place of the first image among all, for the errors' texts.

    Raises:
        InvalidInput: a file can't be decoded, the input takes no pixels, or the sizes differ where it leaves them open.
    """
    if spec.dtype not in ("uint8", "float32", "float16", "float64", "int32"):
        raise InvalidInput(f"The model must take pixels from 0 to 255. Received: an input of {spec.dtype}")
    _, height, width, channels = spec.shape
    batch = [
        image if fits(image, spec) else _fitted(image, height, width, channels, f"images[{first + place}]")
        for place, image in enumerate(images)
    ]
    batch = [image if image.ndim == 3 else image[..., None] for image in batch]
    if len({image.shape for image in batch}) > 1:
        sizes = sorted({image.shape for image in batch})
        raise InvalidInput(f"Images of one request must have one size. Received: {sizes}")
    return np.stack(batch).astype(spec.dtype, copy=False)


def _fitted(data: bytes | np.ndarray, height: int | None, width: int | None, channels: int, which: str) -> np.ndarray:
    """Pixels (height, width, channels): turned as the camera was held, scaled, and cut at the longer sides.

    What the model's own preprocessing would cut off is not known here; the whole shorter side stays.
    """
    try:
        image = Image.open(io.BytesIO(data)) if isinstance(data, bytes) else to_image(data)
        image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGBA" if channels == 4 else "RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{which} must be an image that can be decoded. Received: {error}") from error
    if height is not None and width is not None and image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def rank(outputs: Mapping[str, np.ndarray], labels: Sequence[str] | None, top_k: int) -> list[list[Classification]]:
    """The rankings of a model that answers with scores.

    Raises:
        ValueError: there are no scores of shape (images, classes).
        InvalidInput: not as many labels as classes.
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
    """The inputs, numbers without a type in the declared one.

    Raises what the server would, before anything is sent, and says what the model takes.
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
        return given  # lists of bytes must not pass through numpy's fixed-width strings
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
    """Puts the inputs into a request.

    Raises:
        InvalidInput: one is nothing that a tensor can hold.
    """
    for name, array in inputs.items():
        try:
            to_tensor(array, content=True, into=request.inputs[name])
        except (TensorError, ValueError) as error:
            raise InvalidInput(f"Input {name!r} can't be sent: {error}") from error


def read(response: pb.PredictResponse) -> dict[str, np.ndarray]:
    """The outputs of a response.

    Raises:
        ValueError: one is no array.
    """
    return {name: to_array(tensor) for name, tensor in response.outputs.items()}
