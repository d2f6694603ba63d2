"""For tests of programs that use the client: channels without a server.

def test_names_the_file_after_its_content():
    channel = FakeChannel([("seven", 0.9), ("one", 0.1)])
    client = ClassifierClient(model="digits", channel=channel)
    assert rename_photo("IMG_1.png", client) == "seven.png"
    assert len(channel.requests) == 1
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import grpc

from keraslight_serving.extras import require

require("keraslight_serving.client.testing", "server", "numpy")

import numpy as np
from google.protobuf.message import Message
from numpy.typing import ArrayLike

from keraslight_serving.client._transport import AsyncCall, Call, Channel
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import to_tensor


class FakeRpcError(grpc.RpcError):
    """A failed call, with the methods of an RpcError that callers use."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


_AVAILABLE = pb.ModelVersionStatus(version=1, state=pb.ModelVersionStatus.AVAILABLE)


class FakeChannel:
    """Stands in for a grpc.Channel to a server with one model, version 1.

    Messages are serialized and parsed as on a real channel.

    Args:
        ranking: (label, score) pairs, best first: the result for every image.
        inputs: Arrays by name, as passed to `predict`. They declare `serving_default`, for any number of images.
        outputs: Arrays by name, the result of `predict` with `serving_default`.
        error: Status that all calls fail with instead, such as UNAVAILABLE. Can be changed later, as an attribute.
        details: Text of `error`.
        thresholds: Thresholds of a multi-label model, in the order of `ranking`.

    Attributes:
        requests: The messages that were sent, in order.
        metadata: The headers that were sent with each.
    """

    def __init__(
        self,
        ranking: Sequence[tuple[str, float]] = (("cat", 0.9), ("dog", 0.1)),
        *,
        inputs: Mapping[str, ArrayLike] | None = None,
        outputs: Mapping[str, ArrayLike] | None = None,
        error: grpc.StatusCode | None = None,
        details: str = "the fake channel was told to fail",
        thresholds: Sequence[float] | None = None,
    ) -> None:
        self.thresholds = thresholds
        self.ranking, self.inputs, self.outputs = list(ranking), dict(inputs or {}), dict(outputs or {})
        self.error, self.details = error, details
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **_: object,
    ) -> Any:
        """Like that of grpc.Channel: returns a callable that makes the call, with `future` for the background."""
        answers: dict[str, tuple[methods.Method[Any, Any], Callable[[Any], Message]]] = {
            methods.PREDICT.path: (methods.PREDICT, self._predict),
            methods.GET_MODEL_METADATA.path: (methods.GET_MODEL_METADATA, self._metadata),
            methods.GET_MODEL_STATUS.path: (methods.GET_MODEL_STATUS, self._status),
            methods.LIST_MODELS.path: (methods.LIST_MODELS, self._models),
        }
        method, answer = answers[path]

        def exchange(request: Any, metadata: Sequence[tuple[str, str]]) -> Any:
            received = method.request.FromString(request_serializer(request))
            self.requests.append(received)
            self.metadata.append(dict(metadata))
            if self.error is not None:
                raise FakeRpcError(self.error, self.details)
            return response_deserializer(answer(received).SerializeToString())

        return self._callable(exchange)

    def close(self) -> Any:
        """Does nothing, like a channel that is closed twice; to be awaited for an `AsyncFakeChannel`."""
        return self._callable(lambda request, metadata: None)(None)

    @staticmethod
    def _callable(exchange: Callable[..., Any]) -> Any:
        return _FakeCall(exchange)

    def _predict(self, request: pb.PredictRequest) -> pb.PredictResponse:
        response = pb.PredictResponse(model_spec=_first_version(request.model_spec))
        arrays = self.outputs
        if request.model_spec.signature_name == "encoded":
            rows = request.inputs["image_bytes"].tensor_shape.dim[0].size
            labels, scores = zip(*self.ranking, strict=True)
            arrays = {
                "classes": np.array([labels] * rows, object),
                "scores": np.array([scores] * rows, np.float32),
                "indices": np.array([range(len(labels))] * rows, np.int32),
            }
            if self.thresholds is not None:
                arrays["thresholds"] = np.array([self.thresholds] * rows, np.float32)
            if missing := [name for name in request.output_filter if name not in arrays]:
                details = f"output tensor alias not found in signature: {missing[0]}"
                raise FakeRpcError(grpc.StatusCode.INVALID_ARGUMENT, details)
        for name, array in arrays.items():
            to_tensor(array, into=response.outputs[name])
        return response

    def _metadata(self, request: pb.GetModelMetadataRequest) -> pb.GetModelMetadataResponse:
        signatures = pb.SignatureDefMap()
        encoded = signatures.signature_def["encoded"]
        encoded.method_name = "tensorflow/serving/predict"
        _declare(encoded.inputs["image_bytes"], pb.DT_STRING, -1)
        kinds = [("classes", pb.DT_STRING), ("scores", pb.DT_FLOAT), ("indices", pb.DT_INT32)]
        for name, dtype in [*kinds, *([] if self.thresholds is None else [("thresholds", pb.DT_FLOAT)])]:
            _declare(encoded.outputs[name], dtype, -1, len(self.ranking))
        if self.inputs:
            default = signatures.signature_def[methods.DEFAULT_SIGNATURE]
            default.method_name = encoded.method_name
            for arrays, infos in ((self.inputs, default.inputs), (self.outputs, default.outputs)):
                for name, array in arrays.items():
                    tensor = to_tensor(array)
                    sizes = [dim.size for dim in tensor.tensor_shape.dim]
                    _declare(infos[name], tensor.dtype, *([-1, *sizes[1:]] if sizes else []))
        response = pb.GetModelMetadataResponse(model_spec=_first_version(request.model_spec))
        packed = response.metadata["signature_def"]
        packed.type_url, packed.value = methods.SIGNATURE_DEF_MAP_URL, signatures.SerializeToString()
        return response

    def _status(self, request: pb.GetModelStatusRequest) -> pb.GetModelStatusResponse:
        return pb.GetModelStatusResponse(model_version_status=[_AVAILABLE])

    def _models(self, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        default = pb.ListModelsResponse.Model(name="default", model_version_status=[_AVAILABLE])
        return pb.ListModelsResponse(model=[default])


class AsyncFakeChannel(FakeChannel):
    """`FakeChannel` for `AsyncClassifierClient`: stands in for a grpc.aio.Channel."""

    @staticmethod
    def _callable(exchange: Callable[..., Any]) -> AsyncCall:
        async def call(request: Any, metadata: Sequence[tuple[str, str]] = (), **_: object) -> Any:
            return exchange(request, metadata)

        return call


if TYPE_CHECKING:  # both fit the clients' seam
    _channel: Channel[Call] = FakeChannel()
    _async_channel: Channel[AsyncCall] = AsyncFakeChannel()


class _FakeCall:
    def __init__(self, exchange: Callable[..., Any]) -> None:
        self._exchange = exchange

    def __call__(self, request: Any, metadata: Sequence[tuple[str, str]] = (), **_: object) -> Any:
        return self._exchange(request, metadata)

    def future(self, request: Any, metadata: Sequence[tuple[str, str]] = (), **_: object) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(self._exchange(request, metadata))
        except grpc.RpcError as error:
            done.set_exception(error)
        return done


def _first_version(asked: pb.ModelSpec) -> pb.ModelSpec:
    return pb.ModelSpec(name=asked.name, signature_name=asked.signature_name, version={"value": 1})


def _declare(info: pb.TensorInfo, dtype: pb.DataType, *sizes: int) -> None:
    info.dtype = dtype
    for size in sizes:
        info.tensor_shape.dim.add(size=size)
