"""Classify: images -> requests, responses -> rankings. No I/O here except for reading images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from keraslight_serving.client._calls import Calls, Metadata, reworded
from keraslight_serving.client._images import Prepared, prepare, to_file
from keraslight_serving.client._model import Model
from keraslight_serving.client._retry import Steps
from keraslight_serving.client._types import Answer, Classification, Threshold
from keraslight_serving.client.errors import InvalidInput, SignatureNotFound, Unsupported
from keraslight_serving.wire import ranked, serving_pb2 as pb

if TYPE_CHECKING:
    from keraslight_serving.client._arrays import Arrays
    from keraslight_serving.client._images import Images


class Batch(NamedTuple):
    """Images of one request, including those that can't be sent."""

    first: int  # position of the first one among all images
    items: list[Prepared]


class Rankings:
    """Ranks the classes of images. See `ClassifierClient` for `batch_size` and `labels`."""

    def __init__(self, calls: Calls, model: Model, *, batch_size: int, labels: Sequence[str] | None) -> None:
        if batch_size < 1:
            raise InvalidInput(f"`batch_size` must be at least 1. Received: {batch_size}")
        self._calls, self._model, self._batch_size = calls, model, batch_size
        self._labels = None if labels is None else list(labels)

    @property
    def arrays(self) -> Arrays:
        """The same model for arrays. Raises Unsupported if numpy is not installed."""
        try:
            from keraslight_serving.client._arrays import Arrays
        except ModuleNotFoundError as error:
            text = f"Arrays need numpy: pip install numpy. Received: {error}"
            raise self._calls.error(Unsupported, text) from error
        return Arrays(self._calls, self._model)

    def batches(self, images: Images, top_k: int, threshold: Threshold) -> Iterator[Batch]:
        """Groups the images so that each group fits in a request. Raises InvalidInput as `prepare` does."""
        if top_k < 1:
            raise self._calls.invalid(f"`top_k` must be at least 1. Received: {top_k}")
        if isinstance(threshold, str) and threshold != "model":
            raise self._calls.invalid(f"`threshold` must be a number or 'model'. Received: {threshold!r}")
        items: list[Prepared] = []
        first = size = 0
        try:
            for item in prepare(images):
                bytes_ = len(item.data) if isinstance(item.data, bytes) else item.data.nbytes
                if items and (len(items) == self._batch_size or size + bytes_ > self._calls.room):
                    yield Batch(first, items)
                    first, items, size = first + len(items), [], 0
                items.append(item)
                size += bytes_
        except InvalidInput as error:
            raise self._calls.invalid(str(error)) from error
        if items:
            yield Batch(first, items)

    def all_files(self, batch: Batch) -> bool:
        """Whether the images are sent as they are, so that nothing has to be compressed or decoded here."""
        return self._model.decodes is not False and all(isinstance(item.data, bytes) for item in batch.items)

    def classify(
        self, batch: Batch, top_k: int, threshold: Threshold, metadata: Metadata | None
    ) -> Steps[list[Answer]]:
        """Classifies a batch. Images that can't be classified get an error; other errors of the server are raised."""
        answers: dict[int, Answer] = {}
        good = []
        for place, item in enumerate(batch.items):
            if item.error is None:
                good.append(place)
            else:
                answers[place] = Answer(item.source, [], self._calls.invalid(str(item.error)))
        waiting = [good] if good else []
        while waiting:
            places = waiting.pop()
            items = [batch.items[place] for place in places]
            first = batch.first + places[0]
            try:
                rankings = yield from self._rank(items, first, top_k, threshold, metadata)
            except InvalidInput as error:
                if len(places) == 1:
                    answers[places[0]] = Answer(items[0].source, [], _named(error, first, items[0].source))
                else:  # halves find the bad image, and classify the others
                    half = len(places) // 2
                    waiting += [places[half:], places[:half]]
            else:
                for place, item, ranking in zip(places, items, rankings, strict=True):
                    answers[place] = Answer(item.source, ranking)
        return [answers[place] for place in range(len(batch.items))]

    def _rank(
        self,
        items: list[Prepared],
        first: int,
        top_k: int,
        threshold: Threshold,
        metadata: Metadata | None,
        again: bool = False,
    ) -> Steps[list[list[Classification]]]:
        model = self._model
        raw = self._labels is not None and not any(isinstance(item.data, bytes) for item in items)
        if isinstance(threshold, str):
            raw = False  # only `encoded` returns thresholds
            if model.decodes is False:
                raise model.has_no_thresholds()
        if raw or model.decodes is False:
            spec = yield from model.pixel_input(metadata)
            model.check_ranks()
            images = [item.data for item in items]
            if spec is not None and (model.decodes is False or all(map(spec.takes, images))):
                rankings = yield from self.arrays.rank(images, first, spec, self._labels, top_k, metadata)
                least = -math.inf if threshold is None or isinstance(threshold, str) else threshold
                return [[found for found in ranking if found.score > least] for ranking in rankings]
        try:
            return (yield from self._rank_files(items, top_k, threshold, metadata))
        except (SignatureNotFound, InvalidInput) as error:
            if "output tensor alias not found in signature: thresholds" in error.details:
                raise model.has_no_thresholds() from error
            if "output tensor alias not found in signature" in error.details:
                raise model.ranks_nothing() from error
            # Old versions of TensorFlow Serving use INVALID_ARGUMENT for missing signatures.
            if again or '"encoded" not found' not in error.details:
                raise
            model.forget()
            model.decodes = False
            return (yield from self._rank(items, first, top_k, threshold, metadata, again=True))

    def _rank_files(
        self, items: list[Prepared], top_k: int, threshold: Threshold, metadata: Metadata | None
    ) -> Steps[list[list[Classification]]]:
        names = ["classes", "scores", "indices", *(["thresholds"] if threshold == "model" else [])]
        request = pb.PredictRequest(model_spec=self._calls.spec("encoded"), output_filter=names)
        files = [to_file(item.data) for item in items]
        ranked.write_strings(request.inputs["image_bytes"], files)
        response = yield from self._model.predict(request, sum(map(len, files)), metadata)
        outputs = response.outputs
        missing = [name for name in names if name not in outputs]
        if missing:
            raise self._calls.internal(
                f"The answer must have {', '.join(sorted(missing))}. Received: {sorted(outputs)}"
            )
        try:
            labels, scores, indices, *limits = [ranked.rows(outputs[name]) for name in names]
        except ValueError as error:
            raise self._calls.internal(f"The server's answer can't be read: {error}") from error
        if not limits:
            limits = [[[-math.inf if threshold is None else threshold] * len(row) for row in scores]]
        if not len(labels) == len(scores) == len(indices) == len(limits[0]) == len(items):
            text = f"The server must answer with one ranking per image, {len(items)}. Received: {len(labels)}"
            raise self._calls.internal(text)
        return [
            [
                Classification(label.decode(errors="replace"), score, index)
                for label, score, index, limit in zip(*row, strict=True)
                if score > limit
            ][:top_k]
            for row in zip(labels, scores, indices, limits[0], strict=True)
        ]


def _named(error: InvalidInput, place: int, source: str) -> InvalidInput:
    """The error with the name of the image that it is about."""
    if str(error).startswith("images["):
        return error
    which = f"images[{place}]" + (f" ({source!r})" if source != f"images[{place}]" else "")
    return reworded(error, f"{which}: {error}")
