"""Predict on arrays. Needs numpy, so it is imported only when arrays are sent or requested. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import ArrayLike, NDArray

from keraslight_serving.client import _arrays
from keraslight_serving.client._calls import Calls, Metadata
from keraslight_serving.client._images import Prepared
from keraslight_serving.client._model import Model, PixelInput
from keraslight_serving.client._retry import Steps
from keraslight_serving.client._types import Classification
from keraslight_serving.client.errors import ServingError
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb


class Tensors:
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
            checked = inputs if known is None else _arrays.check(inputs, signature, known)
        except ServingError:  # the next version of the model may take these inputs
            model.forget()
            known = yield from model.known_metadata(metadata)
            with self._errors_of_the_model():
                checked = inputs if known is None else _arrays.check(inputs, signature, known)
        request = pb.PredictRequest(model_spec=self._calls.spec(signature), output_filter=tuple(outputs or ()))
        with self._errors_of_the_model():
            _arrays.write(request, checked)
        response = yield from model.predict(request, None, metadata, timeout)
        with self._errors_of_the_model():
            return _arrays.read(response)

    def fit(self, items: Sequence[Prepared], spec: PixelInput) -> bool:
        """Whether all images are pixels that the input takes without scaling."""
        return all(_arrays.fits(item.data, spec) for item in items)

    def rank(
        self,
        items: Sequence[Prepared],
        first: int,
        spec: PixelInput,
        labels: Sequence[str] | None,
        top_k: int,
        metadata: Metadata | None,
    ) -> Steps[list[list[Classification]]]:
        """Ranks images as pixels, by the input `spec` of `serving_default`."""
        request = pb.PredictRequest(model_spec=self._calls.spec(methods.DEFAULT_SIGNATURE))
        with self._errors_of_the_model():
            pixels = _arrays.stack([item.data for item in items], spec, first)
            _arrays.write(request, {spec.name: pixels})
        response = yield from self._model.predict(request, pixels.nbytes, metadata)
        with self._errors_of_the_model():
            rankings = _arrays.rank(_arrays.read(response), labels, top_k)
        if len(rankings) != len(items):
            raise self._calls.internal(
                f"The server must answer with one row per image, {len(items)}. Received: {len(rankings)}"
            )
        return rankings

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
