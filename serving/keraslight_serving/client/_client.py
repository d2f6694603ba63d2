"""The client."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import numpy as np
from numpy.typing import ArrayLike

from keraslight_serving.client._images import ImageLike, encode_images
from keraslight_serving.client._types import Classification, ModelMetadata, Signature, TensorSpec, VersionStatus
from keraslight_serving.client.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    ModelNotFound,
    Unavailable,
    from_rpc_error,
)
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import TensorError, numpy_name, to_array, to_tensor


class ClassifierClient:
    """Asks a model server about images. May be shared by threads; to be closed, or used in a `with`.

    Args:
        target: `host:port` of the server.
        model: its name there.
        version: None for the newest that is loaded.
        timeout: seconds for each call. The first `classify` may have to wait for the server to import TensorFlow,
            unless it was started with `--load_saved_model`.
        max_message_bytes: the largest request and response.
        channel: a grpc.Channel to use instead of opening one to `target`: for TLS (`grpc.secure_channel`),
            interceptors, or tests (`keraslight_serving.client.testing.FakeChannel`). Whoever passes it closes it.

    Raises:
        InvalidInput: `version` is not at least 1, or `timeout` not above 0.
    """

    def __init__(
        self,
        target: str = "localhost:8500",
        model: str = "digits",
        *,
        version: int | None = None,
        timeout: float = 10.0,
        max_message_bytes: int = 64 * 2**20,
        channel: grpc.Channel | None = None,
    ) -> None:
        # TensorFlow Serving takes a 0 on the wire for a version of that number, not for "any".
        if version is not None and version < 1:
            raise InvalidInput(f"`version` must be at least 1, or None for the newest. Received: {version}")
        if timeout <= 0:
            raise InvalidInput(f"`timeout` must be above 0 seconds. Received: {timeout}")
        self._target = target if channel is None else "the given channel"
        self._model = model
        self._version = version
        self._timeout = timeout
        self._max_message_bytes = max_message_bytes
        self._own_channel = channel is None
        self._channel = channel or grpc.insecure_channel(
            target,
            options=[
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.max_receive_message_length", max_message_bytes),
            ],
        )

    def classify(self, images: ImageLike | Iterable[ImageLike], top_k: int = 5) -> list[list[Classification]]:
        """Names what is on images.

        The images are sent as they are; decoding, resizing and normalizing is the model's work (signature `encoded`).

        Args:
            images: one image or an iterable of them, kinds mixed as you like. An image is a path (str or Path), the
                bytes of a JPEG, PNG, GIF, BMP, WebP or JPEG XL file, a binary file object, a PIL image, or an array of
                shape (height, width) or (height, width, 1|3|4) with whole pixels from 0 to 255. An array of shape
                (images, height, width, 1|3|4) is a batch.
            top_k: the length of each ranking. It is shorter where the model ranks fewer classes.

        Returns:
            One ranking per image, in their order, best class first. A single image is a batch of one.

        Raises:
            InvalidInput: there are no images, or something is no image; the text says which. Also where the model
                can't decode one; then none of them is classified.
            ServingError: see `keraslight_serving.client.errors`.
        """
        if top_k < 1:
            raise self._invalid(f"`top_k` must be at least 1. Received: {top_k}")
        try:
            encoded = encode_images(images)
        except InvalidInput as error:
            raise self._invalid(str(error)) from error
        if not encoded:
            raise self._invalid("There must be at least one image. Received: none")
        outputs = self.predict({"image_bytes": encoded}, signature="encoded", outputs=("classes", "scores", "indices"))
        classes, scores, indices = outputs["classes"], outputs["scores"], outputs["indices"]
        if not len(classes) == len(scores) == len(indices) == len(encoded):
            raise InternalError(
                f"The server must answer with one ranking per image, {len(encoded)}. Received: {len(classes)}",
                model=self._model,
                version=self._version,
            )
        return [
            [
                Classification(label.decode(errors="replace"), float(score), int(index))
                for label, score, index in zip(*ranking, strict=True)
            ]
            for ranking in zip(classes[:, :top_k], scores[:, :top_k], indices[:, :top_k], strict=True)
        ]

    def predict(
        self,
        inputs: Mapping[str, ArrayLike],
        signature: str = methods.DEFAULT_SIGNATURE,
        outputs: Iterable[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a signature on tensors as they are.

        Args:
            inputs: arrays by name, with the dtypes and shapes that `metadata()` lists. Strings as lists of bytes or
                str, or as object arrays of them.
            signature: which one.
            outputs: the names to answer with. Default: all.

        Returns:
            Arrays by name, possibly read-only; strings as object arrays of bytes.

        Raises:
            InvalidInput: the model can't take these inputs, or they make too large a request.
            ServingError: see `keraslight_serving.client.errors`.
        """
        request = pb.PredictRequest(model_spec=self._spec(signature), output_filter=outputs or ())
        for name, array in inputs.items():
            try:
                request.inputs[name].CopyFrom(to_tensor(array, content=True))
            except (TensorError, ValueError) as error:
                raise self._invalid(f"Input {name!r} can't be sent: {error}") from error
        response = self._call(methods.PREDICT, request)
        try:
            return {name: to_array(tensor) for name, tensor in response.outputs.items()}
        except TensorError as error:
            raise InternalError(
                f"The server's answer can't be read: {error}", model=self._model, version=self._version
            ) from error

    def metadata(self) -> ModelMetadata:
        """Asks for the model's signatures.

        Raises:
            ServingError: see `keraslight_serving.client.errors`.
        """
        request = pb.GetModelMetadataRequest(model_spec=self._spec(), metadata_field=["signature_def"])
        response = self._call(methods.GET_MODEL_METADATA, request)
        # By its bytes: the name in the Any is TensorFlow Serving's, and `Unpack` would compare it with ours.
        found = pb.SignatureDefMap.FromString(response.metadata["signature_def"].value)
        signatures = {
            name: Signature(name, signature.method_name, _specs(signature.inputs), _specs(signature.outputs))
            for name, signature in sorted(found.signature_def.items())
            if signature.inputs  # TensorFlow lists its initializer, too
        }
        return ModelMetadata(response.model_spec.name, response.model_spec.version.value, signatures)

    def status(self) -> list[VersionStatus]:
        """Asks for the states of the model's versions, newest first; with `version`, of that one.

        Raises:
            ServingError: see `keraslight_serving.client.errors`.
        """
        return self._status(self._timeout)

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Returns once the server answers and has the model loaded.

        Args:
            timeout: seconds, before which a server that can't be reached or lacks the model is no error.

        Raises:
            Unavailable: not ready in time; the text has the last reason.
            ServingError: see `keraslight_serving.client.errors`.
        """
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            try:
                versions = self._status(min(left, 1.0), wait_for_ready=True)
            except (Unavailable, DeadlineExceeded, ModelNotFound) as error:
                reason, cause = str(error), error
            else:
                if any(version.state == "AVAILABLE" for version in versions):
                    return
                reason = "; ".join(f"version {v.version} is {v.state} {v.error}".strip() for v in versions)
                cause = None
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unavailable(
                    f"Model {self._model!r} must be ready within {timeout} seconds. Received: {reason}",
                    model=self._model,
                    version=self._version,
                    code=grpc.StatusCode.UNAVAILABLE,
                ) from cause
            time.sleep(min(0.1, left))

    def close(self) -> None:
        """Closes the connection, unless the channel was passed in."""
        if self._own_channel:
            self._channel.close()

    def __enter__(self) -> "ClassifierClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _status(self, timeout: float, *, wait_for_ready: bool | None = None) -> list[VersionStatus]:
        request = pb.GetModelStatusRequest(model_spec=self._spec())
        response = self._call(methods.GET_MODEL_STATUS, request, timeout=timeout, wait_for_ready=wait_for_ready)
        names = pb.ModelVersionStatus.State
        return [
            VersionStatus(v.version, names.Name(v.state), v.status.error_message) for v in response.model_version_status
        ]

    def _spec(self, signature: str = "") -> pb.ModelSpec:
        spec = pb.ModelSpec(name=self._model, signature_name=signature)
        if self._version is not None:
            spec.version.value = self._version
        return spec

    def _call(
        self, method: methods.Method, request: Any, *, timeout: float | None = None, wait_for_ready: bool | None = None
    ) -> Any:
        size = request.ByteSize()
        if size > self._max_message_bytes:
            raise self._invalid(
                f"A request must fit in `max_message_bytes`, {self._max_message_bytes}: send fewer images at a time. "
                f"Received: {size} bytes"
            )
        call = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        try:
            return call(request, timeout=timeout or self._timeout, wait_for_ready=wait_for_ready)
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self._target, model=self._model, version=self._version) from error

    def _invalid(self, text: str) -> InvalidInput:
        return InvalidInput(text, model=self._model, version=self._version)


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
