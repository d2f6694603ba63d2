"""Predict and classify with numpy arrays. Imported only when there are any, so that files don't need numpy.

No I/O here, see `_calls`.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from keraslight_serving.client._calls import Calls, Metadata
from keraslight_serving.client._model import Model, PixelInput
from keraslight_serving.client._pixels import decoded
from keraslight_serving.client._retry import Steps
from keraslight_serving.client._types import Classification, ModelMetadata, TensorSpec
from keraslight_serving.client.errors import InvalidInput, ServingError, SignatureNotFound, Unsupported
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import TensorError, to_array, to_tensor

_SHAPES = "(height, width), (height, width, 1|3|4) or, for a batch, (images, height, width, 1|3|4)"


class Arrays:
    """Runs signatures of the client's model on arrays."""

    def __init__(self, calls: Calls, model: Model) -> None:
        self._calls, self._model = calls, model

    def predict(
        self,
        inputs: Mapping[str, ArrayLike],
        signature: str,
        outputs: Iterable[str] | None,
        metadata: Metadata | None,
        timeout: float | None,
    ) -> Steps[dict[str, NDArray[Any]]]:
        """See `ClassifierClient.predict`."""
        model = self._model
        known = yield from model.known_metadata(metadata)
        try:
            checked = inputs if known is None else check(inputs, signature, known)
        except ServingError:  # the next version of the model may take these inputs
            model.forget()
            known = yield from model.known_metadata(metadata)
            with self._errors_of_the_model():
                checked = inputs if known is None else check(inputs, signature, known)
        request = self._request(checked, signature, outputs or ())
        response = yield from model.predict(request, None, metadata, timeout)
        with self._errors_of_the_model():
            return _read(response)

    def rank(
        self,
        images: Sequence[bytes | NDArray[np.uint8]],
        first: int,
        spec: PixelInput,
        labels: Sequence[str] | None,
        top_k: int,
        metadata: Metadata | None,
    ) -> Steps[list[list[Classification]]]:
        """Ranks images, as pixels for `serving_default`. `first`: position of the first one, for error texts."""
        with self._errors_of_the_model():
            pixels = stack(images, spec, first)
        request = self._request({spec.name: pixels}, methods.DEFAULT_SIGNATURE, ())
        response = yield from self._model.predict(request, pixels.nbytes, metadata)
        with self._errors_of_the_model():
            rankings = rank(_read(response), labels, top_k)
        if len(rankings) != len(images):
            text = f"The server must answer with one row per image, {len(images)}. Received: {len(rankings)}"
            raise self._calls.internal(text)
        return rankings

    def _request(self, inputs: Mapping[str, ArrayLike], signature: str, outputs: Iterable[str]) -> pb.PredictRequest:
        request = pb.PredictRequest(model_spec=self._calls.spec(signature), output_filter=tuple(outputs))
        for name, array in inputs.items():
            try:
                to_tensor(array, content=True, into=request.inputs[name])
            except (TensorError, ValueError) as error:
                raise self._calls.invalid(f"Input {name!r} can't be sent: {error}") from error
        return request

    @contextmanager
    def _errors_of_the_model(self) -> Iterator[None]:
        """Adds the model to errors of functions that don't know it. A ValueError means an invalid response."""
        try:
            yield
        except ServingError as error:
            error.model, error.version = self._calls.model, self._calls.version
            raise
        except ValueError as error:
            raise self._calls.internal(f"The server's answer can't be read: {error}") from error


def _read(response: pb.PredictResponse) -> dict[str, NDArray[Any]]:
    return {name: to_array(tensor) for name, tensor in response.outputs.items()}


def pixels(given: ArrayLike, which: str) -> NDArray[np.uint8]:
    """Converts an image (H, W) or (H, W, 1|3|4) of any dtype to uint8, if all pixels are whole."""
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


def stack(images: Sequence[bytes | NDArray[np.uint8]], spec: PixelInput, first: int) -> NDArray[Any]:
    """A batch for an input: files, and pixels of other sizes, are decoded, scaled and cropped. `first`: see `rank`."""
    if spec.dtype not in ("uint8", "float32", "float16", "float64", "int32"):
        raise InvalidInput(f"The model must take pixels from 0 to 255. Received: an input of {spec.dtype}")
    batch = [_fitted(image, spec, f"images[{place}]") for place, image in enumerate(images, first)]
    if len(sizes := {image.shape for image in batch}) > 1:
        raise InvalidInput(f"Images of one request must have one size. Received: {sorted(sizes)}")
    return np.stack(batch).astype(spec.dtype, copy=False)


def _fitted(data: bytes | NDArray[np.uint8], spec: PixelInput, which: str) -> NDArray[np.uint8]:
    """Pixels (height, width, channels): rotated upright, scaled, and cropped to the center.

    The client doesn't know how much the model's own preprocessing would crop, so it keeps the whole shorter side.
    """
    if not isinstance(data, bytes) and spec.takes(data):
        array = data
    else:
        try:
            image = Image.open(io.BytesIO(data)) if isinstance(data, bytes) else to_image(data)
            image = decoded(image).convert({1: "L", 4: "RGBA"}.get(spec.channels, "RGB"))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise InvalidInput(f"{which} must be an image that can be decoded. Received: {error}") from error
        if spec.height is not None and spec.width is not None and image.size != (spec.width, spec.height):
            image = ImageOps.fit(image, (spec.width, spec.height), Image.Resampling.BILINEAR)
        array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def rank(outputs: Mapping[str, NDArray[Any]], labels: Sequence[str] | None, top_k: int) -> list[list[Classification]]:
    """The rankings of a model that returns scores.

    Raises ValueError if none have the shape (images, classes), and Unsupported for a single logit.
    """
    if "probabilities" in outputs:
        scores = outputs["probabilities"]
    elif "logits" in outputs:
        if outputs["logits"].shape[-1:] == (1,):  # a softmax would give 1 whatever it is
            raise Unsupported(
                "To classify images the model must return `probabilities`, or `logits` of at least two classes. "
                f"Received: logits of shape {outputs['logits'].shape}"
            )
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


def check(inputs: Mapping[str, ArrayLike], signature: str, known: ModelMetadata) -> dict[str, ArrayLike]:
    """Checks inputs before they are sent, and converts lists of numbers to the declared dtype."""
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
    try:
        array = given if isinstance(given, np.ndarray) else np.asarray(given).astype(spec.dtype, copy=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{takes} Received: {error}") from error
    kind = "string" if array.dtype.kind in "OSU" else array.dtype.name
    sizes = array.shape if spec.shape is None else spec.shape
    fits = len(sizes) == array.ndim and all(a in (None, b) for a, b in zip(sizes, array.shape, strict=True))
    if kind != spec.dtype or not fits:
        raise InvalidInput(f"{takes} Received: {kind} of shape {_shape_text(array.shape)}")
    return array


def _shape_text(shape: Sequence[int | None] | None) -> str:
    return "unknown" if shape is None else f"({', '.join('any' if size is None else str(size) for size in shape)})"
