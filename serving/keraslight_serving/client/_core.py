"""What a client asks and what the answers mean: the same for the blocking and the asyncio client. No I/O here.

The methods are generators that yield the steps of `_retry` and return the result; each client carries out the steps in
its own way.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
import numpy as np
from numpy.typing import ArrayLike

from keraslight_serving.client._endpoints import Endpoints
from keraslight_serving.client._images import ImageLike, Prepared, prepare, to_file, to_pixels
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
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import TensorError, numpy_name, to_array, to_tensor

Metadata = Mapping[str, str]


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
        self._lock = threading.Lock()

    # ------------------------------------------------------------ images

    def batches(self, images: ImageLike | Iterable[ImageLike], top_k: int) -> Iterator[Batch]:
        """The images in groups that fit in a message.

        Raises:
            InvalidInput: `top_k` is below 1, or `images` is nothing that holds images.
        """
        if top_k < 1:
            raise self.invalid(f"`top_k` must be at least 1. Received: {top_k}")
        room = self._max_message_bytes - 4096  # for what surrounds the images
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
        arrays = self.labels is not None and all(isinstance(item.data, np.ndarray) for item in items)
        if arrays or self._decodes is False:
            spec = yield from self._pixel_input(metadata)
            if self._decodes is False or (spec is not None and all(_fits(item.data, spec) for item in items)):
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
        files = {"image_bytes": [to_file(item.data) for item in items]}
        outputs = yield from self._predict(files, "encoded", ("classes", "scores", "indices"), metadata)
        missing = {"classes", "scores", "indices"} - set(outputs)
        if missing:
            raise self._internal(f"The answer must have {', '.join(sorted(missing))}. Received: {sorted(outputs)}")
        classes, scores, indices = outputs["classes"], outputs["scores"], outputs["indices"]
        if not len(classes) == len(scores) == len(indices) == len(items):
            raise self._internal(
                f"The server must answer with one ranking per image, {len(items)}. Received: {len(classes)}"
            )
        return [
            [
                Classification(label.decode(errors="replace"), float(score), int(index))
                for label, score, index in zip(*ranking, strict=True)
            ]
            for ranking in zip(classes[:, :top_k], scores[:, :top_k], indices[:, :top_k], strict=True)
        ]

    def _pixel_input(self, metadata: Metadata | None) -> Steps:
        """The one input (B, H, W, C) of the default signature, if it has one."""
        known = yield from self.known_metadata(metadata)
        signature = known.signatures.get(methods.DEFAULT_SIGNATURE) if known else None
        specs = list(signature.inputs.values()) if signature else []
        if len(specs) != 1 or specs[0].shape is None or len(specs[0].shape) != 4 or specs[0].shape[3] not in (1, 3, 4):
            if self._decodes is False:
                raise Unsupported(
                    "To classify images the model must have the signature `encoded`, or one input of shape "
                    "(batch, height, width, 1|3|4) in `serving_default`. "
                    f"Received: {sorted(known.signatures) if known else 'no metadata'}, {specs}",
                    model=self.model,
                    version=self.version,
                )
            return None
        return specs[0]

    def _rank_pixels(
        self, items: list[Prepared], first: int, spec: TensorSpec, top_k: int, metadata: Metadata | None
    ) -> Steps:
        _, height, width, channels = spec.shape
        images = [
            item.data
            if isinstance(item.data, np.ndarray) and _fits(item.data, spec)
            else to_pixels(item.data, height, width, channels, f"images[{first + place}]")
            for place, item in enumerate(items)
        ]
        images = [image if image.ndim == 3 else image[..., None] for image in images]
        if len({image.shape for image in images}) > 1:
            raise self.invalid("Images of one request must have one size. Received: several")  # the halves have one
        if spec.dtype not in ("uint8", "float32", "float16", "float64", "int32"):
            raise self.invalid(f"The model must take pixels from 0 to 255. Received: an input of {spec.dtype}")
        pixels = np.stack(images).astype(spec.dtype, copy=False)
        outputs = yield from self._predict({spec.name: pixels}, methods.DEFAULT_SIGNATURE, (), metadata)
        scores = self._probabilities(outputs)
        if scores.ndim != 2 or len(scores) != len(items):
            raise self._internal(f"The answer must have a row of scores per image. Received: shape {scores.shape}")
        if self.labels is not None and len(self.labels) != scores.shape[1]:
            raise self.invalid(f"`labels` must have a label per class, {scores.shape[1]}. Received: {len(self.labels)}")
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return [
            [
                Classification(str(index) if self.labels is None else self.labels[index], float(row[index]), int(index))
                for index in ranked
            ]
            for ranked, row in zip(order, scores, strict=True)
        ]

    def _probabilities(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        if "probabilities" in outputs:
            return outputs["probabilities"]
        if "logits" in outputs:
            shifted = np.exp(outputs["logits"] - outputs["logits"].max(axis=-1, keepdims=True))
            return shifted / shifted.sum(axis=-1, keepdims=True)
        if len(outputs) == 1:
            return next(iter(outputs.values()))
        raise self._internal(f"The answer must have `probabilities` or `logits`. Received: {sorted(outputs)}")

    # ------------------------------------------------------------ tensors

    def predict(
        self,
        inputs: Mapping[str, ArrayLike],
        signature: str,
        outputs: Iterable[str] | None,
        metadata: Metadata | None,
        timeout: float | None = None,
    ) -> Steps:
        checked = yield from self._checked(inputs, signature, metadata)
        return (yield from self._predict(checked, signature, tuple(outputs or ()), metadata, timeout))

    def _checked(self, inputs: Mapping[str, ArrayLike], signature: str, metadata: Metadata | None) -> Steps:
        """The inputs, as arrays of the declared types where they were lists, if the model can take them."""
        for fresh in (False, True):  # what was wrong for the old version may be right for the one that followed it
            if fresh:
                self.forget()
            known = yield from self.known_metadata(metadata)
            if known is None:
                return inputs
            try:
                return _check(inputs, signature, known)
            except ServingError as error:
                if fresh:
                    error.model, error.version = self.model, self.version
                    raise
        raise AssertionError  # pragma: no cover

    def _predict(
        self,
        inputs: Mapping[str, ArrayLike],
        signature: str,
        outputs: Sequence[str],
        metadata: Metadata | None,
        timeout: float | None = None,
    ) -> Steps:
        request = pb.PredictRequest(model_spec=self._spec(signature), output_filter=outputs)
        for name, array in inputs.items():
            try:
                request.inputs[name].CopyFrom(to_tensor(array, content=True))
            except (TensorError, ValueError) as error:
                raise self.invalid(f"Input {name!r} can't be sent: {error}") from error
        response = yield from self._call(methods.PREDICT, request, metadata, timeout)
        answered = response.model_spec.version.value
        if self._known is not None and answered not in (0, self._known.version):
            self.forget()  # another version, and perhaps other signatures
        try:
            return {name: to_array(tensor) for name, tensor in response.outputs.items()}
        except TensorError as error:
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
        names = pb.ModelVersionStatus.State
        return [
            VersionStatus(v.version, names.Name(v.state), v.status.error_message) for v in response.model_version_status
        ]

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
            left = deadline - self._clock()
            if left <= 0:
                raise Unavailable(
                    f"Model {self.model!r} must be ready within {timeout} seconds. Received: {reason}",
                    model=self.model,
                    version=self.version,
                    code=grpc.StatusCode.UNAVAILABLE,
                ) from cause
            yield Next(min(0.1, left))

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
    ) -> Steps:
        size = request.ByteSize()
        if size > self._max_message_bytes:
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


def _fits(data: bytes | np.ndarray, spec: TensorSpec) -> bool:
    """Whether pixels go into the input as they are."""
    if not isinstance(data, np.ndarray):
        return False
    shape = data.shape if data.ndim == 3 else (*data.shape, 1)
    return all(declared in (None, own) for declared, own in zip(spec.shape[1:], shape, strict=True))


def _check(inputs: Mapping[str, ArrayLike], signature: str, known: ModelMetadata) -> dict[str, ArrayLike]:
    """Raises what the server would, before anything is sent, and says what the model takes."""
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
    else:  # numbers without a type of their own
        try:
            array = np.asarray(given).astype(spec.dtype, copy=False)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"{takes} Received: {error}") from error
    kind = "string" if array.dtype.kind in "OSU" else array.dtype.name
    if kind != spec.dtype:
        raise InvalidInput(f"{takes} Received: {kind} of shape {_shape_text(array.shape)}")
    if spec.shape is not None and (
        len(spec.shape) != array.ndim
        or any(size not in (None, own) for size, own in zip(spec.shape, array.shape, strict=True))
    ):
        raise InvalidInput(f"{takes} Received: {kind} of shape {_shape_text(array.shape)}")
    return array


def _shape_text(shape: Sequence[int | None] | None) -> str:
    return "unknown" if shape is None else f"({', '.join('any' if size is None else str(size) for size in shape)})"


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
