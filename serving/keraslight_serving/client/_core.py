"""What a client asks and what the answers mean: the same for the blocking and the asyncio client. No I/O here.

The methods are generators that yield the steps of `_retry` and return the result; each client carries out the steps in
its own way.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from keraslight_serving.client._endpoints import Endpoints
from keraslight_serving.client._images import Prepared, prepare, to_file
from keraslight_serving.client._retry import Caller, CallEvent, CallFailed, Next, Retry, Steps
from keraslight_serving.client._types import (
    Answer,
    Classification,
    ModelMetadata,
    Signature,
    TensorSpec,
    VersionStatus,
)
from keraslight_serving.client.errors import (
    ClientClosed,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    ModelNotFound,
    ServingError,
    SignatureNotFound,
    Unavailable,
    Unsupported,
    from_rpc_error,
)
from keraslight_serving.wire import methods, ranked
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import numpy_name

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from keraslight_serving.client._images import ImageLike

Metadata = Mapping[str, str]

_AROUND = 4096  # bytes of a request that surround its images, at most


class Batch(NamedTuple):
    """Images that travel together, and those among them that can't be sent."""

    first: int  # place of the first one among all images
    items: list[Prepared]


class Core:
    """See `ClassifierClient` for the arguments."""

    def __init__(
        self,
        endpoints: Endpoints,
        model: str,
        *,
        version: int | str | None,
        timeout: float,
        max_message_bytes: int,
        batch_size: int,
        labels: Sequence[str] | None,
        retry: Retry,
        token: str | Callable[[], str] | None,
        metadata: Metadata | None,
        hooks: Sequence[Callable[[CallEvent], None]],
        clock: Callable[[], float] = time.monotonic,
        random_state: random.Random | None = None,
    ) -> None:
        # TensorFlow Serving takes a 0 on the wire for a version of that number, not for "any".
        if isinstance(version, int) and version < 1:
            raise InvalidInput(f"`version` must be at least 1, or None for the newest. Received: {version}")
        if timeout <= 0:
            raise InvalidInput(f"`timeout` must be above 0 seconds. Received: {timeout}")
        if batch_size < 1:
            raise InvalidInput(f"`batch_size` must be at least 1. Received: {batch_size}")
        self.model, self.version, self.timeout = model, version, timeout
        self.labels = None if labels is None else list(labels)
        self._max_message_bytes, self._batch_size = max_message_bytes, batch_size
        self._token, self._sent_along, self._clock = token, dict(metadata or {}), clock
        self._endpoints = endpoints
        self._caller = Caller(endpoints, retry, hooks, clock=clock, random_state=random_state)
        self._known: ModelMetadata | None = None
        self._decodes: bool | None = None  # whether the model has the signature `encoded`; None: not known yet

    # ------------------------------------------------------------ images

    def batches(self, images: ImageLike | Iterable[ImageLike], top_k: int) -> Iterator[Batch]:
        """The images in groups that fit in a message.

        Raises:
            InvalidInput: `top_k` is below 1, or `images` is nothing that holds images.
        """
        if top_k < 1:
            raise self.invalid(f"`top_k` must be at least 1. Received: {top_k}")
        room = self._max_message_bytes - _AROUND
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
            raise self.invalid(str(error)) from error
        if items:
            yield Batch(first, items)

    def goes_as_it_is(self, batch: Batch) -> bool:
        """Whether no image of it has to be compressed or decoded here, as far as is known."""
        return self._decodes is not False and all(
            item.data is None or isinstance(item.data, bytes) for item in batch.items
        )

    def classify(self, batch: Batch, top_k: int, metadata: Metadata | None) -> Steps:
        """The `Answer`s of a batch. An image that can't be classified gets its error; errors of the server's, which
        would hit all images, are raised."""
        answers: dict[int, Answer] = {}
        good = []
        for place, item in enumerate(batch.items):
            if item.error is not None:
                answers[place] = Answer(item.source, [], self.invalid(str(item.error)))
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
                rankings = [self._named(error, batch.first + places[0], items[0].source)]
            for place, item, ranking in zip(places, items, rankings, strict=True):
                failed = isinstance(ranking, InvalidInput)
                answers[place] = Answer(item.source, [] if failed else ranking, ranking if failed else None)
        return [answers[place] for place in range(len(batch.items))]

    def _named(self, error: InvalidInput, place: int, source: str) -> InvalidInput:
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

    def _rank(
        self, items: list[Prepared], first: int, top_k: int, metadata: Metadata | None, again: bool = False
    ) -> Steps:
        arrays = self.labels is not None and not any(isinstance(item.data, bytes) for item in items)
        if arrays or self._decodes is False:
            spec = yield from self._pixel_input(metadata)
            if self._decodes is False or (spec and all(self._arrays.fits(item.data, spec) for item in items)):
                return (yield from self._rank_pixels(items, first, spec, top_k, metadata))
        try:
            return (yield from self._rank_files(items, top_k, metadata))
        except (SignatureNotFound, InvalidInput) as error:
            # Old TensorFlow Serving has INVALID_ARGUMENT for a signature that is not there, too.
            if again or '"encoded" not found' not in error.details:
                raise
            self.forget()
            self._decodes = False
            return (yield from self._rank(items, first, top_k, metadata, again=True))

    def _rank_files(self, items: list[Prepared], top_k: int, metadata: Metadata | None) -> Steps:
        names = ("classes", "scores", "indices")
        request = pb.PredictRequest(model_spec=self._spec("encoded"), output_filter=names)
        files = [to_file(item.data) for item in items]
        ranked.write_strings(request.inputs["image_bytes"], files)
        response = yield from self._predict(request, sum(map(len, files)), metadata)
        outputs = response.outputs
        missing = [name for name in names if name not in outputs]
        if missing:
            raise self._internal(f"The answer must have {', '.join(sorted(missing))}. Received: {sorted(outputs)}")
        try:
            labels, scores, indices = [ranked.rows(outputs[name]) for name in names]
        except ValueError as error:
            raise self._internal(f"The server's answer can't be read: {error}") from error
        if not len(labels) == len(scores) == len(indices) == len(items):
            raise self._internal(
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
        known = yield from self.known_metadata(metadata)
        signature = known.signatures.get(methods.DEFAULT_SIGNATURE) if known else None
        specs = list(signature.inputs.values()) if signature else []
        if (
            len(specs) == 1
            and specs[0].shape is not None
            and len(specs[0].shape) == 4
            and specs[0].shape[3] in (1, 3, 4)
        ):
            return specs[0]
        if self._decodes is False:
            raise Unsupported(
                "To classify images the model must have the signature `encoded`, or one input of shape "
                "(batch, height, width, 1|3|4) in `serving_default`. "
                f"Received: {sorted(known.signatures) if known else 'no metadata'}, {specs}",
                model=self.model,
                version=self.version,
            )
        return None

    def _rank_pixels(
        self, items: list[Prepared], first: int, spec: TensorSpec, top_k: int, metadata: Metadata | None
    ) -> Steps:
        request = pb.PredictRequest(model_spec=self._spec(methods.DEFAULT_SIGNATURE))
        with self._said_of_the_model():
            pixels = self._arrays.stack([item.data for item in items], spec, first)
            self._arrays.write(request, {spec.name: pixels})
        response = yield from self._predict(request, pixels.nbytes, metadata)
        with self._said_of_the_model():
            rankings = self._arrays.rank(self._arrays.read(response), self.labels, top_k)
        if len(rankings) != len(items):
            raise self._internal(
                f"The server must answer with one row per image, {len(items)}. Received: {len(rankings)}"
            )
        return rankings

    # ------------------------------------------------------------ tensors

    def predict(
        self,
        inputs: Mapping[str, ArrayLike],
        signature: str,
        outputs: Iterable[str] | None,
        metadata: Metadata | None,
        timeout: float | None = None,
    ) -> Steps:
        arrays = self._arrays
        known = yield from self.known_metadata(metadata)
        try:
            checked = inputs if known is None else arrays.check(inputs, signature, known)
        except ServingError:
            # What was wrong for the old version may be right for the one that followed it.
            self.forget()
            known = yield from self.known_metadata(metadata)
            with self._said_of_the_model():
                checked = inputs if known is None else arrays.check(inputs, signature, known)
        request = pb.PredictRequest(model_spec=self._spec(signature), output_filter=tuple(outputs or ()))
        with self._said_of_the_model():
            arrays.write(request, checked)
        response = yield from self._predict(request, None, metadata, timeout)
        with self._said_of_the_model():
            return arrays.read(response)

    def _predict(
        self,
        request: pb.PredictRequest,
        payload: int | None,
        metadata: Metadata | None,
        timeout: float | None = None,
    ) -> Steps:
        response = yield from self._call(methods.PREDICT, request, metadata, timeout, payload=payload)
        answered = response.model_spec.version.value
        if self._known is not None and answered not in (0, self._known.version):
            self.forget()  # another version, and perhaps other signatures
        return response

    @property
    def _arrays(self) -> ModuleType:
        try:
            from keraslight_serving.client import _arrays
        except ModuleNotFoundError as error:
            raise Unsupported(
                f"Arrays need numpy: pip install numpy. Received: {error}", model=self.model, version=self.version
            ) from error
        return _arrays

    @contextmanager
    def _said_of_the_model(self) -> Iterator[None]:
        """Errors of functions that don't know the model are said of it; of the answer, they are the server's."""
        try:
            yield
        except ServingError as error:
            error.model, error.version = self.model, self.version
            raise
        except ValueError as error:
            raise self._internal(f"The server's answer can't be read: {error}") from error

    # ------------------------------------------------------------ the model

    def known_metadata(self, metadata: Metadata | None = None) -> Steps:
        """The metadata, asked for once; None from a server that can't tell."""
        if self._known is None:
            try:
                found = yield from self.metadata(metadata)
            except Unsupported:
                return None
            self._known = found
            self._decodes = "encoded" in found.signatures
        return self._known

    def forget(self) -> None:
        """What is known of the model; the next call asks again."""
        self._known = self._decodes = None

    def metadata(self, metadata: Metadata | None = None) -> Steps:
        request = pb.GetModelMetadataRequest(model_spec=self._spec(), metadata_field=["signature_def"])
        response = yield from self._call(methods.GET_MODEL_METADATA, request, metadata)
        # By its bytes: the name in the Any is TensorFlow Serving's, and `Unpack` would compare it with ours.
        found = pb.SignatureDefMap.FromString(response.metadata["signature_def"].value)
        signatures = {
            name: Signature(name, signature.method_name, _specs(signature.inputs), _specs(signature.outputs))
            for name, signature in sorted(found.signature_def.items())
            if signature.inputs  # TensorFlow lists its initializer, too
        }
        return ModelMetadata(response.model_spec.name, response.model_spec.version.value, signatures)

    def status(
        self, metadata: Metadata | None = None, timeout: float | None = None, wait_for_ready: bool = False
    ) -> Steps:
        request = pb.GetModelStatusRequest(model_spec=self._spec())
        response = yield from self._call(methods.GET_MODEL_STATUS, request, metadata, timeout, wait_for_ready)
        return _version_statuses(response)

    def models(self, metadata: Metadata | None = None) -> Steps:
        try:
            response = yield from self._call(methods.LIST_MODELS, pb.ListModelsRequest(), metadata)
        except Unsupported as error:
            raise Unsupported(
                "To list its models, the server must be keraslight's, asked over gRPC: TensorFlow Serving has no such "
                f"call. Received: {error}",
                model=self.model,
                version=self.version,
                code=error.code,
                details=error.details,
                attempts=error.attempts,
            ) from error
        return {model.name: _version_statuses(model) for model in response.model}

    def wait_until_ready(self, timeout: float) -> Steps:
        deadline = self._clock() + timeout
        while True:
            left = max(deadline - self._clock(), 0.001)
            try:
                versions = yield from self.status(None, min(left, 1.0), wait_for_ready=True)
            except (Unavailable, DeadlineExceeded, ModelNotFound) as error:
                reason, cause = str(error), error
            else:
                if any(version.state == "AVAILABLE" for version in versions):
                    return None
                reason = "; ".join(f"version {v.version} is {v.state} {v.error}".strip() for v in versions)
                cause = None
            # The last pause ends with the time: a try in what is left of a millisecond would only hide the reason.
            yield Next(max(min(0.1, deadline - self._clock()), 0.0))
            if self._clock() >= deadline:
                raise Unavailable(
                    f"Model {self.model!r} must be ready within {timeout} seconds. Received: {reason}",
                    model=self.model,
                    version=self.version,
                    code=grpc.StatusCode.UNAVAILABLE,
                ) from cause

    # ------------------------------------------------------------ calls

    def _spec(self, signature: str = "") -> pb.ModelSpec:
        spec = pb.ModelSpec(name=self.model, signature_name=signature)
        if isinstance(self.version, str):
            spec.version_label = self.version
        elif self.version is not None:
            spec.version.value = self.version
        return spec

    def _call(
        self,
        method: methods.Method,
        request: Any,
        metadata: Metadata | None,
        timeout: float | None = None,
        wait_for_ready: bool = False,
        payload: int | None = None,
    ) -> Steps:
        # `payload`, the bytes of the tensors where they are known: ByteSize costs as much as serializing them.
        small = payload is not None and payload <= self._max_message_bytes - _AROUND
        if not small and (size := request.ByteSize()) > self._max_message_bytes:
            raise self.invalid(
                f"A request must fit in `max_message_bytes`, {self._max_message_bytes}. Received: {size} bytes"
            )
        sent_along = list({**self._sent_along, **(metadata or {})}.items())
        if self._token is not None:
            token = self._token() if callable(self._token) else self._token
            sent_along.append(("authorization", f"Bearer {token}"))
        if timeout is not None and timeout <= 0:
            raise self.invalid(f"`timeout` must be above 0 seconds. Received: {timeout}")
        try:
            return (
                yield from self._caller.call(
                    method,
                    request,
                    model=self.model,
                    timeout=timeout or self.timeout,
                    metadata=sent_along,
                    wait_for_ready=wait_for_ready,
                )
            )
        except CallFailed as failed:
            raise from_rpc_error(
                failed.error,
                target=failed.address,
                model=self.model,
                version=self.version,
                attempts=failed.attempts,
            ) from failed.error

    def invalid(self, text: str) -> InvalidInput:
        return InvalidInput(text, model=self.model, version=self.version)

    def _internal(self, text: str) -> InternalError:
        return InternalError(text, model=self.model, version=self.version)

    def closed(self, text: str) -> ClientClosed:
        return ClientClosed(text, model=self.model, version=self.version)


def _version_statuses(message: pb.GetModelStatusResponse | pb.ListModelsResponse.Model) -> list[VersionStatus]:
    name = pb.ModelVersionStatus.State.Name
    return [VersionStatus(v.version, name(v.state), v.status.error_message) for v in message.model_version_status]


def _specs(infos: Mapping[str, pb.TensorInfo]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            name,
            numpy_name(info.dtype),
            None
            if info.tensor_shape.unknown_rank
            else tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim),
        )
        for name, info in sorted(infos.items())
    }
