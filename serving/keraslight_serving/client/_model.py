"""The client's model: what it predicts, what the server tells about it, and what is remembered of that. No I/O here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import grpc

from keraslight_serving.client._calls import Calls, Metadata, reworded
from keraslight_serving.client._retry import Steps, Wait
from keraslight_serving.client._types import ModelMetadata, Signature, TensorSpec, VersionStatus
from keraslight_serving.client.errors import DeadlineExceeded, ModelNotFound, ServingError, Unavailable, Unsupported
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.dtypes import numpy_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class PixelInput(NamedTuple):
    """An input of shape (images, height, width, channels); None for variable sizes."""

    name: str
    dtype: str
    height: int | None
    width: int | None
    channels: int

    def takes(self, image: bytes | NDArray[np.uint8]) -> bool:
        """Whether these are pixels (H, W) or (H, W, C) of the right size."""
        if isinstance(image, bytes):
            return False
        shape = image.shape if image.ndim == 3 else (*image.shape, 1)
        return all(size in (None, own) for size, own in zip(self[2:], shape, strict=True))


class Model:
    """The client's model, as far as the server describes it."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._known: ModelMetadata | None = None
        self.decodes: bool | None = None  # whether it has the signature `encoded`; None as long as that is unknown

    def predict(
        self, request: pb.PredictRequest, payload: int | None, metadata: Metadata | None, timeout: float | None = None
    ) -> Steps[pb.PredictResponse]:
        """Sends a request with `payload` bytes of tensors (None: unknown) and returns the response."""
        response = yield from self._calls.call(methods.PREDICT, request, metadata, timeout, payload=payload)
        # Another version may have other signatures.
        if self._known is not None and response.model_spec.version.value not in (0, self._known.version):
            self.forget()
        return response

    def known_metadata(self, metadata: Metadata | None = None) -> Steps[ModelMetadata | None]:
        """The metadata, requested once; None if the server doesn't support that."""
        if self._known is None:
            try:
                found = yield from self.metadata(metadata)
            except Unsupported:
                return None
            self._known = found
            self.decodes = "encoded" in found.signatures
        return self._known

    def pixel_input(self, metadata: Metadata | None) -> Steps[PixelInput | None]:
        """The input of `serving_default`, if it has a single one, which takes images.

        Raises Unsupported if it has none and the model doesn't decode images either.
        """
        known = yield from self.known_metadata(metadata)
        signature = known.signatures.get(methods.DEFAULT_SIGNATURE) if known else None
        specs = list(signature.inputs.values()) if signature else []
        match [spec.shape for spec in specs]:
            case [(_, height, width, (1 | 3 | 4) as channels)]:
                return PixelInput(specs[0].name, specs[0].dtype, height, width, channels)
        if self.decodes is False:
            raise self._calls.error(
                Unsupported,
                "To classify images the model must have the signature `encoded`, or one input of shape "
                "(batch, height, width, 1|3|4) in `serving_default`. "
                f"Received: {sorted(known.signatures) if known else 'no metadata'}, {specs}",
            )
        return None

    def check_ranks(self) -> None:
        """Raises Unsupported if the model is known to return numbers rather than classes."""
        encoded = self._known.signatures.get("encoded") if self._known else None
        if encoded is not None and "classes" not in encoded.outputs:
            raise self.ranks_nothing()

    def ranks_nothing(self) -> Unsupported:
        """The error for a model whose `encoded` has no ranking, such as a regression."""
        return self._calls.error(
            Unsupported,
            "To classify images the model must rank classes: `encoded` must return `classes`, `scores` and `indices`. "
            f"Received: model {self._calls.model!r}, which doesn't. A regression returns numbers: use `predict`",
        )

    def has_no_thresholds(self) -> Unsupported:
        """The error for a model whose `encoded` has none."""
        return self._calls.error(
            Unsupported,
            'threshold="model" is for multi-label models with thresholds: `encoded` must return `thresholds`. '
            f"Received: model {self._calls.model!r}, which doesn't; pass a number",
        )

    def forget(self) -> None:
        """Makes the next call request the metadata again."""
        self._known = self.decodes = None

    def metadata(self, metadata: Metadata | None = None) -> Steps[ModelMetadata]:
        request = pb.GetModelMetadataRequest(model_spec=self._calls.spec(), metadata_field=["signature_def"])
        response = yield from self._calls.call(methods.GET_MODEL_METADATA, request, metadata)
        # Not by `Unpack`, which would compare the name in the Any, TensorFlow Serving's, with ours.
        found = pb.SignatureDefMap.FromString(response.metadata["signature_def"].value)
        signatures = {
            name: Signature(name, signature.method_name, _specs(signature.inputs), _specs(signature.outputs))
            for name, signature in sorted(found.signature_def.items())
            if signature.inputs  # TensorFlow also lists its initializer
        }
        return ModelMetadata(response.model_spec.name, response.model_spec.version.value, signatures)

    def status(self, timeout: float | None = None, wait_for_ready: bool = False) -> Steps[list[VersionStatus]]:
        request = pb.GetModelStatusRequest(model_spec=self._calls.spec())
        response = yield from self._calls.call(methods.GET_MODEL_STATUS, request, None, timeout, wait_for_ready)
        return _version_statuses(response)

    def models(self) -> Steps[dict[str, list[VersionStatus]]]:
        """The statuses of all models of the server, by name."""
        try:
            response = yield from self._calls.call(methods.LIST_MODELS, pb.ListModelsRequest(), None)
        except Unsupported as error:
            raise reworded(
                error,
                "To list its models, the server must be keraslight's, asked over gRPC: TensorFlow Serving has no such "
                f"call. Received: {error}",
            ) from error
        return {model.name: _version_statuses(model) for model in response.model}

    def wait_until_ready(self, timeout: float) -> Steps[None]:
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            cause: ServingError | None = None
            try:
                versions = yield from self.status(min(left, 1.0), wait_for_ready=True)
            except (Unavailable, DeadlineExceeded, ModelNotFound) as error:
                reason, cause = str(error), error
            else:
                if any(version.state == "AVAILABLE" for version in versions):
                    return
                reason = "; ".join(f"version {v.version} is {v.state} {v.error}".strip() for v in versions)
            # The last pause ends at the deadline: an attempt in what is left of a millisecond would hide the reason.
            yield Wait((), max(min(0.1, deadline - time.monotonic()), 0.0))
            if time.monotonic() >= deadline:
                text = f"Model {self._calls.model!r} must be ready within {timeout} seconds. Received: {reason}"
                raise self._calls.error(Unavailable, text, grpc.StatusCode.UNAVAILABLE) from cause


def _version_statuses(message: pb.GetModelStatusResponse | pb.ListModelsResponse.Model) -> list[VersionStatus]:
    name = pb.ModelVersionStatus.State.Name
    return [VersionStatus(v.version, name(v.state), v.status.error_message) for v in message.model_version_status]


def _specs(infos: Mapping[str, pb.TensorInfo]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(name, numpy_name(info.dtype), _shape(info)) for name, info in sorted(infos.items())}


def _shape(info: pb.TensorInfo) -> tuple[int | None, ...] | None:
    if info.tensor_shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
