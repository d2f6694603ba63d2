"""Predict: tensors to a request, and its answer to arrays. No I/O here, see `_calls`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from keraslight_serving.client._calls import Calls, Metadata
from keraslight_serving.client._model import Model
from keraslight_serving.client._retry import Steps
from keraslight_serving.client.errors import ServingError, Unsupported
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Tensors:
    """Runs signatures of the client's model."""

    def __init__(self, calls: Calls, model: Model) -> None:
        self._calls, self._model = calls, model

    def predict(
        self,
        inputs: Mapping[str, ArrayLike],
        signature: str,
        outputs: Iterable[str] | None,
        metadata: Metadata | None,
        timeout: float | None = None,
    ) -> Steps:
        arrays, model = self.arrays, self._model
        known = yield from model.known_metadata(metadata)
        try:
            checked = inputs if known is None else arrays.check(inputs, signature, known)
        except ServingError:
            # What was wrong for the old version may be right for the one that followed it.
            model.forget()
            known = yield from model.known_metadata(metadata)
            with self.said_of_the_model():
                checked = inputs if known is None else arrays.check(inputs, signature, known)
        request = pb.PredictRequest(model_spec=self._calls.spec(signature), output_filter=tuple(outputs or ()))
        with self.said_of_the_model():
            arrays.write(request, checked)
        response = yield from self.send(request, None, metadata, timeout)
        with self.said_of_the_model():
            return arrays.read(response)

    def send(
        self,
        request: pb.PredictRequest,
        payload: int | None,
        metadata: Metadata | None,
        timeout: float | None = None,
    ) -> Steps:
        """The response to a request with so many bytes of tensors; None: not known."""
        response = yield from self._calls.call(methods.PREDICT, request, metadata, timeout, payload=payload)
        self._model.answered(response.model_spec.version.value)
        return response

    @property
    def arrays(self) -> ModuleType:
        """`_arrays`, which needs numpy."""
        try:
            from keraslight_serving.client import _arrays
        except ModuleNotFoundError as error:
            raise Unsupported(
                f"Arrays need numpy: pip install numpy. Received: {error}",
                model=self._calls.model,
                version=self._calls.version,
            ) from error
        return _arrays

    @contextmanager
    def said_of_the_model(self) -> Iterator[None]:
        """Errors of functions that don't know the model are said of it; of the answer, they are the server's."""
        try:
            yield
        except ServingError as error:
            error.model, error.version = self._calls.model, self._calls.version
            raise
        except ValueError as error:
            raise self._calls.internal(f"The server's answer can't be read: {error}") from error
