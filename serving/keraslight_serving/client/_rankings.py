"""Classify: images to requests, and their answers to rankings. No I/O but for reading images here, see `_calls`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from keraslight_serving.client._calls import Calls, Metadata
from keraslight_serving.client._images import Prepared, prepare, to_file
from keraslight_serving.client._model import Model
from keraslight_serving.client._retry import Steps
from keraslight_serving.client._tensors import Tensors
from keraslight_serving.client._types import Answer, Classification, TensorSpec
from keraslight_serving.client.errors import InvalidInput, SignatureNotFound, Unsupported
from keraslight_serving.wire import methods, ranked
from keraslight_serving.wire import serving_pb2 as pb

if TYPE_CHECKING:
    from keraslight_serving.client._images import ImageLike


class Batch(NamedTuple):
    """Images that travel together, and those among them that can't be sent."""

    first: int  # place of the first one among all images
    items: list[Prepared]


class Rankings:
    """Ranks the classes of images. See `ClassifierClient` for `batch_size` and `labels`."""

    def __init__(
        self, calls: Calls, model: Model, tensors: Tensors, *, batch_size: int, labels: Sequence[str] | None
    ) -> None:
        if batch_size < 1:
            raise InvalidInput(f"`batch_size` must be at least 1. Received: {batch_size}")
        self._calls, self._model, self._tensors = calls, model, tensors
        self._batch_size = batch_size
        self._labels = None if labels is None else list(labels)

    def batches(self, images: ImageLike | Iterable[ImageLike], top_k: int) -> Iterator[Batch]:
        """The images in groups that fit in a message.

        Raises:
            InvalidInput: `top_k` is below 1, or `images` is nothing that holds images.
        """
        if top_k < 1:
            raise self._calls.invalid(f"`top_k` must be at least 1. Received: {top_k}")
        room = self._calls.room
        items: list[Prepared] = []
        first = size = 0
        try:
            for item in prepare(images):
                bytes_ = (
                    0 if item.data is None else len(item.data) if isinstance(item.data, bytes) else item.data.nbytes
                )
                if items and (len(items) == self._batch_size or size + bytes_ > room):
                    yield Batch(first, items)
                    first, items, size = first + len(items), [], 0
                items.append(item)
                size += bytes_
        except InvalidInput as error:
            raise self._calls.invalid(str(error)) from error
        if items:
            yield Batch(first, items)

    def goes_as_it_is(self, batch: Batch) -> bool:
        """Whether no image of it has to be compressed or decoded here, as far as is known."""
        return self._model.decodes is not False and all(
            item.data is None or isinstance(item.data, bytes) for item in batch.items
        )

    def classify(self, batch: Batch, top_k: int, metadata: Metadata | None) -> Steps:
        """The `Answer`s of a batch. An image that can't be classified gets its error; errors of the server's, which
        would hit all images, are raised."""
        answers: dict[int, Answer] = {}
        good = []
        for place, item in enumerate(batch.items):
            if item.error is not None:
                answers[place] = Answer(item.source, [], self._calls.invalid(str(item.error)))
            else:
                good.append(place)
        waiting = [good] if good else []
        while waiting:
            places = waiting.pop()
            items = [batch.items[place] for place in places]
            try:
                rankings = yield from self._rank(items, batch.first + places[0], top_k, metadata)
            except InvalidInput as error:
                if len(places) > 1:  # one of them: halves tell which, and the others get their answers
                    half = len(places) // 2
                    waiting += [places[half:], places[:half]]
                    continue
                rankings = [_named(error, batch.first + places[0], items[0].source)]
            for place, item, ranking in zip(places, items, rankings, strict=True):
                failed = isinstance(ranking, InvalidInput)
                answers[place] = Answer(item.source, [] if failed else ranking, ranking if failed else None)
        return [answers[place] for place in range(len(batch.items))]

    def _rank(
        self, items: list[Prepared], first: int, top_k: int, metadata: Metadata | None, again: bool = False
    ) -> Steps:
        model = self._model
        arrays = self._labels is not None and not any(isinstance(item.data, bytes) for item in items)
        if arrays or model.decodes is False:
            spec = yield from self._pixel_input(metadata)
            fits = self._tensors.arrays.fits
            if model.decodes is False or (spec and all(fits(item.data, spec) for item in items)):
                return (yield from self._rank_pixels(items, first, spec, top_k, metadata))
        try:
            return (yield from self._rank_files(items, top_k, metadata))
        except (SignatureNotFound, InvalidInput) as error:
            # Old TensorFlow Serving has INVALID_ARGUMENT for a signature that is not there, too.
            if again or '"encoded" not found' not in error.details:
                raise
            model.forget()
            model.decodes = False
            return (yield from self._rank(items, first, top_k, metadata, again=True))

    def _rank_files(self, items: list[Prepared], top_k: int, metadata: Metadata | None) -> Steps:
        names = ("classes", "scores", "indices")
        request = pb.PredictRequest(model_spec=self._calls.spec("encoded"), output_filter=names)
        files = [to_file(item.data) for item in items]
        ranked.write_strings(request.inputs["image_bytes"], files)
        response = yield from self._tensors.send(request, sum(map(len, files)), metadata)
        outputs = response.outputs
        missing = [name for name in names if name not in outputs]
        if missing:
            raise self._calls.internal(
                f"The answer must have {', '.join(sorted(missing))}. Received: {sorted(outputs)}"
            )
        try:
            labels, scores, indices = [ranked.rows(outputs[name]) for name in names]
        except ValueError as error:
            raise self._calls.internal(f"The server's answer can't be read: {error}") from error
        if not len(labels) == len(scores) == len(indices) == len(items):
            raise self._calls.internal(
                f"The server must answer with one ranking per image, {len(items)}. Received: {len(labels)}"
            )
        return [
            [
                Classification(label.decode(errors="replace"), score, index)
                for label, score, index in zip(row[:top_k], row_scores[:top_k], row_indices[:top_k], strict=True)
            ]
            for row, row_scores, row_indices in zip(labels, scores, indices, strict=True)
        ]

    def _pixel_input(self, metadata: Metadata | None) -> Steps:
        """The one input (B, H, W, C) of the default signature, if it has one."""
        known = yield from self._model.known_metadata(metadata)
        signature = known.signatures.get(methods.DEFAULT_SIGNATURE) if known else None
        specs = list(signature.inputs.values()) if signature else []
        if (
            len(specs) == 1
            and specs[0].shape is not None
            and len(specs[0].shape) == 4
            and specs[0].shape[3] in (1, 3, 4)
        ):
            return specs[0]
        if self._model.decodes is False:
            raise Unsupported(
                "To classify images the model must have the signature `encoded`, or one input of shape "
                "(batch, height, width, 1|3|4) in `serving_default`. "
                f"Received: {sorted(known.signatures) if known else 'no metadata'}, {specs}",
                model=self._calls.model,
                version=self._calls.version,
            )
        return None

    def _rank_pixels(
        self, items: list[Prepared], first: int, spec: TensorSpec, top_k: int, metadata: Metadata | None
    ) -> Steps:
        tensors = self._tensors
        request = pb.PredictRequest(model_spec=self._calls.spec(methods.DEFAULT_SIGNATURE))
        with tensors.said_of_the_model():
            pixels = tensors.arrays.stack([item.data for item in items], spec, first)
            tensors.arrays.write(request, {spec.name: pixels})
        response = yield from tensors.send(request, pixels.nbytes, metadata)
        with tensors.said_of_the_model():
            rankings = tensors.arrays.rank(tensors.arrays.read(response), self._labels, top_k)
        if len(rankings) != len(items):
            raise self._calls.internal(
                f"The server must answer with one row per image, {len(items)}. Received: {len(rankings)}"
            )
        return rankings


def _named(error: InvalidInput, place: int, source: str) -> InvalidInput:
    which = f"images[{place}]" + (f" ({source!r})" if source != f"images[{place}]" else "")
    if str(error).startswith("images["):
        return error
    return InvalidInput(
        f"{which}: {error}",
        model=error.model,
        version=error.version,
        code=error.code,
        details=error.details,
        attempts=error.attempts,
    )
