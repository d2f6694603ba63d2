"""What the server tells of its models, and what is remembered of the client's own. No I/O here, see `_calls`."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from keraslight_serving.client._calls import Calls, Metadata
from keraslight_serving.client._retry import Next, Steps
from keraslight_serving.client._types import ModelMetadata, Signature, TensorSpec, VersionStatus
from keraslight_serving.client.errors import DeadlineExceeded, ModelNotFound, Unavailable, Unsupported
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import numpy_name


class Model:
    """The client's model, as far as the server describes it.

    Attributes:
        decodes: whether it has the signature `encoded`; None: not known yet.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._known: ModelMetadata | None = None
        self.decodes: bool | None = None

    # ------------------------------------------------------------ what is remembered

    def known_metadata(self, metadata: Metadata | None = None) -> Steps:
        """The metadata, asked for once; None from a server that can't tell."""
        if self._known is None:
            try:
                found = yield from self.metadata(metadata)
            except Unsupported:
                return None
            self._known = found
            self.decodes = "encoded" in found.signatures
        return self._known

    def answered(self, version: int) -> None:
        """Notes which version has answered: another one may have other signatures."""
        if self._known is not None and version not in (0, self._known.version):
            self.forget()

    def forget(self) -> None:
        """What is known of the model; the next call asks again."""
        self._known = self.decodes = None

    # ------------------------------------------------------------ what is asked

    def metadata(self, metadata: Metadata | None = None) -> Steps:
        request = pb.GetModelMetadataRequest(model_spec=self._calls.spec(), metadata_field=["signature_def"])
        response = yield from self._calls.call(methods.GET_MODEL_METADATA, request, metadata)
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
        request = pb.GetModelStatusRequest(model_spec=self._calls.spec())
        response = yield from self._calls.call(methods.GET_MODEL_STATUS, request, metadata, timeout, wait_for_ready)
        return _version_statuses(response)

    def models(self, metadata: Metadata | None = None) -> Steps:
        """The statuses of all models of the server, by name."""
        try:
            response = yield from self._calls.call(methods.LIST_MODELS, pb.ListModelsRequest(), metadata)
        except Unsupported as error:
            raise Unsupported(
                "To list its models, the server must be keraslight's, asked over gRPC: TensorFlow Serving has no such "
                f"call. Received: {error}",
                model=error.model,
                version=error.version,
                code=error.code,
                details=error.details,
                attempts=error.attempts,
            ) from error
        return {model.name: _version_statuses(model) for model in response.model}

    def wait_until_ready(self, timeout: float) -> Steps:
        calls = self._calls
        deadline = calls.clock() + timeout
        while True:
            left = max(deadline - calls.clock(), 0.001)
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
            yield Next(max(min(0.1, deadline - calls.clock()), 0.0))
            if calls.clock() >= deadline:
                raise Unavailable(
                    f"Model {calls.model!r} must be ready within {timeout} seconds. Received: {reason}",
                    model=calls.model,
                    version=calls.version,
                    code=grpc.StatusCode.UNAVAILABLE,
                ) from cause


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
